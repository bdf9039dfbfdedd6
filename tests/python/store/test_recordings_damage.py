"""Stored recordings that are not what was written: a miss, never a crash, whatever the bytes are.

The record's digest would refuse all of these; here the reader of entries meets them without it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import flashpoint
from flashpoint import _C
from tests.python.store.support import in_child

OUTCOMES = {"read", "read, and missed", "read, and failed", "other_call", "changed", "malformed"}
SCALE = 2.5


def helper(x: torch.Tensor, k: float) -> torch.Tensor:
    return torch.tanh(x) * k + SCALE


def plain(x: torch.Tensor, n: int, name: str) -> Any:
    return {"a": helper(x, 3), "b": [x + n, name + "!", x.shape]}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.calls = 0
        self.seen: list[Any] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.seen.append(x.shape)
        y = self.linear(x)
        y[0] = 1
        return y


def recorded(make: Callable[[], tuple[Any, tuple[Any, ...]]]) -> tuple[_C.CompiledFunction, bytes, tuple]:
    """The compiled core, its entry's portable form, the arguments of a call."""
    target, args, *backend = make()
    with torch.no_grad():
        compiled = flashpoint.compile(target, backend=backend[0] if backend else "eager")
        compiled(*args)
    core = compiled.forward if isinstance(compiled, nn.Module) else compiled
    core.__wrapped__ = target.__call__ if isinstance(target, nn.Module) else target
    entry = _C._recordings_encode(core)[0]
    assert isinstance(entry, bytes), entry
    return core, entry, args


def make_plain() -> tuple[Any, tuple[Any, ...]]:
    return plain, (torch.arange(3.0), 2, "n")


def broken(x: torch.Tensor, n: int) -> Any:
    y = [x + n]
    print(end="")
    y.append(helper(y[0], 2))
    return y


def make_broken() -> tuple[Any, tuple[Any, ...]]:
    return broken, (torch.arange(3.0), 2)


def make_net() -> tuple[Any, tuple[Any, ...]]:
    return Net(), (torch.ones(2, 3),)


def passes_through(module: torch.fx.GraphModule, examples: list[Any]) -> Any:
    return module


def make_for_backend() -> tuple[Any, ...]:
    return plain, (torch.arange(3.0), 2, "n"), passes_through


def make_net_for_backend() -> tuple[Any, ...]:
    return Net(), (torch.ones(2, 3),), passes_through


PROGRAMS = [make_plain, make_net, make_broken, make_for_backend, make_net_for_backend]


def attempt(entry: bytes, core: _C.CompiledFunction, args: tuple[Any, ...]) -> str:
    """What becomes of a call that these bytes are to answer; an error of an operator is one, too."""
    net = core.__wrapped__.__self__ if hasattr(core.__wrapped__, "__self__") else None
    if isinstance(net, Net):  # as before the call that was recorded
        net.__dict__.update(calls=0, seen=[])
    try:
        with torch.no_grad():
            outcome, _, _ = _C._recordings_try(entry, core, args)
    except Exception:
        return "raised"
    assert outcome in OUTCOMES, outcome
    return outcome


@pytest.mark.parametrize("make", PROGRAMS)
def test_whole(make: Callable[[], Any]) -> None:
    core, entry, args = recorded(make)
    assert attempt(entry, core, args) == "read"


@pytest.mark.parametrize("make", PROGRAMS)
def test_truncated(make: Callable[[], Any]) -> None:
    core, entry, args = recorded(make)
    for size in range(len(entry)):
        assert attempt(entry[:size], core, args) not in ("read", "raised"), size
    assert attempt(entry + b"\0", core, args) == "malformed"


@pytest.mark.parametrize("make", PROGRAMS)
def test_every_byte(make: Callable[[], Any]) -> None:
    def tried() -> None:
        core, entry, args = recorded(make)
        numbers = random.Random(0)
        refused = 0
        for at in range(len(entry)):
            damaged = bytearray(entry)
            damaged[at] ^= numbers.choice((1, 2, 4, 8, 16, 32, 64, 128, 255))
            refused += attempt(bytes(damaged), core, args) not in ("read", "raised")
        assert (
            refused > len(entry) // 3
        )  # digests, names and structure; a constant's value is as good as another

    in_child(tried)  # an entry that says something else may write elsewhere


def test_snapshots_are_whole() -> None:
    """Of frames nothing is taken that is not what was written."""
    core, entry, args = recorded(make_broken)
    assert entry[6] == 1
    for at in range(6, len(entry)):
        damaged = bytearray(entry)
        damaged[at] ^= 1 << at % 8
        assert attempt(bytes(damaged), core, args) == "malformed", at


def test_every_byte_of_a_snapshot() -> None:
    """The reader behind the digest."""

    def tried() -> None:
        core, entry, args = recorded(make_broken)
        numbers = random.Random(0)
        refused = 0
        for at in range(39, len(entry)):
            damaged = bytearray(entry)
            damaged[at] ^= numbers.choice((1, 2, 4, 8, 16, 32, 64, 128, 255))
            damaged[7:39] = hashlib.sha256(damaged[39:]).digest()
            refused += attempt(bytes(damaged), core, args) not in ("read", "raised")
        assert refused > len(entry) // 3

    in_child(tried)


@pytest.mark.slow
@pytest.mark.parametrize("make", PROGRAMS)
@pytest.mark.parametrize("mask", [1, 128, 255, 0])
def test_every_byte_in_each_way(make: Callable[[], Any], mask: int) -> None:
    def tried() -> None:
        core, entry, args = recorded(make)
        for at in range(len(entry)):
            damaged = bytearray(entry)
            damaged[at] = damaged[at] ^ mask if mask else 0
            attempt(bytes(damaged), core, args)

    in_child(tried)  # an entry that says something else may write elsewhere


@pytest.mark.slow
@pytest.mark.parametrize("make", PROGRAMS)
def test_pieces_moved(make: Callable[[], Any]) -> None:
    def tried() -> None:
        core, entry, args = recorded(make)
        numbers = random.Random(1)
        for _ in range(3000):
            damaged = bytearray(entry)
            for _ in range(numbers.randint(1, 4)):
                size = numbers.choice((1, 4, 8, 40))
                source, target = (numbers.randrange(len(entry) - size) for _ in range(2))
                damaged[target : target + size] = entry[source : source + size]
            attempt(bytes(damaged), core, args)

    in_child(tried)  # an entry that says something else may write elsewhere
