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
    "accumulate": lambda items: itertools.accumulate(items),
    "accumulate function": lambda items: itertools.accumulate(items, operator.mul),
    "accumulate initial": lambda items: itertools.accumulate(items, initial=3),
    "bytes": lambda items: iter(bytes(items)),
    "chain": lambda items: itertools.chain(items, [9], (7, 8)),
    "chain.from_iterable": lambda items: itertools.chain.from_iterable([items, items]),
    "combinations": lambda items: itertools.combinations(items, 2),
    "combinations_with_replacement": lambda items: itertools.combinations_with_replacement(items, 2),
    "compress": lambda items: itertools.compress(items, [1, 0, 1]),
    "count": lambda items: zip(items, itertools.count(2, 3)),
    "cycle": lambda items: itertools.islice(itertools.cycle(items), 7),
    "deque": lambda items: iter(collections.deque(items)),
    "deque reversed": lambda items: reversed(collections.deque(items)),
    "dropwhile": lambda items: itertools.dropwhile(lambda v: v < 2, items),
    "enumerate": lambda items: enumerate(items, 5),
    "filter": lambda items: filter(lambda v: v != 2, items),
    "filter none": lambda items: filter(None, items),
    "filterfalse": lambda items: itertools.filterfalse(lambda v: v == 2, items),
    "generator": lambda items: itertools.chain((v + 1 for v in items), items),
    "islice": lambda items: itertools.islice(items, 1, None),
    "islice step": lambda items: itertools.islice(items, 0, 4, 2),
    "list": lambda items: iter(items),
    "list reversed": lambda items: reversed(items),
    "map": lambda items: map(lambda v: v + 1, items),
    "nested": lambda items: itertools.islice(
        itertools.chain(enumerate(items), zip(items, itertools.cycle("ab"))), 1, 6
    ),
    "pairwise": lambda items: itertools.pairwise(items),
    "permutations": lambda items: itertools.permutations(items, 2),
    "product": lambda items: itertools.product(items, "ab"),
    "product repeat": lambda items: itertools.product(items, repeat=2),
    "repeat": lambda items: itertools.repeat(items[0], 3),
    "sequence": lambda items: iter(Sequence(items)),
    "str": lambda items: iter("abc"),
    "str of other letters": lambda items: iter("a\u20acb"),
    "takewhile": lambda items: itertools.takewhile(lambda v: v < 3, items),
    "tee": lambda items: itertools.tee(items)[1],
    "zip": lambda items: zip(items, items, strict=True),
    "zip_longest": lambda items: itertools.zip_longest(items, [1]),
    "zip_longest filled": lambda items: itertools.zip_longest(items, [1], fillvalue=7),
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
            seen.append((key, first, list(group)))  # noqa: B031
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


class Thing:
    def __init__(self, k):
        self.k = k


def in_a_loop(x, things):
    seen = []
    for thing in set(things):
        x = x + thing.k
        flashpoint.graph_break()
        seen.append(thing.k)
    return x, seen


def behind_a_break(x, things):
    made = set(things)
    flashpoint.graph_break()
    return x + len(made), [thing.k for thing in made]


def handed_out(x, things):
    return x + 1, {*things}


@pytest.mark.parametrize("program", [in_a_loop, behind_a_break, handed_out])
def test_sets_in_the_order_of_addresses(program):
    compiled = flashpoint.compile(program, backend="eager")
    for _ in range(8):
        things = [Thing(k) for k in range(6)]
        expected, got = program(torch.ones(1), things), compiled(torch.ones(1), things)
        assert torch.equal(expected[0], got[0])
        assert list(expected[1]) == list(got[1])


@pytest.mark.parametrize("names", [{0, 8, 16, 24}, {24, 16, 8, 0, 1}, {"a", "b", "c", "d", "e"}])
def test_sets_whose_elements_collide(names):
    def program(x, given):
        held = set(given)
        flashpoint.graph_break()
        return x + 1, [*held]

    compiled = flashpoint.compile(program, backend="eager")
    for given in ([*names], [*names], [*names][::-1], sorted(names, key=str)):
        assert compiled(torch.ones(1), given)[1] == program(torch.ones(1), given)[1]
