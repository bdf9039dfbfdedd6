"""Numbers as inputs of the graph: one recording serves all values, and replay gives what eager gives.

Each row is an expression over a tensor `x` and a number `n`, another one at each call. The counters say
how many recordings it took: one where the number may be an input, more where shapes or decisions hang on it.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import flashpoint

FLOATS = [0.5, 1.5, 2.0, -0.25, 7.0, 3.0, 0.1, 9.0, float("nan"), float("inf"), -0.0]
INTS = [3, 1, 2, -4, 5, 6, 7, 8, 9, 10, 1000]


def augmented(x: torch.Tensor, n: float) -> torch.Tensor:
    x = x.clone()
    x *= n
    x += n
    return x


def stored(x: torch.Tensor, n: float) -> torch.Tensor:
    x = x.clone()
    x[0] = n
    x[:, 1] = n * 2
    return x


def loop(x: torch.Tensor, n: float) -> torch.Tensor:
    for i in range(3):
        x = x * n + i
    return x


ROWS: dict[str, Callable[[torch.Tensor, float], Any]] = {
    "mul": lambda x, n: x * n,
    "reflected mul": lambda x, n: n * x,
    "add and sub": lambda x, n: x + n - (n + 1),
    "reflected sub": lambda x, n: n - x,
    "div": lambda x, n: x / n,
    "reflected div": lambda x, n: n / x,
    "floordiv": lambda x, n: x // n,
    "mod": lambda x, n: x % n,
    "pow": lambda x, n: x**n,
    "reflected pow": lambda x, n: n**x,
    "compare": lambda x, n: (x > n, n < x, x == n),
    "integers": lambda x, n: x.long() * n,
    "half precision": lambda x, n: x.half() + n,
    "0-dim": lambda x, n: x.sum() * n,
    "augmented": augmented,
    "stored": stored,
    "loop": loop,
    "alpha": lambda x, n: torch.add(x, x, alpha=n),
    "in place alpha": lambda x, n: x.clone().add_(x, alpha=n),
    "value": lambda x, n: torch.addcmul(x, x, x, value=n),
    "full": lambda x, n: torch.full((2, 2), n) + x.sum(),
    "full_like": lambda x, n: torch.full_like(x, n),
    "new_full": lambda x, n: x.new_full((2,), n),
    "fill_": lambda x, n: torch.empty(3).fill_(n),
    "tensor": lambda x, n: x * torch.tensor(n),
    "as_tensor": lambda x, n: torch.as_tensor(n) + x,
    "clamp": lambda x, n: x.clamp(-3, n),
    "clamp by keyword": lambda x, n: torch.clamp(x, max=n),
    "clamp, twice the same": lambda x, n: torch.clamp(x, n, n),
    "masked_fill": lambda x, n: x.masked_fill(x > 0, n),
    "where": lambda x, n: torch.where(x > 0, x, n),
    "lerp": lambda x, n: torch.lerp(x, x * 2, n),
    "leaky_relu": lambda x, n: F.leaky_relu(x, n),
    "layer_norm": lambda x, n: F.layer_norm(x, (4,), eps=n * n + 1e-5),
    "attention": lambda x, n: F.scaled_dot_product_attention(x[None], x[None], x[None], scale=n),
    "two operators": lambda x, n: (x * n).clamp(min=n) + min(n, 2),
    "made of it": lambda x, n: x * abs(n) + round(n * n, 2) if n == n and abs(n) < 100 else x * n,
}
# How many recordings: of floats, of ints. A decision has two outcomes, two of them four.
RECORDINGS = {"two operators": (3, 2), "made of it": (3, 2)}


def values_of(result: Any) -> str:
    leaves = result if isinstance(result, tuple) else (result,)
    return str([(t.dtype, t.shape, t.tolist()) if isinstance(t, torch.Tensor) else t for t in leaves])


# Rows whose generated code rounds otherwise: sums in another order, products that eager fuses with sums.
ROUNDED = {"0-dim", "full", "alpha", "in place alpha", "value", "lerp"}


def same_values(got: Any, want: Any, *, rounded: bool) -> bool:
    if not rounded:
        return values_of(got) == values_of(want)
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    finite = want[want.isfinite()].abs()
    scale = float(finite.max()) if finite.numel() else 1.0
    return torch.allclose(got, want, rtol=1e-6, atol=1e-6 * scale, equal_nan=True)


def kept() -> int:
    return flashpoint.counters()["captures_kept"]


@pytest.mark.parametrize("backend", ["eager", "native"])
@pytest.mark.parametrize(
    ("name", "kind"), list(itertools.product(ROWS, ("float", "int"))), ids=lambda v: str(v)
)
def test_one_recording_serves_all_values(name: str, kind: str, backend: str) -> None:
    fn = ROWS[name]
    torch.manual_seed(0)
    x = torch.randn(3, 4)
    compiled = flashpoint.compile(fn, backend=backend)
    before = kept()
    hits = flashpoint.counters()["hits"]
    numbers = FLOATS if kind == "float" else INTS
    for n in numbers:
        rounded = backend == "native" and name in ROUNDED
        assert same_values(compiled(x, n), fn(x, n), rounded=rounded), n
    expected = RECORDINGS.get(name, (1, 1))[kind == "int"]
    assert kept() - before <= expected
    assert flashpoint.counters()["hits"] - hits >= len(numbers) - expected


def test_the_type_of_a_number_is_guarded() -> None:
    def fn(x: torch.Tensor, n: Any) -> torch.Tensor:
        return x.long() * n

    compiled = flashpoint.compile(fn)
    x = torch.arange(4.0)
    for n in (2, 2.0, True, 3, 2.5, False, 1 + 1j):
        want, got = fn(x, n), compiled(x, n)
        assert got.dtype == want.dtype and torch.equal(got, want), n


def test_numbers_too_large_for_an_operator() -> None:
    def product(x: torch.Tensor, n: int) -> torch.Tensor:
        return x * n

    def filled(x: torch.Tensor, n: int) -> torch.Tensor:
        return x.masked_fill(x > 0, n)

    def outcome(fn: Callable[..., torch.Tensor], n: int) -> str:
        try:
            return values_of(fn(torch.ones(2), n))
        except (RuntimeError, OverflowError, TypeError) as error:
            return f"{type(error)}: {error}"

    for fn in (product, filled):
        compiled = flashpoint.compile(fn)
        for n in (3, 2**63, -(2**63), -(2**70), 2**63 - 1, 2**64, 5):
            assert outcome(compiled, n) == outcome(fn, n)


@pytest.mark.parametrize("equal", [(2.0, 2.0), (2.0, 3.0), (1.0, 1.0)])
def test_arguments_of_equal_value_keep_their_places(equal: tuple[float, float]) -> None:
    def fn(x: torch.Tensor, a: float, b: float) -> torch.Tensor:
        return torch.clamp(x, a, b) + torch.addcmul(x, x, x, value=b) * a

    compiled = flashpoint.compile(fn, backend="eager")  # bit for bit
    x = torch.linspace(-5, 5, 7)
    for a, b in (equal, (0.5, 4.0), (-1.0, -0.5), equal):
        assert torch.equal(compiled(x, a, b), fn(x, a, b))


def test_dropout_decides_by_its_probability() -> None:
    def fn(x: torch.Tensor, p: float) -> tuple[torch.Tensor, bool]:
        y = torch.dropout(x, p, True)
        return y, y is x

    compiled = flashpoint.compile(fn)
    x = torch.ones(4)
    for p in (0.5, 0.0, 0.5, 1.0, 0.0):
        torch.manual_seed(1)
        want = fn(x, p)
        torch.manual_seed(1)
        got = compiled(x, p)
        assert torch.equal(got[0], want[0]) and got[1] == want[1], p


def test_shapes_are_no_inputs() -> None:
    def fn(x: torch.Tensor, n: int) -> torch.Tensor:
        return torch.arange(n) + torch.ones(n) + x.repeat(n).sum() + x[:n].sum()

    compiled = flashpoint.compile(fn)
    x = torch.randn(5)
    for n in (2, 3, 4, 2, 5):
        assert torch.equal(compiled(x, n), fn(x, n))


def test_decisions_are_guarded_not_values() -> None:
    def fn(x: torch.Tensor, n: float) -> torch.Tensor:
        if not n:
            return x
        y = x + 1 if n > 2 else x - 1
        return y * n if n != 7 else y

    compiled = flashpoint.compile(fn)
    x = torch.randn(3)
    before = kept()
    for n in (0.5, 1.0, 3.0, 4.0, 0.0, 7.0, 1.5, 9.0, 0.25, 8.0, 7.0, 0.0):
        assert torch.equal(compiled(x, n), fn(x, n)), n
    assert kept() - before == 4


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self.scale = 1.0
        self.options = {"lr": 0.1}
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        return self.linear(x) * self.scale + x * self.options["lr"] / self.steps


class Plain:
    def __init__(self) -> None:
        self.n = 0
        self.total = 0.5

    def step(self, x: torch.Tensor) -> tuple[torch.Tensor, str]:
        self.n = self.n + 1
        self.total = self.total * 1.5 + self.n
        if self.n % 3 == 0:
            return x - self.total, f"{self.n}"
        return x * self.n, "-"


class Reread(Plain):
    def step(self, x: torch.Tensor) -> tuple[torch.Tensor, str]:
        self.n += 1
        first = self.n
        self.n = self.n * 2
        copied = dict(self.__dict__)
        self.n = first
        self.total = copied["n"] + getattr(self, "n") + vars(self)["total"] % 7  # noqa: B009
        return x * copied["n"] + self.n, str(sorted(v for v in vars(self).values()))


def state_of(owner: Any) -> dict[str, Any]:
    return {k: v for k, v in vars(owner).items() if isinstance(v, int | float | dict)} | (
        dict(owner.options) if isinstance(owner, Counter) else {}
    )


def drive(make: Callable[[], Any], method: str, change: Callable[[Any, int], None], calls: int = 12) -> int:
    torch.manual_seed(0)
    eager = make()
    owner = copy.deepcopy(eager)
    run = getattr(eager, method)
    compiled = flashpoint.compile(owner) if isinstance(owner, nn.Module) else flashpoint.compile(owner.step)
    before = kept()
    x = torch.randn(3)
    for i in range(calls):
        change(eager, i)
        change(owner, i)
        assert values_of(compiled(x)) == values_of(run(x)), i
        assert {k: str(v) for k, v in state_of(owner).items() if not k.startswith("_")} == {
            k: str(v) for k, v in state_of(eager).items() if not k.startswith("_")
        }
    return kept() - before


def nothing(owner: Any, call: int) -> None:
    pass


def other_rates(owner: Counter, call: int) -> None:
    owner.scale = 1.0 + call
    owner.options["lr"] = 0.1 / (call + 1)


def other_types(owner: Plain, call: int) -> None:
    if call == 6:
        owner.n = float(owner.n)
    if call == 9:
        owner.total = 3


def test_counters_of_a_module_stop_recompiling_after_their_first_change() -> None:
    assert drive(Counter, "forward", nothing) == 2
    assert drive(Counter, "forward", other_rates) == 2


def test_counters_of_an_object() -> None:
    assert drive(Plain, "step", nothing) == 3
    assert drive(Plain, "step", other_types) <= 8
    drive(Reread, "step", nothing)


COUNT = 0


def test_counters_in_globals_and_cells() -> None:
    def in_global(x: torch.Tensor) -> torch.Tensor:
        global COUNT
        COUNT += 1
        return x + COUNT

    def make() -> Callable[[torch.Tensor], torch.Tensor]:
        count = 0

        def in_cell(x: torch.Tensor) -> torch.Tensor:
            nonlocal count
            count += 1
            return x * count

        return in_cell

    global COUNT
    for fn in (in_global, make()):
        COUNT = 0
        compiled = flashpoint.compile(fn)
        before = kept()
        for i in range(1, 12):
            want = torch.ones(2) + i if fn is in_global else torch.ones(2) * i
            assert torch.equal(compiled(torch.ones(2)), want)
        assert kept() - before == 2
    assert COUNT == 0


def test_gradients_flow_past_number_inputs() -> None:
    def fn(x: torch.Tensor, n: float) -> torch.Tensor:
        return ((x * n) ** 2 + n).sum()

    compiled = flashpoint.compile(fn)
    for n in (2.0, 3.0, 0.5):
        a, b = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
        fn(a, n).backward()
        compiled(b, n).backward()
        assert torch.equal(a.grad, b.grad)


def test_late_numbers_serve_all_values() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        n = x.max().item()
        return x / n + (n > 100)

    compiled = flashpoint.compile(fn)
    before = kept()
    for i in range(1, 12):
        x = torch.arange(4.0) * i
        assert torch.equal(compiled(x), fn(x))
    assert kept() - before == 2


def test_long_chains_of_numbers() -> None:
    """Counting in Python: no deep recursion of ours, and no program of a million steps."""

    def fn(x: torch.Tensor, n: int) -> torch.Tensor:
        i = 0
        while i < n:
            i += 1
        return x * i

    compiled = flashpoint.compile(fn)
    for n in (3, 50_000, 50_000, 5, 60_000):
        assert torch.equal(compiled(torch.ones(1), n), torch.full((1,), float(n)))


@torch.no_grad()
def decorated(x: torch.Tensor, n: float) -> torch.Tensor:
    return x * n + 1


def rest(*args: Any, **options: Any) -> torch.Tensor:
    return handed_on(*args, **options)


def handed_on(x: torch.Tensor, *numbers: float) -> torch.Tensor:
    first, second = numbers
    return x / first + second


def spread(x: torch.Tensor, first: float, second: float) -> torch.Tensor:
    return x / first + second


PASSED_ON: dict[str, Callable[[torch.Tensor, float], Any]] = {
    "a decorator": decorated,
    "the rest of the arguments": lambda x, n: rest(x, n, n + 1),
    "a tuple made of them": lambda x, n: spread(*(x, n, n * 2)),
    "equal numbers": lambda x, n: rest(x, n, n),
}


@pytest.mark.parametrize("name", list(PASSED_ON))
def test_numbers_in_the_rest_of_the_arguments(name: str) -> None:
    fn = PASSED_ON[name]
    compiled = flashpoint.compile(fn, backend="eager")
    x = torch.randn(3, 4)
    compiled(x, 0.5)
    before = flashpoint.counters()
    for n in (1.5, 2.0, -0.25, 7.0, 3.0, 0.1, 9.0, 11.0):
        assert torch.equal(compiled(x, n), fn(x, n))
    after = flashpoint.counters()
    assert after["captures_started"] == before["captures_started"], compiled.last_report()
    assert after["hits"] == before["hits"] + 8


def test_the_rest_of_the_arguments_used_otherwise() -> None:
    def fn(x: torch.Tensor, *numbers: int) -> Any:
        return x * sum(numbers), numbers[0], list(numbers)

    compiled = flashpoint.compile(lambda x, n: fn(x, n, 2), backend="eager")
    x = torch.randn(3)
    for n in (1, 2, 3, 1, 2, 3):
        got, first, all_of_them = compiled(x, n)
        assert torch.equal(got, x * (n + 2)) and first == n and all_of_them == [n, 2]


def test_numbers_of_numpy_as_arguments() -> None:
    compiled = flashpoint.compile(lambda x, n: (x * n, n, float(n) + 1), backend="eager")
    x = torch.randn(3)
    compiled(x, numpy.float64(2.5))
    before = flashpoint.counters()
    for _ in range(3):
        n = numpy.float64(2.5)
        got, again, number = compiled(x, n)
        assert torch.equal(got, x * n) and again is n and number == 3.5
    after = flashpoint.counters()
    assert after["hits"] == before["hits"] + 3 and after["resume_hits"] == before["resume_hits"]
    for n in (numpy.float64(0.5), numpy.float32(0.5), numpy.int64(3), 0.5, *map(numpy.float64, range(12))):
        got, again, number = compiled(x, n)
        assert (
            torch.equal(got, x * n) and got.dtype == (x * n).dtype and again is n and number == float(n) + 1
        )
