"""Torch's higher-order operators: eager's results on every call, their bodies part of the recording."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._higher_order_ops.associative_scan import associative_scan
from torch._higher_order_ops.map import map as map_operator
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.nn.attention.flex_attention import flex_attention
from torch.utils._pytree import tree_leaves

os.environ.setdefault("FLASHPOINT_STRICT", "1")

import flashpoint  # noqa: E402


@pytest.fixture(autouse=True)
def fresh() -> None:
    flashpoint.reset()


def inputs(i: int) -> torch.Tensor:
    torch.manual_seed(i)
    return torch.rand(4, 3) * (1 if i % 2 == 0 else -1)  # both outcomes


def agrees(fn: Callable, calls: int = 6) -> dict[str, int]:
    """Eager's results; what the last two calls did to the counters."""
    compiled = flashpoint.compile(fn, backend="eager")
    before = flashpoint.counters()
    for i in range(calls):
        if i == calls - 2:
            before = flashpoint.counters()
        got, want = tree_leaves(compiled(inputs(i))), tree_leaves(fn(inputs(i)))
        assert len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            assert torch.equal(a, b) and a.requires_grad == b.requires_grad
            assert a.stride() == b.stride()
    after = flashpoint.counters()
    return {name: after[name] - before[name] for name in after}


def one_graph(fn: Callable) -> None:
    done = agrees(fn)
    assert done["hits"] == 2 and done["ops_replayed"] > 0
    assert done["captures_started"] == done["resume_hits"] == done["breaks_resumed"] == 0


def test_cond_by_data() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda t: t.sin() * 2, lambda t: t.cos() - 1, (x,)) + 1

    one_graph(fn)  # one for each side


@pytest.mark.parametrize("backend", ["eager", "native"])
def test_a_choice_by_data_needs_no_break(backend: str) -> None:
    def fn(x: torch.Tensor, limit: torch.Tensor) -> Any:
        y = torch.cond(x.sum() > 0, lambda t: t.sin() * 2, lambda t: t.cos() - 1, (x,)) + 1
        return while_loop(lambda i, t: i < limit, lambda i, t: (i + 1, t * 1.5), (torch.tensor(0), y))

    compiled = flashpoint.compile(fn, backend=backend, fullgraph=True)
    before = flashpoint.counters()
    for i in range(40):
        got, want = (f(inputs(i), torch.tensor(i % 3)) for f in (compiled, fn))
        assert torch.equal(got[0], want[0])
        torch.testing.assert_close(got[1], want[1])
    after = flashpoint.counters()
    assert after["captures_kept"] - before["captures_kept"] == 6  # the sides times the numbers of turns
    assert after["hits"] - before["hits"] == 34


def test_a_choice_behind_a_write() -> None:
    """It is looked at before the write, on a copy."""

    def fn(x: torch.Tensor) -> torch.Tensor:
        x.add_(1)
        return torch.cond(x.sum() > 0, lambda t: t.sin(), lambda t: t.cos(), (x,))

    compiled = flashpoint.compile(fn, backend="eager", fullgraph=True)
    before = flashpoint.counters()["hits"]
    for i in range(8):
        a, b = inputs(i) - 1, inputs(i) - 1
        assert torch.equal(compiled(a), fn(b)) and torch.equal(a, b)
    assert flashpoint.counters()["hits"] - before >= 6


def test_cond_by_shape() -> None:
    one_graph(lambda x: torch.cond(x.shape[0] > 2, lambda t: t.sin(), lambda t: t.cos(), (x,)))


def test_cond_with_a_captured_parameter() -> None:
    weight = torch.nn.Parameter(torch.tensor(2.0))

    def fn(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda t: t * weight, lambda t: t + weight, (x,))

    agrees(fn)
    compiled = flashpoint.compile(fn, backend="eager")
    for i in range(6):
        (got,) = torch.autograd.grad(compiled(inputs(i)).sum(), weight)
        (want,) = torch.autograd.grad(fn(inputs(i)).sum(), weight)
        assert torch.equal(got, want)


def test_nested_cond() -> None:
    def inner(t: torch.Tensor) -> torch.Tensor:
        return torch.cond(t.sum() > 6, lambda u: u * 2, lambda u: u * 3, (t,))

    agrees(lambda x: torch.cond(x.sum() > 0, inner, lambda t: t - 1, (x,)), calls=8)


def test_while_loop() -> None:
    def fn(x: torch.Tensor) -> object:
        return while_loop(lambda i, t: i < 3, lambda i, t: (i + 1, t * 1.5), (torch.tensor(0), x))

    done = agrees(fn)
    assert done["hits"] == 2 and done["captures_started"] == 0


def test_while_loop_by_data() -> None:
    def fn(x: torch.Tensor) -> object:
        return while_loop(lambda t: t.sum() < 20, lambda t: (t.abs() * 2,), (x,))

    agrees(fn, calls=8)


def test_map() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return map_operator(lambda row: row.sin() * 2, x)

    one_graph(fn)


def test_scan() -> None:
    one_graph(lambda x: scan(lambda carry, row: (carry + row, carry * row), torch.zeros(3), x))


def test_associative_scan() -> None:
    one_graph(lambda x: associative_scan(lambda a, b: a + b, x, dim=0, combine_mode="generic"))


def test_flex_attention() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        q = x.reshape(1, 1, 4, 3)
        return flex_attention(q, q + 1, q * 2, score_mod=lambda score, b, h, i, j: score * 0.5 + (i - j))

    done = agrees(fn, calls=8)
    assert done["hits"] > 0 and done["ops_replayed"] > 0
