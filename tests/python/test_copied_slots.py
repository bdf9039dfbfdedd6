"""Slots that only C code reads, as copy.copy does: what they hold is guarded all the same."""

from __future__ import annotations

import copy
import datetime
from collections import OrderedDict
from typing import Any

import pytest
import torch

import flashpoint


class Plain:
    __slots__ = ("x",)


class Two:
    __slots__ = ("x", "y")


class Derived(Plain):
    pass


class OfDict(dict):
    __slots__ = ("x",)


class OfList(list):
    __slots__ = ("x",)


class OfOrderedDict(OrderedDict):
    __slots__ = ("x",)


KINDS = [Plain, Two, Derived, OfDict, OfList, OfOrderedDict]
T = torch.ones(2)


def by_copy(o, t):
    return t * copy.copy(o).x


def by_deepcopy(o, t):
    return t * copy.deepcopy(o).x


def by_state(o, t):
    state = o.__reduce_ex__(4)[2]
    return t * state[1]["x"]


def read_before(o, t):
    return t * o.x + t * copy.copy(o).x - t * o.x


@pytest.mark.parametrize("fn", [by_copy, by_deepcopy, by_state, read_before], ids=lambda fn: fn.__name__)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_changed_slot(kind: type, fn: Any) -> None:
    o = kind()
    compiled = flashpoint.compile(fn, backend="eager")
    for value in (1, 1, 2, 3.5, 2, torch.tensor(4.0), torch.tensor(5.0)):
        o.x = value
        assert torch.equal(compiled(o, T), T * value)
    assert flashpoint.counters()["hits"] >= 1


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_copied_slot_is_the_same_object(kind: type) -> None:
    def fn(o, t):
        return copy.copy(o).x, t + 1

    o = kind()
    compiled = flashpoint.compile(fn, backend="eager")
    for value in (["a"], ["a"], ["b"]):
        o.x = value
        for _ in range(2):
            assert compiled(o, T)[0] is value
    assert flashpoint.counters()["hits"] >= 3


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_slot_that_is_set_later(kind: type) -> None:
    def fn(o, t):
        return t + hasattr(copy.copy(o), "x")

    o = kind()
    compiled = flashpoint.compile(fn, backend="eager")
    for _ in range(2):
        assert torch.equal(compiled(o, T), T)
    o.x = 1
    assert torch.equal(compiled(o, T), T + 1)
    del o.x
    assert torch.equal(compiled(o, T), T)


class Triple(tuple):
    pass


class Birthday(datetime.date):
    pass


@pytest.mark.parametrize(
    "make",
    [
        lambda n: datetime.date(2020, n, 1),
        lambda n: Birthday(2020, n, 1),
        datetime.timedelta,
        lambda n: Triple((n, 1)),
    ],
    ids=["date", "subclass of date", "timedelta", "subclass of tuple"],
)
def test_content_of_c_classes(make: Any) -> None:
    def fn(o, t):
        return copy.copy(o), t + 1

    compiled = flashpoint.compile(fn, backend="eager")
    for n in (1, 1, 2, 3, 2, 1):
        copied, result = compiled(make(n), T)
        assert copied == make(n) and type(copied) is type(make(n))
        assert torch.equal(result, T + 1)
