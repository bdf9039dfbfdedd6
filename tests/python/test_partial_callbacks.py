"""functools.partial of C functions called from C code, and what orders or asks tensors for their truth."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import pytest
import torch
from torch import nn

import flashpoint

LINEAR = nn.Linear(3, 3)


def counts(*names: str) -> tuple[int, ...]:
    told = flashpoint.counters()
    return tuple(told[name] for name in names)


def joins(x, y):
    return tuple(map(partial(torch.cat, dim=-1), ((x, y), (y, x))))


def adds_pairs(x, y):
    return list(map(partial(torch.add, alpha=2), [x, y], [y, x]))


def folds(x, y):
    return reduce(partial(torch.add, alpha=2), [x, y, x])


def nests(x, y):
    return list(map(partial(partial(torch.sum, dim=0), keepdim=True), (x, y)))


def calls_module(x, y):
    return list(map(partial(LINEAR), (x, y)))


def of_numbers(x, y):
    return [x * v for v in map(partial(pow, 2), range(3))]


def spreads(x, y):
    return list(itertools.starmap(partial(torch.add, alpha=3), [(x, y), (y, x)]))


def orders_by_key(x, y):
    return sorted([x, y], key=lambda t: t.shape[0])[0] + max([x, y], key=lambda t: t.dim())


def decided_before_the_tensor(x, y):
    return y if any([True, x.sum() > 0]) else x


def small_numbers(x, y, amount=0, zero=0):
    return x * 2 if amount is zero else y


WHOLE = [
    joins,
    adds_pairs,
    folds,
    nests,
    calls_module,
    of_numbers,
    spreads,
    orders_by_key,
    decided_before_the_tensor,
    small_numbers,
]


@pytest.mark.parametrize("fn", WHOLE, ids=lambda fn: fn.__name__)
def test_is_one_graph(fn: Callable[..., Any]) -> None:
    compiled = flashpoint.compile(fn, backend="eager", fullgraph=True)
    for _ in range(3):
        x, y = torch.randn(2, 3), torch.randn(2, 3)
        for got, expected in zip(compiled(x, y), fn(x, y), strict=True):
            assert torch.equal(got, expected)
    assert counts("captures_started", "captures_kept", "hits") == (1, 1, 2)


def test_arguments_of_a_partial_are_guarded() -> None:
    class Joins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.join = partial(torch.cat, dim=-1)

        def forward(self, x, y):
            return next(map(self.join, [(x, y)]))

    module = Joins()
    compiled = flashpoint.compile(module, backend="eager")
    x, y = torch.randn(2, 2), torch.randn(2, 2)
    for dim in (-1, 0, 1, 0):
        module.join.keywords["dim"] = dim
        assert torch.equal(compiled(x, y), torch.cat((x, y), dim))
    module.join = partial(torch.stack, dim=0)
    assert torch.equal(compiled(x, y), torch.stack((x, y)))
    assert counts("captures_kept", "hits") == (4, 1)


def larger(x, y):
    return max(x.sum(), 0) * y


def either(x, y):
    return y if any([x.sum() > 0, y.sum() > 0]) else x


def smallest(x, y):
    return sorted([x.sum(), y.sum()])[0] + x


@pytest.mark.parametrize("fn", [larger, either, smallest], ids=lambda fn: fn.__name__)
def test_tensor_values_are_a_break_before_the_call(fn: Callable[..., Any]) -> None:
    """The part in front of it is kept in the first call already."""
    compiled = flashpoint.compile(fn, backend="eager")
    for seed in range(6):
        torch.manual_seed(seed)
        x, y = torch.randn(2, 3), torch.randn(2, 3)
        assert torch.equal(compiled(x, y), fn(x, y))
    assert counts("captures_dropped", "eager_calls") == (0, 0)


@pytest.mark.parametrize("grad", [False, True])
def test_leaf_made_by_a_factory(grad: bool) -> None:
    def fn(x):
        leaf = torch.zeros(3, requires_grad=True)
        return (x * leaf).sum()

    compiled = flashpoint.compile(fn, backend="eager")
    with torch.set_grad_enabled(grad):
        for _ in range(6):
            result = compiled(torch.randn(2, 3))
            assert result.requires_grad == grad and result.item() == 0
    assert counts("hits")[0] >= 3 and counts("eager_calls") == (0,)
