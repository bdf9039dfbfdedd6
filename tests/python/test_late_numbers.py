"""Numbers read from tensors (`item()`): values of the graph where they are followed, never frozen."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator

import pytest
import torch

os.environ.setdefault("FLASHPOINT_STRICT", "1")

import flashpoint  # noqa: E402

VALUES = (2.5, 0.5, -3.0, 7.0, 1.0)


@pytest.fixture(autouse=True)
def captured() -> Iterator[None]:
    flashpoint.reset()
    with flashpoint.config.patch(capture_scalar_outputs=True):
        yield


def number(value: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(value, dtype=dtype)


def outcome(fn: Callable, *args: object) -> object:
    try:
        return fn(*args)
    except Exception as error:
        return type(error), str(error)


def same(got: object, want: object) -> bool:
    if isinstance(want, torch.Tensor):
        return isinstance(got, torch.Tensor) and got.dtype == want.dtype and torch.equal(got, want)
    if isinstance(want, (tuple, list)):
        return (
            type(got) is type(want)
            and len(got) == len(want)
            and all(same(a, b) for a, b in zip(got, want, strict=True))
        )
    if isinstance(want, float) and math.isnan(want):
        return isinstance(got, float) and math.isnan(got)
    return type(got) is type(want) and got == want


def follows(fn: Callable, *extra: object, values: tuple = VALUES, dtype: torch.dtype = torch.float32) -> None:
    """One recording answers for every value, with eager's results."""
    compiled = flashpoint.compile(fn, backend="eager")
    compiled(number(values[0], dtype), *extra)
    before = flashpoint.counters()
    for value in values:
        assert same(compiled(number(value, dtype), *extra), fn(number(value, dtype), *extra)), value
    after = flashpoint.counters()
    assert after["hits"] - before["hits"] == len(values), compiled.last_report()
    for counter in ("misses", "captures_started", "resume_hits", "eager_calls", "restarts"):
        assert after[counter] == before[counter], (counter, compiled.last_report())
    assert compiled.last_report()["breaks"] == []


def breaks(fn: Callable, *extra: object, values: tuple = VALUES) -> None:
    """Eager's results for every value; the recording ends before the number is used."""
    compiled = flashpoint.compile(fn, backend="eager")
    for value in (*values, *values):
        want, got = outcome(fn, number(value), *extra), outcome(compiled, number(value), *extra)
        assert same(got, want), (value, got, want)
    assert flashpoint.counters()["captures_started"] > 0


