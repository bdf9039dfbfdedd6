"""out=: written by kernels like any memory that is there, or by the operator; what is around is compiled."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import flashpoint
from flashpoint import _C


def check(fn: Callable[..., Tensor], *inputs: Tensor, kernels: int) -> None:
    """Three runs: results, what is written, version counters, and which tensors are the same."""
    with torch.no_grad():
        graph, _ = _C._graph_record(fn, *[t.clone() for t in inputs])
    assert graph.break_reason is None
    for _ in range(3):
        ours = [torch.randn_like(t) if t.is_floating_point() else t.clone() for t in inputs]
        eagers = [t.clone() for t in ours]
        want = fn(*eagers)
        flashpoint.reset_counters()
        (got,) = graph.run_generated(*ours)
        assert flashpoint.counters()["kernels_run"] == kernels
        assert (
            torch.allclose(got, want, rtol=1e-5, atol=1e-5, equal_nan=True) and got._version == want._version
        )
        for a, b in zip(ours, eagers, strict=True):
            assert torch.allclose(a, b, rtol=1e-5, atol=1e-5, equal_nan=True) and a._version == b._version
            assert (got.data_ptr() == a.data_ptr()) == (want.data_ptr() == b.data_ptr())


def vectors(*sizes: int) -> list[Tensor]:
    return [torch.randn(n) for n in sizes]


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "maximum", "minimum", "atan2"])
def test_binary(name: str) -> None:
    op = getattr(torch, name)
    check(lambda x, y, o: op(x * 2, y, out=o) + 1, *vectors(37, 37, 37), kernels=1)


@pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid", "neg", "floor", "sqrt", "sign"])
def test_unary(name: str) -> None:
    op = getattr(torch, name)
    check(lambda x, o: op(x * 2, out=o), *vectors(37, 37), kernels=1)


def test_what_it_reads_as_well() -> None:
    """As AMSGrad does: the largest so far, in place."""
    check(lambda m, v: torch.maximum(m, v * v, out=m).sqrt() + 1, *vectors(37, 37), kernels=1)


def test_parts_and_layouts() -> None:
    check(lambda x, o: torch.exp(x * 2, out=o[1:3]), torch.randn(2, 5), torch.randn(4, 5), kernels=1)
    check(lambda x, o: torch.exp(x * 2, out=o.t()), torch.randn(5, 4), torch.randn(4, 5), kernels=1)
    check(lambda x, o: torch.add(x * 2, o[0], out=o[1]), torch.randn(5), torch.randn(2, 5), kernels=2)


def test_between_other_operators() -> None:
    def fn(x: Tensor, o: Tensor) -> Tensor:
        a = o * 2
        torch.exp(x, out=o)
        b = o + a
        torch.mul(o, b, out=o)
        return o + b

    check(fn, *vectors(37, 37), kernels=1)


def test_on_what_the_program_made() -> None:
    def fn(x: Tensor) -> Tensor:
        o = torch.tanh(x)
        torch.exp(o * 2, out=o)
        return o + 1

    check(fn, *vectors(37), kernels=1)


def test_operators_without_a_lowering_are_called() -> None:
    check(
        lambda x, o: torch.mm(x.exp() * 2, x, out=o).exp() + 1,
        torch.randn(5, 5),
        torch.randn(5, 5),
        kernels=2,
    )
    check(lambda x, o: torch.cumsum(x.exp() * 2, 0, out=o).exp() + 1, *vectors(9, 9), kernels=2)


def test_other_dtypes_are_converted_as_eager_mode_does() -> None:
    o = torch.zeros(9, dtype=torch.float64)
    check(lambda x, y, o: torch.add(x.exp() * 2, y, out=o), *vectors(9, 9), o, kernels=1)
    check(lambda x, y, o: torch.gt(x.exp() * 2, y, out=o), *vectors(9, 9), o, kernels=1)


def test_sizes_that_change_are_eagers() -> None:
    """What has another size is given the result's: the whole graph runs the recorded operators."""
    fn = lambda x: (lambda o: torch.exp(x.tanh() * 2, out=o) + o.numel())(x.new_empty(0))  # noqa: E731
    with torch.no_grad():
        graph, _ = _C._graph_record(fn, torch.randn(7))
    for _ in range(3):
        x = torch.randn(7)
        flashpoint.reset_counters()
        assert torch.equal(graph.run_generated(x)[0], fn(x))
        assert flashpoint.counters()["kernels_run"] == 0


def test_memory_that_overlaps_is_eagers() -> None:
    def fn(x: Tensor) -> Tensor:
        return torch.add(x[1:], x[:-1] * 1, out=x[:-1])

    def called(x: Tensor) -> Tensor:
        return torch.add(x[1:], 1, out=x[:-1])

    check(fn, *vectors(9), kernels=0) if raises(fn) is None else None
    assert raises(called) is not None
    f = flashpoint.compile(called, backend="native")
    for _ in range(3):
        with pytest.raises(RuntimeError, match="memory location|overlap"):
            f(torch.randn(9))


def raises(fn: Callable[[Tensor], Tensor]) -> RuntimeError | None:
    try:
        fn(torch.randn(9))
    except RuntimeError as e:
        return e
    return None


def test_steps_of_amsgrad() -> None:
    """The optimizer's own, one tensor at a time."""
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        w = torch.nn.Parameter(torch.randn(50))
        optimizer = torch.optim.Adam([w], amsgrad=True, foreach=False, capturable=False)
        step = flashpoint.compile(optimizer.step, backend="native") if compiled else optimizer.step
        for _ in range(6):
            w.grad = torch.randn(50)
            step()
        results.append((w.detach().clone(), optimizer.state[w]["max_exp_avg_sq"].clone()))
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b)
