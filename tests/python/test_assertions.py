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


AFTER_A_WRITE = """
STATE = torch.zeros(3)
def dependent(x):
    x.add_(1)
    assert (x > 0).all()
    return x * 2

def independent(x):
    y = x * 2
    STATE.add_(1)
    assert y.sum() > -100
    return y + STATE

def twice(x):
    x.mul_(2)
    assert x.sum() > -100, "first"
    x.sub_(1)
    assert (x < 1e3).all(), f"second {tuple(x.shape)}"
    return x.clone()

def view(x):
    y = x.view(3, 1)
    STATE.add_(x)
    assert y[1] > -100
    return y + STATE[0]

def written_view(x):
    x[1:].add_(1)
    assert x[2] > -100
    return x * 2

def older_view(x):
    y = x[1:]
    x.mul_(-1)
    assert (y > -4.5).all()
    return x * 2

def detached(x):
    y = x.detach()
    x.add_(50)
    assert y.sum() < 160
    return x * 2

def view_of_made(x):
    y = x * 2
    z = y.view(3)
    x.add_(1)
    z.mul_(30)
    assert y.sum() < 800
    return x + y

def indexed(x):
    STATE.copy_(x)
    assert x.sum() > -100
    return x[torch.tensor([0, 2])] + STATE[0]

def negated(x):
    STATE.copy_(x)
    if (x < -100).any():
        raise ValueError(str(tuple(STATE.shape)))
    return x + STATE

def stored(x, seen=[0]):
    x.add_(1)
    seen[0] += 1
    assert x.sum() > -100
    return x * seen[0] / seen[0]
"""
LATER = re.findall(r"^def (\w+)", AFTER_A_WRITE, re.MULTILINE)
CAPTURED = {"dependent", "independent", "twice", "indexed", "negated", "stored"}


def later(name: str) -> tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor]:
    scope: dict[str, Any] = {"torch": torch}
    exec(AFTER_A_WRITE, scope)
    return scope[name], scope["STATE"]


@pytest.mark.parametrize("backend", ["eager", "native"])
@pytest.mark.parametrize("name", LATER)
def test_after_a_write(name: str, backend: str) -> None:
    """It is looked at before the write, where a call can still be taken back: nothing is written twice."""
    fn, eager_state = later(name)
    target, state = later(name)
    compiled = flashpoint.compile(target, backend=backend)
    before = flashpoint.counters()["hits"]
    for value in (1.0, 2.0, 3.0, -1e4, 4.0, 5e3, -1e4, 5.0, 6.0, 7.0, float("nan")):
        x, y = torch.full((3,), value), torch.full((3,), value)
        assert outcome(compiled, x) == outcome(fn, y), value
        assert x.tolist() == y.tolist() or value != value
        assert state.tolist() == eager_state.tolist() or value != value
    assert flashpoint.counters()["hits"] - before >= 5


@pytest.mark.parametrize("name", sorted(CAPTURED))
def test_after_a_write_is_no_break(name: str) -> None:
    fn, _ = later(name)
    assert flashpoint.explain(fn)(torch.ones(3)).graph_count == 1


def test_after_a_write_of_much() -> None:
    """What is too large to be computed twice is a break from the second recording on."""
    scope: dict[str, Any] = {"torch": torch}
    exec(AFTER_A_WRITE, scope)
    compiled = flashpoint.compile(scope["dependent"])
    x, y = torch.zeros(50000), torch.zeros(50000)
    before = flashpoint.counters()["hits"]
    for _ in range(6):
        assert torch.equal(compiled(x), scope["dependent"](y)) and torch.equal(x, y)
    assert flashpoint.counters()["hits"] - before >= 4
    x.fill_(-5)
    with pytest.raises(AssertionError):
        compiled(x)
    assert torch.equal(x, torch.full((50000,), -4.0))


def test_unused_literal_indices() -> None:
    """Nothing is left of indices that are known to be good; bad ones raise."""

    def good(x: torch.Tensor) -> int:
        x[[0, -1]]
        x[torch.tensor([1, 0])]
        return 3

    def written(x: torch.Tensor) -> int:
        index = torch.tensor([0, 1])
        index.add_(x.shape[0])
        x[index]
        return 3

    assert flashpoint.explain(good)(torch.ones(2, 3)).graph_count == 0
    compiled = flashpoint.compile(written)
    for _ in range(3):
        with pytest.raises(IndexError):
            compiled(torch.ones(2, 3))
