"""Subclasses of dict and list from outside the call: written in parts, then read as a whole."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch

import flashpoint


class Plain(dict):
    pass


class Loud(dict):
    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        self.writes = getattr(self, "writes", 0) + 1

    def clear(self) -> None:
        raise AssertionError("the program does not call it")


class Rows(list):
    def append(self, value: Any) -> None:
        super().append(value)
        super().append(0)


class Slotted:
    __slots__ = ("kept", "passing")


def make_default() -> Any:
    return defaultdict(int)


def written_and_iterated(d: Any, x: torch.Tensor) -> Any:
    d["new"] = x + 1
    return [(k, v) for k, v in d.items()], len(d)


def removed(d: Any, x: torch.Tensor) -> Any:
    d["new"] = x * 2
    del d["b"]
    return list(d), "b" in d, sum(v for v in d.values() if isinstance(v, int))


def other_keys(d: Any, x: torch.Tensor) -> Any:
    d[torch.float32] = 1
    d[3] = x
    return d.get("a"), len(d)


def replaced(d: Any, x: torch.Tensor) -> Any:
    d["a"] = d["a"] + 1
    return x + sum(d.values()), d.pop("a")


def flat(o: Any) -> Any:
    if isinstance(o, torch.Tensor):
        return o.tolist()
    if isinstance(o, dict):
        return type(o).__name__, [(k, flat(v)) for k, v in o.items()], getattr(o, "writes", None)
    return [flat(v) for v in o] if isinstance(o, (list, tuple)) else o


@pytest.mark.parametrize("make", [dict, Plain, Loud, make_default, Counter])
@pytest.mark.parametrize("fn", [written_and_iterated, removed, other_keys, replaced])
def test_dicts(fn: Callable, make: Callable) -> None:
    compiled = flashpoint.compile(fn, backend="eager")
    flashpoint.reset_counters()
    for step in range(4):
        mine, other = make(), make()
        for d in (mine, other):
            d["a"], d["b"] = 1, 2
        x = torch.full((2,), float(step))
        assert flat(compiled(mine, x)) == flat(fn(other, x))
        assert flat(mine) == flat(other)
    assert flashpoint.counters()["hits"] == 3
    for contents in (
        {"a": 4, "b": 1},
        {"b": 2, "a": 1},
        {"a": 1, "b": 2, "c": 3},
        {"a": 0, "new": 1, "b": 7},
    ):
        mine, other = make(), make()
        for d in (mine, other):
            for key, value in contents.items():
                d[key] = value
        assert flat(compiled(mine, torch.ones(2))) == flat(fn(other, torch.ones(2)))
        assert flat(mine) == flat(other)


def test_a_list() -> None:
    def fn(rows: Rows, x: torch.Tensor) -> Any:
        rows.append(x + 1)
        return x + len(rows), sum(r for r in rows if isinstance(r, int))

    compiled = flashpoint.compile(fn, backend="eager")
    flashpoint.reset_counters()
    for start in ([1, 2], [1, 2], [1, 2], [5], [], [1, 2]):
        mine, other = Rows(start), Rows(start)
        assert flat(compiled(mine, torch.ones(2))) == flat(fn(other, torch.ones(2)))
        assert flat(mine) == flat(other) and type(mine) is Rows
    assert flashpoint.counters()["hits"] == 3


def test_a_slot_that_is_cleared() -> None:
    def fn(o: Slotted, x: torch.Tensor) -> Any:
        o.passing = x
        o.kept = o.passing + 1
        del o.passing
        return hasattr(o, "passing"), o.kept

    compiled = flashpoint.compile(fn, backend="eager")
    flashpoint.reset_counters()
    for _ in range(4):
        o = Slotted()
        o.passing = 3
        found, kept = compiled(o, torch.ones(2))
        assert not found and not hasattr(o, "passing") and kept is o.kept and kept.tolist() == [2.0, 2.0]
    assert flashpoint.counters()["hits"] == 3
