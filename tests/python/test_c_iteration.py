"""Where C code takes elements out and asks them: membership in iterators, iter() of a function, sorting."""

from __future__ import annotations

import operator
import typing
from collections.abc import Callable
from typing import Any

import pytest
import torch

import flashpoint

NUMBERS = [3, 1, 2]


def in_an_iterator(x: torch.Tensor, n: int) -> tuple:
    it = iter([1, 2, 3])
    return n in it, list(it), x + 1


def in_what_is_left(x: torch.Tensor, n: int) -> tuple:
    it = iter(NUMBERS)
    next(it)
    return n in it, x + 1


def in_a_range(x: torch.Tensor, n: int) -> tuple:
    return "b" in "abc", 2 in iter(range(4)), x + 1


def in_a_generator(x: torch.Tensor, n: int) -> tuple:
    steps = (i * i for i in range(5))
    return n in steps, list(steps), x + 1


def until_a_value(x: torch.Tensor, n: int) -> tuple:
    seen = [0]

    def step() -> int:
        seen[0] += 1
        return seen[0]

    return x + sum(iter(step, 4)), list(iter(step, 6 + n)), seen


def sorted_by_key(x: torch.Tensor, n: int) -> tuple:
    numbers, pairs = [3, n, 2], [(2, x), (1, x + 1)]
    numbers.sort(key=lambda v: -v)
    pairs.sort(key=operator.itemgetter(0))
    return numbers, pairs[0][1]


def sorted_in_place(x: torch.Tensor, n: int) -> tuple:
    numbers = [3, 1, n]
    numbers.sort()
    return x + numbers[0], numbers


def truths(x: torch.Tensor, n: int) -> tuple:
    return x + 1, list(map(operator.truth, range(3))), list(map(operator.not_, (0, 1)))


def kinds(x: torch.Tensor, n: int) -> tuple:
    return (
        x + 1,
        isinstance(x, torch.FloatTensor),
        isinstance(x, torch.LongTensor),
        isinstance([n], typing.Sequence),
        isinstance(n, int | float),
    )


def hashes(x: torch.Tensor, n: int) -> tuple:
    return x + 1, hash(frozenset([1, 2])) == hash(frozenset([2, 1]))


PROGRAMS = [
    in_an_iterator,
    in_what_is_left,
    in_a_range,
    in_a_generator,
    until_a_value,
    sorted_by_key,
    sorted_in_place,
    truths,
    kinds,
    hashes,
]


def flat(o: Any) -> Any:
    if isinstance(o, torch.Tensor):
        return o.tolist()
    return [flat(v) for v in o] if isinstance(o, (list, tuple)) else o


@pytest.mark.parametrize("fn", PROGRAMS)
def test_programs_compile_whole(fn: Callable) -> None:
    compiled = flashpoint.compile(fn, backend="eager", fullgraph=True)
    flashpoint.reset_counters()
    for step in range(4):
        x = torch.full((2,), float(step))
        assert flat(compiled(x, 2)) == flat(fn(x, 2))
    assert flashpoint.counters()["hits"] == 3
    for n in (1, 7, 4, 9, 0):
        assert flat(compiled(torch.ones(2), n)) == flat(fn(torch.ones(2), n))


def test_what_is_iterated_is_guarded() -> None:
    compiled = flashpoint.compile(in_what_is_left, backend="eager")
    x = torch.ones(1)
    try:
        for numbers in ([3, 1, 2], [3, 1, 2], [2, 1, 3], [2, 2, 1], [5]):
            NUMBERS[:] = numbers
            assert flat(compiled(x, 2)) == flat(in_what_is_left(x, 2))
    finally:
        NUMBERS[:] = [3, 1, 2]


def test_what_a_function_for_iter_reads_is_guarded() -> None:
    limit = {"at": 2}

    def fn(x: torch.Tensor) -> torch.Tensor:
        numbers = [0, 1, 2, 3, 4]
        return x + len(list(iter(lambda: numbers.pop() if numbers[-1] >= limit["at"] else -1, -1)))

    compiled = flashpoint.compile(fn, backend="eager")
    for at in (2, 2, 2, 3, 1, 3):
        limit["at"] = at
        assert torch.equal(compiled(torch.ones(1)), fn(torch.ones(1)))
    assert flashpoint.counters()["hits"] > 0


def test_elements_of_another_kind_are_not_taken_for_known() -> None:
    class Three:
        def __eq__(self, other: object) -> bool:
            return other == self.value

        __hash__ = None  # type: ignore[assignment]
        value = 3

    three = Three()

    def fn(x: torch.Tensor) -> torch.Tensor:
        return x + (3 in iter([1, three])) + (torch.ones(()).item() in iter([x.sum(), 2]))

    compiled = flashpoint.compile(fn, backend="eager")
    for value in (3, 3, 4, 3):
        Three.value = value
        for x in (torch.ones(1), torch.zeros(1)):
            assert torch.equal(compiled(x), fn(x))
