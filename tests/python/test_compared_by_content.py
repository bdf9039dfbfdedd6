"""Dates, decimals, subclasses of numbers: C code compares and adds what is in them, which no guard sees."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import torch

import flashpoint


class Whole(int):
    pass


class Exact(Decimal):
    pass


class Holder:
    def __init__(self, value: Any) -> None:
        self.value = value


KINDS: dict[str, Callable[[int], Any]] = {
    "date": lambda n: datetime.date(2020, n, 1),
    "timedelta": lambda n: datetime.timedelta(n),
    "decimal": Decimal,
    "subclass of decimal": Exact,
    "subclass of int": Whole,
    "range": range,
}
T = torch.ones(2)


def smallest(a, b, t):
    return sorted([a, b])[0], t + 1


def extremes(a, b, t):
    return max(a, b), min([a, b]), t + 1


def by_key(a, b, t):
    return max([Holder(a), Holder(b)], key=lambda h: h.value).value, t + 1


def of_generator(a, b, t):
    return min(v for v in (a, b)), t + 1


def sorts(a, b, t):
    made = [a, b]
    made.sort()
    return made[0], t + 1


def in_tuples(a, b, t):
    return (a, 1) < (b, 1), (a, 1) == (b, 1), t + 1


def as_keys(a, b, t):
    return {a: 1}.get(b), len({a, b}), t + 1


def sums(a, b, t):
    return sum([a, b], a), t + 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "fn",
    [smallest, extremes, by_key, of_generator, sorts, in_tuples, as_keys, sums],
    ids=lambda fn: fn.__name__,
)
def test_other_content(fn: Callable[..., Any], kind: str) -> None:
    compiled = flashpoint.compile(fn, backend="eager")
    for a, b in [(1, 2), (1, 2), (3, 2), (2, 2), (5, 1), (1, 5)] * 2:
        arguments = KINDS[kind](a), KINDS[kind](b), T
        try:
            expected = fn(*arguments)
        except TypeError as error:  # dates do not add up, ranges have no order
            with pytest.raises(TypeError, match=str(error)[:20].replace("(", ".")):
                compiled(*arguments)
            continue
        got = compiled(*arguments)
        assert got[:-1] == expected[:-1]
        assert torch.equal(got[-1], expected[-1])
