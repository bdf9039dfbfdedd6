"""Iterators of builtins and itertools that a call makes: they leave it, and loops over them break and resume.

Eager is the oracle; the counters say that compiled code ran.
"""

import collections
import itertools
import operator

import pytest
import torch

import flashpoint


class Sequence:
    """Iterated by index."""

    def __init__(self, items):
        self.items = items

    def __getitem__(self, i):
        return self.items[i]


MAKERS = {
    "accumulate": lambda l: itertools.accumulate(l),
    "accumulate function": lambda l: itertools.accumulate(l, operator.mul),
    "accumulate initial": lambda l: itertools.accumulate(l, initial=3),
    "bytes": lambda l: iter(bytes(l)),
    "chain": lambda l: itertools.chain(l, [9], (7, 8)),
    "chain.from_iterable": lambda l: itertools.chain.from_iterable([l, l]),
    "combinations": lambda l: itertools.combinations(l, 2),
    "combinations_with_replacement": lambda l: itertools.combinations_with_replacement(l, 2),
    "compress": lambda l: itertools.compress(l, [1, 0, 1]),
    "count": lambda l: zip(l, itertools.count(2, 3)),
    "cycle": lambda l: itertools.islice(itertools.cycle(l), 7),
    "deque": lambda l: iter(collections.deque(l)),
    "deque reversed": lambda l: reversed(collections.deque(l)),
    "dropwhile": lambda l: itertools.dropwhile(lambda v: v < 2, l),
    "enumerate": lambda l: enumerate(l, 5),
    "filter": lambda l: filter(lambda v: v != 2, l),
    "filter none": lambda l: filter(None, l),
    "filterfalse": lambda l: itertools.filterfalse(lambda v: v == 2, l),
    "generator": lambda l: itertools.chain((v + 1 for v in l), l),
    "islice": lambda l: itertools.islice(l, 1, None),
    "islice step": lambda l: itertools.islice(l, 0, 4, 2),
    "list": lambda l: iter(l),
    "list reversed": lambda l: reversed(l),
    "map": lambda l: map(lambda v: v + 1, l),
    "nested": lambda l: itertools.islice(itertools.chain(enumerate(l), zip(l, itertools.cycle("ab"))), 1, 6),
    "pairwise": lambda l: itertools.pairwise(l),
    "permutations": lambda l: itertools.permutations(l, 2),
    "product": lambda l: itertools.product(l, "ab"),
    "product repeat": lambda l: itertools.product(l, repeat=2),
    "repeat": lambda l: itertools.repeat(l[0], 3),
    "sequence": lambda l: iter(Sequence(l)),
    "str": lambda l: iter("abc"),
    "str of other letters": lambda l: iter("a\u20acb"),
    "takewhile": lambda l: itertools.takewhile(lambda v: v < 3, l),
    "tee": lambda l: itertools.tee(l)[1],
    "zip": lambda l: zip(l, l, strict=True),
    "zip_longest": lambda l: itertools.zip_longest(l, [1]),
    "zip_longest filled": lambda l: itertools.zip_longest(l, [1], fillvalue=7),
}
LISTS = [[1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3, 4], [1, 2, 3]]


def equal_calls(program, hits=3):
    """Runs it on each list beside eager; the counters' changes."""
    compiled = flashpoint.compile(program, backend="eager")
    before = flashpoint.counters()
    for numbers in LISTS:
        expected, got = program(torch.ones(2), list(numbers)), compiled(torch.ones(2), list(numbers))
        assert torch.equal(expected[0], got[0])
        assert type(expected[1]) is type(got[1])
        assert list(expected[1]) == list(got[1])
    after = flashpoint.counters()
    change = {name: after[name] - before[name] for name in after}
    assert change["captures_dropped"] == change["eager_calls"] == change["internal_errors"] == 0
    assert change["hits"] >= hits
    return change


@pytest.mark.parametrize("taken", [0, 1, 2])
@pytest.mark.parametrize("maker", MAKERS)
def test_leaves_the_call(maker, taken):
    make = MAKERS[maker]

    def program(x, numbers):
        iterator = make(numbers)
        for _ in range(taken):
            next(iterator, None)
        return x + 1, iterator

    equal_calls(program)


@pytest.mark.parametrize("maker", MAKERS)
def test_loop_with_a_break(maker):
    make = MAKERS[maker]

    def program(x, numbers):
        seen = []
        for value in make(numbers):
            x = x + 1
            flashpoint.graph_break()
            seen.append(value)
        return x * 2, seen

    change = equal_calls(program)
    assert change["breaks_resumed"] > 0


def test_two_names_of_one_iterator():
    def program(x, numbers):
        one = itertools.chain(numbers, numbers)
        other = one
        next(one)
        flashpoint.graph_break()
        return x + next(other), [*one]

    equal_calls(program)


def test_two_views_of_one_source():
    def program(x, numbers):
        first, second = itertools.tee(iter(numbers))
        next(first)
        flashpoint.graph_break()
        return x + next(first), [*first, *second]

    equal_calls(program)


def test_groups():
    def program(x, numbers):
        seen = []
        for key, group in itertools.groupby([1, 1, *numbers], lambda v: v > 1):
            first = next(group)
            flashpoint.graph_break()
            seen.append((key, first, list(group)))
            x = x + 1
        return x, seen

    equal_calls(program)


def test_source_grows_behind_the_break():
    def program(x, numbers):
        seen = []
        for value in itertools.chain(numbers, [0]):
            flashpoint.graph_break()
            if len(numbers) < 6:
                numbers.append(value + 10)
            seen.append(value)
            x = x + 1
        return x, seen

    equal_calls(program)


def test_a_total_that_is_none():
    def program(x, numbers):
        seen = []
        for value in itertools.accumulate(numbers, lambda a, b: None):
            flashpoint.graph_break()
            seen.append(value)
        return x + 1, seen

    compiled = flashpoint.compile(program, backend="eager")
    for numbers in LISTS:
        assert compiled(torch.ones(2), numbers)[1] == program(torch.ones(2), numbers)[1]


@pytest.mark.parametrize("names", [{"a", "b", "c"}, frozenset("abc"), {1, 2, 3}])
def test_loop_over_a_set_of_the_call(names):
    def program(x, numbers):
        seen = []
        for name in {*names, *numbers}:
            x = x + 1
            flashpoint.graph_break()
            seen.append(name)
        return x, seen

    change = equal_calls(program)
    assert change["breaks_resumed"] > 0


def test_a_set_that_changes_in_the_loop():
    def program(x, grow):
        names = {1, 2, 3}
        for name in names:
            x = x + name
            flashpoint.graph_break()
            if grow:
                names.add(name + 10)
        return x

    compiled = flashpoint.compile(program, backend="eager")
    for grow in (False, True, False, True, True):
        if grow:
            with pytest.raises(RuntimeError, match="changed size"):
                compiled(torch.ones(2), grow)
        else:
            assert torch.equal(compiled(torch.ones(2), grow), program(torch.ones(2), grow))
