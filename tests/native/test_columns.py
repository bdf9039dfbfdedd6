"""Reductions over other than the last dimensions, and what is read across the order it is written in."""

from __future__ import annotations

import pytest
import torch

import flashpoint
from flashpoint import counters

FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
LOOSE = {torch.float32: 3e-6, torch.float64: 1e-13, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def check(fn, *inputs, calls: int = 3, rtol: float = 1e-5) -> None:
    """fn natively against eager, with a kernel in every replay."""
    compiled = flashpoint.compile(fn, backend="native")
    with torch.no_grad():
        for _ in range(calls):
            got, want = compiled(*inputs), fn(*inputs)
            torch.testing.assert_close(got, want, rtol=rtol, atol=rtol, equal_nan=True)
            assert got.stride() == want.stride()
    assert counters()["kernels_run"] >= calls - 1


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", [16, 17, 31, 64, 67, 130])
def test_sums_over_leading_dimensions(dtype, width):
    x, y = torch.randn(37, width).to(dtype), torch.randn(width).to(dtype)
    rtol = LOOSE[dtype] * 10
    check(lambda x, y: (x * 0.5 + y).sum(0), x, y, rtol=rtol)
    check(lambda x, y: (x * y).mean(0, keepdim=True) + y, x, y, rtol=rtol)
    check(lambda x, y: (x + y).var(0), x, y, rtol=rtol)
    check(lambda x, y: (x + y).amax(0) - (x - y).amin(0), x, y, rtol=rtol)


@pytest.mark.parametrize("dims", [(0,), (1,), (0, 1), (0, 2), (2, 0), (-2,), (1, 2)])
@pytest.mark.parametrize("shape", [(5, 7, 33), (3, 130, 16), (18, 2, 40)])
def test_any_dimensions(dims, shape):
    x = torch.randn(shape)
    check(lambda x: torch.relu(x * 2 + 1).sum(dims), x)
    check(lambda x: x.sub(1).mul(x).mean(dims, keepdim=True) * 2, x)


def test_whole_numbers_and_truth():
    x = torch.randint(-50, 50, (40, 35))
    check(lambda x: (x * 3 + 1).sum(0), x)
    check(lambda x: (x * 3).amax(0) + (x > 5).any(0), x)
    check(lambda x: (x.to(torch.int16) * 2).sum(0), x)


def test_special_values_go_through():
    x = torch.randn(20, 48)
    x[3, 5], x[4, 6], x[5, 7], x[6, 7] = float("nan"), float("inf"), float("inf"), -float("inf")
    x[:, 9] = -0.0
    check(lambda x: (x * 1.0).amax(0), x)
    check(lambda x: (x * 1.0).amin(0), x)
    check(lambda x: (x * 2).sum(0), x)


def test_long_columns_keep_their_accuracy():
    x = torch.rand(40_000, 20) + 1
    compiled = flashpoint.compile(lambda x: (x * x).sum(0), backend="native")
    with torch.no_grad():
        for _ in range(3):
            got = compiled(x)
    want = (x.double() * x.double()).sum(0)
    assert ((got.double() - want) / want).abs().max() < 1e-6
    assert counters()["kernels_run"] == 2


def test_channels_last_and_broadcasts():
    x = torch.randn(2, 24, 9, 11).contiguous(memory_format=torch.channels_last)
    check(lambda x: torch.relu(x + 1).mean((2, 3)), x)
    check(lambda x: (x * 2).sum((0, 3)), x)
    m = torch.rand(4, 33).round()
    check(lambda x, m: (x * m.unsqueeze(-1)).sum(1) / m.sum(1, keepdim=True), torch.randn(4, 33, 20), m)


def test_norms_over_channels():
    def fn(x):
        centered = x - x.mean(1, keepdim=True)
        return centered * torch.rsqrt(x.var(1, keepdim=True, unbiased=False) + 1e-5)

    check(fn, torch.randn(2, 40, 6, 7))


def test_memory_that_was_written_to_in_between():
    def fn(x, y):
        z = x * 2 + y
        x.add_(1)
        return z.sum(0) + x.sum(0)

    compiled = flashpoint.compile(fn, backend="native")
    with torch.no_grad():
        for _ in range(4):
            x, y = torch.randn(30, 20), torch.randn(20)
            a, b = x.clone(), x.clone()
            torch.testing.assert_close(compiled(a, y), fn(b, y))
            assert torch.equal(a, b)
            assert a._version == b._version
    assert counters()["kernels_run"] > 0


def test_threads_do_not_change_results():
    fn = flashpoint.compile(lambda x, y: ((x * y).sum(0), (x.view(40, 25, 700) + 1).sum(1)), backend="native")
    x, y = torch.randn(1000, 700), torch.randn(700)
    with torch.no_grad():
        fn(x, y)
        one = fn(x, y)
        torch.set_num_threads(2)
        try:
            two = fn(x, y)
        finally:
            torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert counters()["kernels_run"] > 1


@pytest.mark.parametrize("rows", [8, 40, 129])
@pytest.mark.parametrize("columns", [64, 128, 192, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int32, torch.bfloat16, torch.bool])
def test_reading_across(rows, columns, dtype):
    x = torch.randn(columns, rows).mul(10).to(dtype)
    y = torch.randn(rows, columns).mul(10).to(dtype)
    compiled = flashpoint.compile(lambda x, y: torch.where(x.t() == y, y, x.t()), backend="native")
    with torch.no_grad():
        for _ in range(3):
            assert torch.equal(compiled(x, y), torch.where(x.t() == y, y, x.t()))
    assert counters()["kernels_run"] == 2


def test_transposing_copies_are_eagers():
    compiled = flashpoint.compile(lambda x: (x * 2).t().contiguous() + 1, backend="native")
    x = torch.randn(128, 96)
    with torch.no_grad():
        for _ in range(3):
            assert torch.equal(compiled(x), (x * 2).t().contiguous() + 1)
    assert counters()["hits"] == 2


@pytest.mark.parametrize("shape", [(1,), (4, 1), (1, 5), (4, 8), (64, 64)])
@pytest.mark.parametrize("reduce", [torch.sum, torch.mean])
@pytest.mark.parametrize("dim", [0, -1, None])
def test_sums_of_negative_zeros(shape, reduce, dim):
    def fn(x):
        return reduce(x * 1.0) if dim is None else reduce(x * 1.0, dim)

    compiled = flashpoint.compile(fn, backend="native")
    x = torch.full(shape, -0.0)
    for _ in range(3):
        assert torch.equal(torch.signbit(compiled(x)), torch.signbit(fn(x)))
    assert counters()["kernels_run"] > 0 or dim == 0
