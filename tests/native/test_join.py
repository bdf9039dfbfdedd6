"""Tensors side by side, and tensors repeated: computed where they are to lie, by how many kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import flashpoint
from flashpoint import _C


def recorded(fn: Callable[..., Any], *inputs: Tensor) -> Any:
    with torch.no_grad():
        graph, _ = _C._graph_record(fn, *inputs)
    assert graph.break_reason is None
    return graph


def check(fn: Callable[..., Any], *inputs: Tensor, kernels: int | None = None) -> None:
    """Three runs on new numbers, as users get it and with kernels for everything."""
    graph = recorded(fn, *inputs)
    for run in (graph.run_generated, graph.run_native, graph.run_generated):
        inputs = tuple(torch.randn_like(t) if t.is_floating_point() else t.clone() for t in inputs)
        want = fn(*[t.clone() for t in inputs])
        want = want if isinstance(want, tuple) else (want,)
        flashpoint.reset_counters()
        got = run(*inputs)
        count = flashpoint.counters()["kernels_run"]
        assert count == kernels if kernels is not None and run == graph.run_generated else count > 0
        for a, b in zip(got, want, strict=True):
            assert a.dtype == b.dtype and a.stride() == b.stride() and a._version == b._version
            assert torch.allclose(a, b, rtol=1e-5, atol=1e-5)
            assert a.is_inference() == b.is_inference()


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
@pytest.mark.parametrize("count", [2, 3, 8])
def test_parts_of_different_sizes_are_computed_in_their_place(dim: int, count: int) -> None:
    sizes = [[5, 6, 7] for _ in range(count)]
    for i, size in enumerate(sizes):
        size[dim] = 1 + 2 * i
    inputs = [torch.randn(size) for size in sizes]
    check(lambda *xs: torch.cat([F.gelu(x) for x in xs], dim), *inputs, kernels=count)


def test_parts_of_one_kernel() -> None:
    def fn(x: Tensor) -> Tensor:
        y = x.exp()
        return torch.cat([y, y * x, -y], -1)

    check(fn, torch.randn(9, 33), kernels=1)
    check(fn, torch.randn(9, 2), kernels=1)
    check(fn, torch.randn(4, 5, 6).transpose(0, 1), kernels=1)


def test_parts_between_what_is_there() -> None:
    def fn(x: Tensor, y: Tensor) -> Tensor:
        a = x.sin()
        return torch.cat([a, y, a * 2], 1)

    check(fn, torch.randn(9, 3), torch.randn(9, 5), kernels=2)


def test_a_part_that_others_use_as_well() -> None:
    def fn(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        a = x.sin()
        product = a @ a.t()
        joined = torch.cat([a, y.cos()], 0)
        return product, joined, a, joined.sum(0)

    check(fn, torch.randn(9, 5), torch.randn(4, 5))


def test_what_happens_to_the_result() -> None:
    """Writes to it, views of it, writes to what it was made of: its numbers are those of its own time."""

    def fn(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        a = torch.tanh(x)
        joined = torch.cat([a, y, x], 1)
        y.add_(1)
        a.mul_(2)
        part = joined[:, 2:5]
        part.add_(a[:, :3])
        doubled = joined * 2
        joined.neg_()
        return a, joined, part, doubled, torch.cat([joined.relu(), joined.exp()[:, :1]], 1)

    check(fn, torch.randn(6, 3), torch.randn(6, 4))


def test_dtypes_and_rows() -> None:
    def fn(x: Tensor, n: Tensor, b: Tensor) -> Tensor:
        return torch.cat([x.sum(-1, keepdim=True), n * 2, b > 0, x.tanh(), torch.empty(0), x.half()], 1)

    check(fn, torch.randn(6, 40), torch.randint(0, 9, (6, 5)), torch.randn(6, 3))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_upsampled_beside_a_skip(layout: torch.memory_format) -> None:
    """As in a U-Net: what is upsampled goes straight to its place beside the other."""

    def fn(x: Tensor, skip: Tensor) -> Tensor:
        return torch.cat([F.interpolate(F.silu(x), scale_factor=2.0), skip], 1)

    x, skip = torch.randn(2, 8, 6, 10), torch.randn(2, 3, 12, 20)
    check(fn, x.to(memory_format=layout), skip.to(memory_format=layout), kernels=3)


def test_specials_keep_their_bits() -> None:
    def fn(x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([-x, y, torch.relu(y)], 0)

    x = torch.tensor([0.0, -0.0, torch.nan, torch.inf, -torch.inf, 1e-40])
    graph = recorded(fn, x, x[:5])
    for run in (graph.run_native, graph.run_generated, graph.run_generated):
        assert torch.equal(run(x, x[:5])[0].view(torch.int32), fn(x, x[:5]).view(torch.int32))


def test_gradients_are_eagers() -> None:
    w = torch.randn(4, 3, requires_grad=True)
    f = flashpoint.compile(lambda x: torch.cat([x.sin(), w.tanh(), x.cos()[:1]], 0).sum(), backend="native")
    for _ in range(3):
        x = torch.randn(5, 3)
        w.grad = None
        f(x).backward()
        got, w.grad = w.grad, None
        torch.cat([x.sin(), w.tanh(), x.cos()[:1]], 0).sum().backward()
        assert torch.allclose(got, w.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
@pytest.mark.parametrize("shape", [(2, 3, 37), (2, 3, 5, 11), (1, 2, 3, 4, 17)], ids=str)
def test_upsampling(shape: tuple[int, ...], mode: str, dtype: torch.dtype) -> None:
    x = torch.randn(shape).to(dtype)
    for scale in (2.0, 3.0, 4.0, 8.0, 16.0):
        check(lambda x, s=scale: F.interpolate(x, scale_factor=s, mode=mode), x, kernels=1)
    larger = [2 * n for n in shape[2:]]
    check(lambda x: F.interpolate(x, size=larger, mode=mode) * 2, x, kernels=1)


@pytest.mark.parametrize("scale", [0.5, 1.5, 2.3])
def test_upsampling_by_other_factors_is_eagers(scale: float) -> None:
    x = torch.randn(2, 3, 10, 10)
    check(lambda x: F.interpolate(x.sin() * 2, scale_factor=scale) * 2, x, kernels=1)


def test_every_whole_factor_is_eagers() -> None:
    """Also where what eager mode computes places by is not exact."""
    for mode in ("nearest", "nearest-exact"):
        for factor in (5, 6, 7, 10, 11, 13, 41, 47):
            x = torch.randn(1, 1, 19)
            graph = recorded(lambda x, f=factor, m=mode: F.interpolate(x, scale_factor=f, mode=m) + 1, x)
            assert torch.equal(graph.run(x)[0], graph.run_native(x)[0]), (factor, mode)


def test_repeating() -> None:
    x = torch.randn(5, 6)
    check(lambda x: x.repeat(3, 2), x, kernels=1)
    check(lambda x: x.repeat(2, 1, 4) * 2, x, kernels=1)
    check(lambda x: x.repeat_interleave(2), x, kernels=1)
    for times in (1, 2, 3, 4, 8, 16):
        check(lambda x, n=times: x.t().repeat_interleave(n, 1) + 1, x, kernels=1)
        check(lambda x, n=times: x.exp().repeat_interleave(n, 0) + 1, x)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 100])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int8, torch.bool], ids=str
)
def test_short_last_dimensions(size: int, dtype: torch.dtype) -> None:
    """Vectors go on beyond them, whatever lies there in memory."""
    shape = (3, size)
    x, y = torch.randn(shape).to(dtype), torch.randn(size, 3).to(dtype).t()
    wide = torch.randn(3, 2 * size).to(dtype)
    for n in (2, 4, 8):
        few = torch.arange(n).to(dtype)
        check(lambda x, few: torch.where(few == 1, x.unsqueeze(-1), few), x, few, kernels=1)
    check(lambda x, y, w: torch.stack([x, y, w[:, ::2], x], -1), x, y, wide, kernels=1)
    check(lambda x, y: x.unsqueeze(-1).expand(*shape, 2) == y.unsqueeze(-1), x, y)


def test_large_ones_are_divided_among_threads() -> None:
    torch.set_num_threads(2)
    try:
        check(lambda x, y: torch.stack([x, y], -1) * 2, torch.randn(1003, 517), torch.randn(1003, 517))
        check(lambda x: F.interpolate(x, scale_factor=2.0), torch.randn(3, 16, 97, 95), kernels=1)
    finally:
        torch.set_num_threads(1)
