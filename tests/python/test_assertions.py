"""Assertions on tensors stay in the graph: a run in which one fails is thrown away, and eager mode raises."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

import flashpoint

# As text: pytest rewrites the assertions of its own modules.
PROGRAMS = """
def plain(x):
    assert (x > -100).all(), "small"
    return x + 1

def negated(x):
    assert not torch.isnan(x).any()
    return x + 1

def both(x):
    assert x.sum() > -1e3 and x.sum() == x.sum()
    return x + 1

def raising(x):
    if (x < -100).any():
        raise ValueError(f"small values in {tuple(x.shape)}")
    return x + 1

def called(x):
    torch._assert((x > -100).all(), "small")
    return x + 1

def caught(x):
    try:
        if (x < -100).any():
            raise ValueError
        y = x + 1
    except ValueError:
        y = x - 1
    return y

def random(x):
    y = x + torch.rand(3)
    assert (y > -100).all()
    return y * torch.rand(3)

def written(x):
    x.add_(1)
    assert (x > 0).all()
    return x * 2
"""
NAMES = re.findall(r"^def (\w+)", PROGRAMS, re.MULTILINE)


def program(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    scope: dict[str, Any] = {"torch": torch}
    exec(PROGRAMS, scope)
    return scope[name]


def outcome(fn: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> Any:
    torch.manual_seed(0)
    try:
        result = fn(x).tolist()
    except (AssertionError, ValueError) as error:
        result = repr(error)
    return str(result), torch.rand(1).item()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "written"])
def test_an_assertion_is_no_break(name: str) -> None:
    fn = program(name)
    assert flashpoint.explain(fn)(torch.ones(3)).graph_count == 1
    compiled = flashpoint.compile(fn)
    compiled(torch.ones(3))
    before = flashpoint.counters()["hits"]
    for value in (1.0, 2.0, -1e4, 3.0, float("nan"), 4.0, -1e4, 5.0, 6.0):
        x = torch.full((3,), value)
        assert outcome(compiled, x) == outcome(fn, x), value
    assert flashpoint.counters()["hits"] - before >= 5


def test_after_a_write_an_assertion_breaks() -> None:
    fn = program("written")
    assert flashpoint.explain(fn)(torch.ones(3)).graph_count == 2
    compiled = flashpoint.compile(fn)
    for value in (1.0, 2.0, -5.0, 3.0):
        eager, replayed = torch.full((3,), value), torch.full((3,), value)
        assert outcome(compiled, replayed) == outcome(fn, eager)
        assert torch.equal(eager, replayed)
