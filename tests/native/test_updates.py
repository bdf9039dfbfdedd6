"""Writes to memory that exists already, and numbers that change: in generated kernels, with eager's results,
versions and errors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

import flashpoint
from flashpoint import _C


def counters() -> dict[str, int]:
    return flashpoint.counters()


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True)


def agree(fn: Callable, make: Callable[[], list[torch.Tensor]], calls: int = 3) -> None:
    """Compiled and eager, from equal inputs: results, inputs afterwards, and version counters."""
    torch.manual_seed(0)
    mine = make()
    torch.manual_seed(0)
    others = make()
    compiled = flashpoint.compile(fn, backend="native")
    with torch.no_grad():
        for _ in range(calls):
            got, want = compiled(*mine), fn(*others)
            assert close(got, want)
            for a, b in zip(mine, others, strict=True):
                assert close(a, b) and a._version == b._version


def test_an_input_is_written_once_and_counted_for_each_operator():
    def fn(p, g):
        p.mul_(0.9)
        p.add_(g)
        return p.sub_(1) * 2

    agree(fn, lambda: [torch.randn(65), torch.randn(65)])
    assert counters()["kernels_run"] == 2 and counters()["ops_lowered"] == 4
    assert counters()["hits"] == 2


def test_what_was_read_before_the_write_stays_what_it_was():
    def fn(p, g):
        before = p * 2 + g
        p.add_(g)
        return before + p * 3

    agree(fn, lambda: [torch.randn(7, 9), torch.randn(7, 9)])
    assert counters()["kernels_run"] == 2


@pytest.mark.parametrize("target", ["p.t()", "p[1:3]", "p[:, ::2]", "p.view(-1)", "p[2]"])
def test_views_of_what_is_written(target):
    scope: dict = {"torch": torch}
    exec(
        f"def fn(p, g):\n"
        f"    seen = {target}\n"
        f"    first = seen * 2 + 1\n"
        f"    p.mul_(g)\n"
        f"    second = seen * 3 + first\n"
        f"    {target}.add_(1)\n"
        f"    p.neg_()\n"
        f"    return (second.sum() + seen.sum() * p.sum()) / 10\n",
        scope,
    )
    agree(scope["fn"], lambda: [torch.randn(6, 6), torch.randn(6, 6)])
    assert counters()["kernels_run"] > 0 and counters()["hits"] == 2


def test_a_tensor_that_is_read_elsewhere_is_written_afterwards():
    """Elements are read across the tensor before any of them is written."""

    def flipped(p, g):
        return p.copy_((p + g).flip(0) * 2 + p.t())

    def shifted(p, g):
        p[1:].copy_(p[:-1] * 2 + g[1:])
        return p

    def scaled(p, g):
        return p.div_(p.sum() + g.sum())

    def rows(p, g):
        return p.sub_(p.mean(-1, keepdim=True)).mul_(g.amax(-1, keepdim=True)) + 1

    for fn in (flipped, shifted, scaled, rows):
        agree(fn, lambda: [torch.rand(33, 33) + 1, torch.rand(33, 33)])
    assert counters()["kernels_run"] >= 8


def test_calls_see_what_was_written_and_versions_are_counted_before_them():
    def fn(p, g):
        p.mul_(2).sub_(g)
        first = p @ g
        p.add_(first).add_(1).relu_()
        return torch.cumsum(p, 0) + first

    agree(fn, lambda: [torch.randn(5, 5), torch.randn(5, 5)])
    assert counters()["kernels_run"] == 4 and counters()["ops_lowered"] == 5


def test_results_of_calls_are_written_in_place():
    def fn(x, w, b):
        y = x @ w
        y.add_(b).relu_()
        return y

    agree(fn, lambda: [torch.randn(5, 4), torch.randn(4, 70), torch.randn(70)])
    assert counters()["kernels_run"] == 2 and counters()["ops_lowered"] == 2


def test_leaves_that_need_a_gradient():
    """Under no_grad they are written; outside eager raises, and so does the compiled function."""
    p = torch.randn(8, requires_grad=True)

    def update(p, g):
        with torch.no_grad():
            p.mul_(0.5)
            p.add_(g, alpha=-0.1)
        return p * 2

    q = p.detach().clone().requires_grad_()
    g = torch.randn(8)
    f = flashpoint.compile(update, backend="native")
    for _ in range(3):
        got, want = f(p, g), update(q, g)
        assert close(got, want) and close(p, q) and p._version == q._version
        assert got.requires_grad and p.is_leaf and p.requires_grad
    assert counters()["kernels_run"] == 2

    raising = flashpoint.compile(lambda p: p.mul_(2), backend="native")
    for _ in range(3):
        with pytest.raises(RuntimeError, match="leaf Variable"):
            raising(p)
    assert close(p, q) and p._version == q._version


def test_expanded_memory_is_refused_as_ever():
    f = flashpoint.compile(lambda x: x.add_(1).mul_(2), backend="native")
    for _ in range(3):
        with pytest.raises(RuntimeError, match="single memory location"):
            f(torch.zeros(1).expand(4))
    y = torch.zeros(4)
    for _ in range(3):
        f(y)
    assert y.tolist() == [14.0] * 4


def test_inputs_that_overlap():
    def fn(a, b):
        a.mul_(2)
        a.add_(b)
        return a + b

    f = flashpoint.compile(fn, backend="native")
    with torch.no_grad():
        for views in (
            lambda t: (t[:6], t[6:]),
            lambda t: (t[:8], t[4:]),
            lambda t: (t, t),
            lambda t: (t[::2], t[1::2]),
        ):
            x, y = torch.arange(12.0), torch.arange(12.0)
            for _ in range(3):
                outcomes = []
                for function, tensor in ((f, x), (fn, y)):
                    try:
                        outcomes.append(function(*views(tensor)).tolist())
                    except RuntimeError as error:
                        outcomes.append(str(error))
                assert outcomes[0] == outcomes[1]
                assert close(x, y) and x._version == y._version
    assert counters()["hits"] > 0


def test_inference_tensors_have_no_version():
    def fn(p, g):
        return p.mul_(0.9).add_(g)

    f = flashpoint.compile(fn, backend="native")
    with torch.inference_mode():
        p, q, g = torch.ones(8), torch.ones(8), torch.randn(8)
        for _ in range(3):
            assert close(f(p, g), fn(q, g))
        assert close(p, q)
    assert counters()["kernels_run"] == 2


def test_a_write_is_visible_when_a_later_operator_raises():
    def fn(p, i):
        p.mul_(2).add_(1)
        return torch.ones(3)[i]

    f = flashpoint.compile(fn, backend="native")
    p, q = torch.ones(8), torch.ones(8)
    for i in (0, 1, 2, 5, 1):
        index = torch.tensor([i])
        for function, tensor in ((f, p), (fn, q)):
            if i == 5:
                with pytest.raises(IndexError):
                    function(tensor, index)
            else:
                function(tensor, index)
        assert close(p, q) and p._version == q._version


def test_no_write_moves_ahead_of_what_may_end_the_run():
    """The kernel before the check computes what is written behind it, and must not write it yet."""
    text = (
        "graph f(%0: f32[4,4] cpu src=0, %1: f32[] cpu src=1) {\n"
        "  %2 = aten.mul.Tensor(%0, wrap(2.0)) : f32[4,4] cpu\n"
        "  %3 = aten.add.Tensor(%2, wrap(1.0), alpha=1) : f32[4,4] cpu\n"
        "  %4 = aten.mm(%3, %3) : f32[4,4] cpu\n"
        "  flashpoint.expect_true(%1, true, 0)\n"
        "  %5 = aten.mul_.Tensor(%0, wrap(2.0)) : f32[4,4] cpu {mutates=[%0]}\n"
        "  return %4\n}\n"
    )
    graph = _C._graph_parse(text)
    x = torch.ones(4, 4)
    for run in (graph.run_native, graph.run_generated):
        run(x, torch.ones(()))
        written = x.clone()
        version = x._version
        with pytest.raises(RuntimeError):
            run(x, torch.zeros(()))
        assert torch.equal(x, written) and x._version == version
    assert x[0, 0] == 4


# ---- numbers


@torch.no_grad()
def test_numbers_that_change_are_operands():
    def fn(p, g, lr, steps):
        p.add_(g, alpha=-lr)
        p.addcmul_(g, g, value=lr)
        return p.lerp_(g, lr) * steps + lr

    f = flashpoint.compile(fn, backend="native")
    p, q = torch.ones(33), torch.ones(33)
    g = torch.randn(33)
    for i, lr in enumerate([0.1, 0.2, 0.3, -0.0, 0.75, float("inf"), float("nan"), 0.5]):
        if lr == 0.5:
            q.fill_(1), p.fill_(1)
        got, want = f(p, g, lr, i), fn(q, g, lr, i)
        assert close(got, want) and close(p, q) and got.dtype == want.dtype
        assert p._version == q._version
    assert counters()["kernels_run"] >= 4
    assert counters()["hits"] >= 4


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64])
def test_numbers_are_weak(dtype):
    def fn(x, n):
        return x * n + n

    f = flashpoint.compile(fn, backend="native")
    x = torch.arange(-4, 5).to(dtype)
    for n in (2, 3, 4, 5, 0.3, 0.7, 2.5, 7.25, 2**53 + 1, 2**24 + 1):
        got, want = f(x, n), fn(x, n)
        assert got.dtype == want.dtype and torch.allclose(got, want, rtol=0, atol=0, equal_nan=True), n
    assert counters()["kernels_run"] > 0


@torch.no_grad()
def test_a_number_that_does_not_fit_raises_before_anything_is_written():
    def fn(p, g, a):
        p.mul_(2)
        return p.add_(g, alpha=a)

    f = flashpoint.compile(fn, backend="native")
    p, q, g = torch.ones(8), torch.ones(8), torch.ones(8)
    for a in (0.1, 0.2, 0.3, 0.4, 1e300, 0.5, -1e300, float("inf")):
        errors = []
        for function, tensor in ((f, p), (fn, q)):
            try:
                function(tensor, g, a)
                errors.append(None)
            except RuntimeError as error:
                errors.append(str(error))
        assert errors[0] == errors[1]
        assert close(p, q) and p._version == q._version
    assert counters()["kernels_run"] >= 2


def test_number_inputs_of_a_graph():
    text = (
        "graph f(%0: f32[8] cpu src=0, %1: f32[8] cpu src=1, %2: float src=2, %3: int src=3) {\n"
        "  %4 = aten.add.Tensor(%0, %2, alpha=1) : f32[8] cpu\n"
        "  %5 = aten.add_.Tensor(%1, %4, alpha=%3) : f32[8] cpu {mutates=[%1]}\n"
        "  return %5\n}\n"
    )
    graph = _C._graph_parse(text)
    x = torch.randn(8)
    for real, integer in ((0.5, 2), (-0.0, -3), (1e-3, 2**40)):
        numbers = [torch.tensor(real, dtype=torch.float64), torch.tensor(integer)]
        a, b = torch.ones(8), torch.ones(8)
        (got,) = graph.run_native(x, a, *numbers)
        (want,) = graph.run(x, b, *numbers)
        assert got.data_ptr() == a.data_ptr() and close(got, want) and a._version == b._version
    assert counters()["kernels_run"] == 3


# ---- optimizers

OPTIMIZERS = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "nesterov, foreach": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, foreach=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "adamw, foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
}


def training(name: str) -> tuple[torch.nn.Module, Callable]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 16),
        torch.nn.GELU(),
        torch.nn.LayerNorm(16),
        torch.nn.Linear(16, 16),
        torch.nn.ReLU(),
        torch.nn.Linear(16, 4),
    )
    optimizer = OPTIMIZERS[name](model.parameters())

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return model, step


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_step(name):
    model, step = training(name)
    reference, eager_step = training(name)
    compiled = flashpoint.compile(step, backend="native")
    before = counters()
    for i in range(8):
        if i == 4:
            before = counters()
        torch.manual_seed(i)
        x, y = torch.randn(5, 8), torch.randint(0, 4, (5,))
        loss, want = compiled(x, y), eager_step(x, y)
        assert torch.allclose(loss, want, rtol=1e-4, atol=1e-5)
        for p, q in zip(model.parameters(), reference.parameters(), strict=True):
            assert torch.allclose(p, q, rtol=1e-3, atol=1e-4) and p._version == q._version
            assert torch.allclose(p.grad, q.grad, rtol=1e-3, atol=1e-4)
    after = counters()
    assert after["hits"] - before["hits"] == 4
    assert after["ops_lowered"] > 30
    assert after["kernels_run"] - before["kernels_run"] >= 4 * len(list(model.parameters()))
