"""Numbers that change in lists and named tuples of the caller, and lengths of loops."""

from __future__ import annotations

import collections
import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import flashpoint

X = torch.arange(3.0) + 1
Pair = collections.namedtuple("Pair", "a b")
HELD = [5]


class Wide(Pair):
    """A class of its own, which a named tuple's accessors know nothing of."""

    @property
    def total(self) -> float:
        return self.a + self.b


class Shifted(Pair):
    def __getitem__(self, i: int) -> float:
        return super().__getitem__(i) + 100


def count_up(c: list) -> Any:
    c[0] += 1
    return X * c[0]


def count_twice(c: list) -> Any:
    c[0] += 1
    c[-1] *= 2
    c[0] += c[1]
    return X * c[0] + c[1], c[0]


def count_a_global(c: list) -> Any:
    HELD[0] += c[0]
    return X * HELD[0]


def store_a_constant(c: list) -> Any:
    before = c[0]
    c[0] = 7
    return X * before + c[0]


def move_between(c: list) -> Any:
    c[1] = c[0]
    c[0] = c[0] + 1
    return X * c[1] - c[0]


def count_and_sum(c: list) -> Any:
    c[0] += 1
    return X * sum(c), len(c), list(c)


def count_and_iterate(c: list) -> Any:
    c[0] += 1
    for n in c:
        c[1] += 0
        yield_of = X * n
    return yield_of


def count_and_append(c: list) -> Any:
    c[0] += 1
    c.append(c[0])
    last = c.pop()
    return X * last


def count_and_reverse(c: list) -> Any:
    c[0] += 1
    c.reverse()
    c.reverse()
    return X * c[0]


def count_then_tensor(c: list) -> Any:
    c[0] += 1
    kept = c[0]
    c[0] = X
    y = c[0] * kept
    c[0] = kept
    return y


def count_and_delete(c: list) -> Any:
    c[0] += 1
    c.append(0)
    del c[-1]
    return X * c[0]


def count_an_alias(c: list) -> Any:
    d = c
    d[0] += 1
    return X * c[0], d is c


WRITES = [
    count_up,
    count_twice,
    count_a_global,
    store_a_constant,
    move_between,
    count_and_sum,
    count_and_iterate,
    count_and_append,
    count_and_reverse,
    count_then_tensor,
    count_and_delete,
    count_an_alias,
]
FOLLOWED = {count_up, count_twice, count_a_global, store_a_constant, move_between, count_an_alias}


def shown(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {value.tolist()}"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} [{', '.join(map(shown, value))}]"
    return f"{type(value).__name__} {value!r}"


def outcome(call: Callable[..., Any], held: int, *args: Any) -> str:
    HELD[0] = held
    try:
        result = shown(call(*args))
    except Exception as error:
        result = f"{type(error).__name__}: {error}"
    return f"{result}, {shown(list(args))}, {shown(HELD)}"


@pytest.mark.parametrize("backend", ["eager", "native"])
@pytest.mark.parametrize("fn", WRITES, ids=lambda fn: fn.__name__)
def test_items_of_a_list(fn: Callable[..., Any], backend: str) -> None:
    compiled = flashpoint.compile(fn, backend=backend)
    flashpoint.reset_counters()
    for n in range(12):
        lists = [n, n * 3], [n, n * 3]
        assert outcome(compiled, n, lists[0]) == outcome(fn, n, lists[1])
    counters = flashpoint.counters()
    if fn in FOLLOWED:
        assert counters["captures_started"] <= 3
    assert counters["hits"] >= (9 if fn in FOLLOWED else 4)


@pytest.mark.parametrize("fn", WRITES, ids=lambda fn: fn.__name__)
def test_a_list_that_stays(fn: Callable[..., Any]) -> None:
    """The very same list, counted up by the calls themselves; other kinds of numbers come in between."""
    compiled = flashpoint.compile(fn, backend="eager", recompile_limit=30)
    mine, theirs = [1, 2], [1, 2]
    numbers = [True, 2.5, -1, 2**63, math.nan, "a", None, 0.0, -0.0, 4]
    for step in range(50):
        if step % 5 == 4:
            mine[0] = theirs[0] = numbers[step // 5]
        if step % 17 == 16:
            mine.append(step), theirs.append(step)
        held = step % 3
        assert outcome(compiled, held, mine) == outcome(fn, held, theirs)
        if not isinstance(theirs[0], int | float) or abs(theirs[0]) > 1e30:
            mine[0] = theirs[0] = step
        if not isinstance(theirs[1], int | float) or abs(theirs[1]) > 1e30:
            mine[1] = theirs[1] = 3


def test_two_lists_that_are_one() -> None:
    def fn(a: list, b: list) -> Any:
        a[0] += 1
        return X * b[0] + a[0]

    compiled = flashpoint.compile(fn, backend="eager")
    for n in range(8):
        a, b = [n], [n * 2]
        c, d = copy.copy(a), copy.copy(b)
        if n in (5, 7):
            b, d = a, c
        assert shown([compiled(a, b), a, b]) == shown([fn(c, d), c, d])


def by_name(p: Any) -> Any:
    return X * p.a + p.b


def by_index(p: Any) -> Any:
    return X * p[0] + p[-1]


def by_both(p: Any) -> Any:
    a, b = p
    return X * p.a + p[1] + a - b, p.total if isinstance(p, Wide) else len(p)


@pytest.mark.parametrize("kind", [Pair, Wide, Shifted, tuple])
@pytest.mark.parametrize("fn", [by_name, by_index, by_both])
def test_named_tuples(fn: Callable[..., Any], kind: Any) -> None:
    if kind is tuple and fn is not by_index:
        return
    compiled = flashpoint.compile(fn, backend="eager", recompile_limit=30)
    flashpoint.reset_counters()
    for n in [*range(10), 2.5, True, 2**70, 3]:
        made = (n, n * 2) if kind is tuple else kind(n, n * 2)
        assert outcome(compiled, 0, made) == outcome(fn, 0, made)
    if fn is not by_both and kind is not Shifted:
        assert flashpoint.counters()["captures_started"] <= 7 and flashpoint.counters()["hits"] >= 9


class Config:
    steps = 1


def of_an_argument(n: int, config: Config) -> Any:
    y = X
    for _ in range(n):
        y = y + 1
    return y


def of_an_attribute(n: int, config: Config) -> Any:
    y = X
    for i in range(config.steps):
        y = y * i + 1
    return y


@pytest.mark.parametrize("fn", [of_an_argument, of_an_attribute])
def test_the_length_of_a_loop(fn: Callable[..., Any]) -> None:
    """Once it is another one each time, its steps run eagerly, and nothing more is recorded of them."""
    compiled, config = flashpoint.compile(fn, backend="eager"), Config()
    flashpoint.reset_counters()
    for n in range(30):
        config.steps = n
        assert torch.equal(compiled(n, config), fn(n, config))
    counters = flashpoint.counters()
    assert counters["captures_started"] <= 6 and counters["hits"] >= 24
    flashpoint.reset_counters()
    for n in (2, 2, 2):  # what was recorded is still of use
        config.steps = n
        assert torch.equal(compiled(n, config), fn(n, config))
    assert flashpoint.counters()["captures_started"] == 0 and flashpoint.counters()["hits"] == 3