ARITHMETIC: dict[str, Callable] = {
    "add": lambda s: s + 1,
    "sub": lambda s: 1 - s,
    "mul": lambda s: s * 0.1 * s,
    "div": lambda s: (1 / s, s / 3),
    "floordiv": lambda s: (s // 2, 7 // s, s // -0.3),
    "mod": lambda s: (s % 2, 7 % s, s % -0.3),
    "pow": lambda s: (s**2, 0.9**s, 2**s),
    "neg": lambda s: -s,
    "abs": lambda s: abs(s),
    "float": lambda s: float(s) * 2,
    "int": lambda s: int(s) + 1,
    "mixed": lambda s: (1 - 0.9 ** (s + 1)) / -s,
}


@pytest.mark.parametrize("name", list(ARITHMETIC))
def test_arithmetic_on_a_float(name: str) -> None:
    operation = ARITHMETIC[name]
    follows(lambda x: (x * 2, operation(x.item())))


@pytest.mark.parametrize("name", list(ARITHMETIC))
def test_arithmetic_on_an_int(name: str) -> None:
    operation = ARITHMETIC[name]
    values = (3, 1, 5, 4) if name == "pow" else (3, 1, -5, 4)
    follows(lambda x: (x * 2, operation(x.item())), values=values, dtype=torch.int64)


def test_root() -> None:
    follows(lambda x: (x * 2, math.sqrt(x.item())), values=(4.0, 2.0, 0.0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtypes(dtype: torch.dtype) -> None:
    follows(lambda x: (x * 2, x.item() + 0.1), dtype=dtype)


def test_float_and_int_of_a_tensor() -> None:
    follows(lambda x: (x + 1, float(x) * 3))
    follows(lambda x: (x + 1, int(x) * 3), values=(1, 5, -2), dtype=torch.int32)


def test_into_operators() -> None:
    def fn(x: torch.Tensor, y: torch.Tensor) -> object:
        s = x.sum().item()
        t = s / 3 + 1
        return (
            y * s,
            s - y,
            torch.add(y, y, alpha=t),
            torch.clamp(y, min=-t * t, max=t * t),
            y.addcmul(y, y, value=s),
        )

    follows(fn, torch.randn(4))


def test_arithmetic_with_a_changing_argument() -> None:
    def fn(x: torch.Tensor, lr: float) -> object:
        return x * (lr / (1 - 0.5 ** x.item()))

    compiled = flashpoint.compile(fn, backend="eager")
    for i, lr in enumerate((0.1, 0.2, 0.3, 0.4, 0.5)):
        if i == 3:
            before = flashpoint.counters()["captures_started"]
        assert same(compiled(number(2.0 + i), lr), fn(number(2.0 + i), lr))
    assert flashpoint.counters()["captures_started"] == before


def test_through_functions_and_attributes() -> None:
    class Box:
        value = 0.0

    box = Box()

    def half(v: float) -> float:
        return v / 2

    def fn(x: torch.Tensor) -> object:
        s = half(x.item())
        box.value = s + 1
        return x * s, box.value

    def plain(x: torch.Tensor) -> object:
        return x * (x.item() / 2), x.item() / 2 + 1

    compiled = flashpoint.compile(fn, backend="eager")
    for i, value in enumerate(VALUES):
        if i == 1:
            before = flashpoint.counters()
        assert same(compiled(number(value)), plain(number(value)))
        assert box.value == value / 2 + 1
    after = flashpoint.counters()
    assert after["hits"] - before["hits"] == 4 and after["captures_started"] == before["captures_started"]


def test_lists_into_foreach() -> None:
    def fn(x: torch.Tensor, y: torch.Tensor) -> object:
        steps = [t.item() for t in (x, x * 2)]
        scaled = [1 - 0.9**s for s in steps]
        return torch._foreach_mul([y, y + 1], scaled), scaled[1] * y

    follows(fn, torch.randn(3), values=(2.5, 0.5, 7.0))


def test_a_write_before_the_number() -> None:
    """What may raise is computed before the write, from a copy."""

    def fn(step: torch.Tensor, p: torch.Tensor) -> object:
        step += 1
        p.mul_(0.9)
        s = step.item()
        p.add_(p, alpha=0.1 / (1 - 0.9**s))
        return s

    def state(value: float) -> tuple[torch.Tensor, torch.Tensor]:
        return number(value), torch.arange(4.0)

    compiled = flashpoint.compile(fn, backend="eager")
    for i, value in enumerate((1.0, 5.0, 0.0, -1.0, 3.0)):
        if i == 1:
            before = flashpoint.counters()
        ours, theirs = state(value), state(value)
        assert same(outcome(compiled, *ours), outcome(fn, *theirs)), value
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a, b), value
            assert value == -1.0 or a._version == b._version
    after = flashpoint.counters()
    assert after["captures_started"] == before["captures_started"]
    assert after["hits"] - before["hits"] >= 3
    assert after["restarts"] - before["restarts"] == 1  # 1 - 0.9 ** 0 is zero: eager's error


def test_a_large_slice_after_a_write_is_a_break() -> None:
    def fn(x: torch.Tensor, y: torch.Tensor) -> object:
        y.add_(1)
        return x * (1 / (y @ y.t()).sum().item())

    compiled = flashpoint.compile(fn, backend="eager")
    for value in VALUES:
        ours, theirs = torch.ones(16, 16) * value, torch.ones(16, 16) * value
        assert same(outcome(compiled, number(value), ours), outcome(fn, number(value), theirs))
        assert torch.equal(ours, theirs)


UNFOLLOWED: dict[str, Callable] = {
    "comparison": lambda x, y: y * 2 if x.item() > 1 else y * 3,
    "truth": lambda x, y: y * 2 if x.item() - 1 else y * 3,
    "size": lambda x, y: y * torch.zeros(abs(int(x.item())), 1).sum() + abs(int(x.item())),
    "text": lambda x, y: (f"{x.item():.1f}", str(x.item()), y + 1),
    "dict": lambda x, y: ({"a": x.item()}["a"], y + 1),
    "set": lambda x, y: (len({x.item(), 1.0}), y + 1),
    "sum of a list": lambda x, y: (sum([x.item(), 2.0]), y * sum([t.item() for t in (x, y[0])])),
    "tensor of a list": lambda x, y: torch.tensor([x.item(), 2.0]) + y[:2],
    "tensor of a comprehension": lambda x, y: torch.tensor([t.item() for t in (x, x)]) + y[:2],
    "generator": lambda x, y: (sum(t.item() for t in (x, x)), y + 1),
    "max": lambda x, y: y * max(1.0, x.item()),
    "round": lambda x, y: y * round(x.item()),
    "trig": lambda x, y: y * math.sin(x.item()),
    "getattr default": lambda x, y: y * getattr(x, "nothing", x.item()),
    "partial": lambda x, y: __import__("functools").partial(torch.add, y)(x.item()),
    "sorted": lambda x, y: (sorted([t.item() for t in (x, y[0])]), y + 1),
    "zip": lambda x, y: [a * b for a, b in zip([t.item() for t in (x, x)], [y, y + 1], strict=True)],
    "append": lambda x, y: ((lambda out: out.append(x.item()) or out)([]), y + 1),
    "index": lambda x, y: y[int(abs(x.item())) % 3],
    "kwargs": lambda x, y: (lambda **k: k["a"] * y)(a=x.item()),
    "star": lambda x, y: (lambda *a: a[0] * y)(x.item()),
    "complex": lambda x, y: y * complex(x.item(), 1.0),
    "bool": lambda x, y: (bool(x.item()), y + 1),
    "isinf": lambda x, y: y * 2 if math.isinf(x.item()) else y,
}


@pytest.mark.parametrize("name", list(UNFOLLOWED))
def test_no_value_is_frozen(name: str) -> None:
    torch.manual_seed(0)
    breaks(UNFOLLOWED[name], torch.randn(4))


def test_off_by_default() -> None:
    with flashpoint.config.patch(capture_scalar_outputs=False):
        compiled = flashpoint.compile(lambda x: (x * 2, x.item() + 1), backend="eager")
        for value in VALUES:
            assert same(compiled(number(value)), (number(value) * 2, value + 1))
        assert compiled.last_report()["breaks"]


def test_a_number_leaves_at_a_break() -> None:
    """It is an output of the entry before the break."""

    def fn(x: torch.Tensor) -> object:
        s = x.item() + 1
        flashpoint.graph_break()
        return x * s

    compiled = flashpoint.compile(fn, backend="eager")
    for value in (*VALUES, *VALUES):
        assert same(compiled(number(value)), fn(number(value)))
    assert flashpoint.counters()["breaks_resumed"] > 0


OPTIMIZERS: dict[str, tuple[type, dict]] = {
    "Adam": (torch.optim.Adam, {}),
    "Adam, weight decay": (torch.optim.Adam, {"weight_decay": 0.1}),
    "Adam, foreach": (torch.optim.Adam, {"foreach": True}),
    "AdamW": (torch.optim.AdamW, {}),
    "AdamW, foreach": (torch.optim.AdamW, {"foreach": True}),
    "AdamW, amsgrad": (torch.optim.AdamW, {"amsgrad": True}),
    "AdamW, amsgrad, foreach": (torch.optim.AdamW, {"amsgrad": True, "foreach": True}),
    "AdamW, maximize": (torch.optim.AdamW, {"maximize": True}),
    "Adamax": (torch.optim.Adamax, {}),
    "Adagrad": (torch.optim.Adagrad, {"lr_decay": 0.1}),
    "NAdam": (torch.optim.NAdam, {}),
}


@pytest.mark.parametrize("backend", ["eager", "native"])
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_optimizers_are_one_graph(name: str, backend: str) -> None:
    kind, options = OPTIMIZERS[name]

    def training() -> tuple[torch.nn.Module, torch.optim.Optimizer, Callable]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 4))
        optimizer = kind(model.parameters(), lr=1e-2, **options)

        def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return model, optimizer, step

    exact = backend == "eager"
    with flashpoint.config.patch(capture_scalar_outputs=False):
        model, optimizer, step = training()
        reference, reference_optimizer, eager_step = training()
        compiled = flashpoint.compile(step, backend=backend)
        for i in range(20):
            if i == 4:
                before = flashpoint.counters()
            torch.manual_seed(i)
            x, y = torch.randn(4, 8), torch.randn(4, 4)
            got, want = compiled(x, y), eager_step(x, y)
            assert torch.equal(got, want) if exact else torch.allclose(got, want, rtol=1e-4, atol=1e-6)
            for a, b in zip(model.parameters(), reference.parameters(), strict=True):
                assert torch.equal(a, b) if exact else torch.allclose(a, b, rtol=1e-4, atol=1e-6)
                mine, theirs = optimizer.state[a], reference_optimizer.state[b]
                assert mine.keys() == theirs.keys()
                assert "step" not in theirs or torch.equal(mine["step"], theirs["step"])
    after = flashpoint.counters()
    assert after["hits"] - before["hits"] == 16, compiled.last_report()
    for counter in ("misses", "captures_started", "resume_hits", "eager_calls", "restarts"):
        assert after[counter] == before[counter], (counter, compiled.last_report())
    assert compiled.last_report()["breaks"] == []
