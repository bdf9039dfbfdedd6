"""Random programs about types and memory (mixed.py), samples of torch's operators, and what they found."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import flashpoint
from flashpoint import _C
from tests.native import opdb
from tests.native.mixed import check, generate
from tests.opdb.samples import operators


def run_seeds(seeds: range, steps: int = 12) -> None:
    before = flashpoint.counters()
    for seed in seeds:
        program = generate(seed, steps)
        message = check(program, seed)
        assert message is None, f"seed {seed}: {message}\n{program.source}{program.kinds}"
    after = flashpoint.counters()
    assert after["kernels_run"] - before["kernels_run"] > len(seeds)
    assert after["hits"] - before["hits"] > len(seeds)


def test_some_programs() -> None:
    run_seeds(range(24))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(24, 524, 100))
def test_programs(first: int) -> None:
    run_seeds(range(first, first + 100))


@pytest.mark.sweep
@pytest.mark.parametrize("first", range(20_000, 30_000, 500))
def test_many_programs(first: int) -> None:
    run_seeds(range(first, first + 500), steps=18)


def run_operators(chunk: int, step: int, samples: int | None) -> None:
    found, ran = [], 0
    for op in operators()[chunk::step]:
        for dtype in opdb.DTYPES:
            if dtype in op.supported_dtypes("cpu"):
                messages, count = opdb.check_operator(op, dtype, samples)
                found, ran = found + messages, ran + count
    assert not found, "\n".join(found)
    assert ran > 10


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(2))
def test_some_operators(chunk: int) -> None:
    run_operators(chunk * 8, 16, 2)


@pytest.mark.sweep
@pytest.mark.parametrize("chunk", range(16))
def test_all_operators(chunk: int) -> None:
    run_operators(chunk, 16, None)


def recorded(fn, *inputs: Tensor) -> _C.Graph:
    with torch.no_grad():
        graph, _ = _C._graph_record(fn, *inputs)
    assert graph.break_reason is None
    return graph


@pytest.mark.parametrize("slot", [0, 3, slice(0, 1), slice(2, 3)], ids=str)
@pytest.mark.parametrize("write", [Tensor.sub_, Tensor.add_, Tensor.mul_, Tensor.copy_])
def test_an_operator_that_reads_what_it_writes(write, slot) -> None:
    """What it reads behind its own writes is what it reads in eager mode."""

    def fn(x: Tensor) -> Tensor:
        part = x[::2]
        write(part, part[slot])
        return part + 2

    graph = recorded(fn, torch.arange(1, 20))
    for first in (1, 5, -3):
        x, y = torch.arange(first, first + 19), torch.arange(first, first + 19)
        assert torch.equal(graph.run_native(x)[0], fn(y)) and torch.equal(x, y)
        assert x._version == y._version
    assert flashpoint.counters()["kernels_run"] >= 3


def test_parts_apart_are_still_written_by_kernels() -> None:
    def fn(x: Tensor) -> Tensor:
        x[:8].add_(x[8:])
        x[8:].mul_(2)
        return x

    graph = recorded(fn, torch.randn(16))
    x = torch.randn(16)
    y = x.clone()
    flashpoint.reset_counters()
    graph.run_native(x)
    assert torch.equal(x, fn(y)) and flashpoint.counters()["kernels_run"] >= 2


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_cat_of_equal_parts_is_part_of_a_kernel(dtype: torch.dtype) -> None:
    inputs = [torch.randn(s).to(dtype) for s in ((2, 3, 7, 16), (7, 16), (7, 16))]
    graph = recorded(rotary, *inputs)
    for _ in range(3):
        inputs = [torch.randn_like(t) for t in inputs]
        flashpoint.reset_counters()
        (got,) = graph.run_generated(*inputs)
        assert torch.equal(got, rotary(*inputs))
        assert flashpoint.counters()["kernels_run"] == 1


@pytest.mark.parametrize("parts", [2, 3, 4, 5])
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("join", [torch.cat, torch.stack])
def test_joining(join, dim: int, parts: int) -> None:
    """Parts of any number, computed or not, of several dtypes; one is a row's value."""

    def fn(a: Tensor, b: Tensor) -> Tensor:
        given = [a * 2, b, torch.tanh(b), a, a.sum(-1, keepdim=True).expand(a.shape).neg()]
        return join(given[:parts], dim) - 1

    for b in (torch.randn(3, 5, 9), torch.randn(5, 3, 9).transpose(0, 1), torch.arange(135).reshape(3, 5, 9)):
        graph = recorded(fn, torch.randn(3, 5, 9), b)
        a = torch.randn(3, 5, 9)
        for run in (graph.run_native, graph.run_generated):
            (got,) = run(a, b)
            assert got.stride() == fn(a, b).stride()
            assert torch.allclose(got, fn(a, b), rtol=1e-5, atol=1e-5)


def test_joining_what_is_not_equal() -> None:
    """Different sizes, and the empty tensors that cat ignores."""

    def fn(a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([a + 1, torch.cat([b, torch.empty(0), b * 2], 1)], 1) * 3

    a, b = torch.randn(4, 6), torch.randn(4, 3)
    graph = recorded(fn, a, b)
    assert torch.equal(graph.run_native(a, b)[0], fn(a, b))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy(reduction: str, dtype: torch.dtype) -> None:
    def fn(x: Tensor, t: Tensor) -> Tensor:
        return F.cross_entropy(x * 2, t, reduction=reduction, ignore_index=7) + 1

    x, t = torch.randn(30, 500, dtype=dtype), torch.randint(0, 500, (30,))
    graph = recorded(fn, x, t)
    assert "nll_loss" in graph.native_stages()["scheduled"]
    big = torch.randn(30, 500, dtype=dtype) * 1e4
    special = torch.randn(30, 500, dtype=dtype)
    special[1], special[2, 3], special[3, 4], special[4, t[4]] = -torch.inf, torch.nan, torch.inf, -torch.inf
    for scores in (x, big, special, x.t().contiguous().t()):
        for target in (t, torch.where(torch.arange(30) % 3 == 0, 7, t), torch.full((30,), 7)):
            flashpoint.reset_counters()
            (got,) = graph.run_native(scores, target)
            want = fn(scores, target)
            assert torch.allclose(got, want, rtol=1e-5, atol=1e-5, equal_nan=True)
            assert got.dtype == want.dtype and got.shape == want.shape
            if scores.is_contiguous():
                assert flashpoint.counters()["kernels_run"] >= 2


@pytest.mark.parametrize("wrong", [500, -1, -100_000])
def test_cross_entropy_of_no_such_class(wrong: int) -> None:
    x, t = torch.randn(30, 500), torch.randint(0, 500, (30,))
    compiled = flashpoint.compile(lambda x, t: F.cross_entropy(x + 1, t), backend="native")
    with torch.no_grad():
        for _ in range(3):
            assert torch.allclose(compiled(x, t), F.cross_entropy(x + 1, t), rtol=1e-5)
        t[4] = wrong
        with pytest.raises(IndexError, match=f"Target {wrong} is out of bounds"):
            compiled(x, t)
    assert flashpoint.counters()["kernels_run"] >= 2
