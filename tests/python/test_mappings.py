"""What C code asks of classes of the program for `**`, copies and iterators: recorded like any other code."""

from __future__ import annotations

import collections
import collections.abc
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

os.environ.setdefault("FLASHPOINT_STRICT", "1")

import flashpoint  # noqa: E402


class Abstract(collections.abc.Mapping):
    def __init__(self, data: dict) -> None:
        self.data = data

    def __getitem__(self, key: str) -> Any:
        return self.data[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)


class Bare:
    def __init__(self, data: dict) -> None:
        self.data = data

    def keys(self) -> Any:
        return self.data.keys()

    def __getitem__(self, key: str) -> Any:
        return self.data[key]


def scaled(x: torch.Tensor, a: float = 1, b: Any = 2) -> torch.Tensor:
    return x * a + b


USES: dict[str, Callable[[torch.Tensor, Any], Any]] = {
    "call": lambda x, m: scaled(x, **m),
    "call with more": lambda x, m: scaled(x=x, **m),
    "display": lambda x, m: {"x": x + 1, **m},
}


@pytest.mark.parametrize("kind", [Abstract, Bare, collections.UserDict])
@pytest.mark.parametrize("use", list(USES))
def test_double_star(kind: type, use: str) -> None:
    fn = USES[use]

    def same(got: Any, want: Any) -> bool:
        if isinstance(got, dict):
            return list(got) == list(want) and all(same(got[k], want[k]) for k in got)
        return torch.equal(got, want) if isinstance(got, torch.Tensor) else got == want

    mapping = kind({"a": 3.0, "b": torch.ones(3)})
    compiled = flashpoint.compile(lambda x: fn(x, mapping), backend="eager")
    for i in range(4):
        if i == 2:
            before = flashpoint.counters()
        x = torch.randn(3)
        assert same(compiled(x), fn(x, mapping))
    after = flashpoint.counters()
    assert after["hits"] == before["hits"] + 2, compiled.last_report()
    assert after["resume_hits"] == before["resume_hits"]
    for change in (
        lambda: mapping.data.update(a=5.0),
        lambda: mapping.data.update(b=torch.zeros(3)),
        lambda: mapping.data.pop("b"),
        lambda: mapping.data.update(b=4.0),
        lambda: mapping.data.pop("a"),
    ):
        change()
        x = torch.randn(3)
        assert same(compiled(x), fn(x, mapping))


def test_an_instance_with_keys_of_its_own() -> None:
    mapping = Bare({"a": 3.0, "b": 4.0})
    compiled = flashpoint.compile(lambda x: scaled(x, **mapping), backend="eager")
    x = torch.randn(3)
    for keys in (["a", "b"], ["a", "b"], ["a"], ["b"], []):
        if keys != ["a", "b"]:
            mapping.keys = lambda keys=keys: keys
        for _ in range(2):
            assert torch.equal(compiled(x), scaled(x, **{k: mapping.data[k] for k in keys}))


COPIES: dict[str, Callable[[Any], Any]] = {
    "dict": lambda m: dict(m),
    "OrderedDict": lambda m: collections.OrderedDict(m),
    "defaultdict": lambda m: collections.defaultdict(int, m),
    "update": lambda m: (d := {}, d.update(m))[0],
    "or": lambda m: dict().__ior__(m),
}


@pytest.mark.parametrize("use", list(COPIES))
def test_copies_ask_the_instance_for_keys(use: str) -> None:
    copy = COPIES[use]
    mapping = Bare({"a": 3.0, "b": 4.0})
    mapping.keys = lambda: ["a", "b"]
    compiled = flashpoint.compile(lambda x: (x + 1, copy(mapping)), backend="eager")
    other = {"b": 1}
    for keys in (lambda: ["a", "b"], lambda: ["b", "a"], other.keys):
        mapping.keys = keys
        for _ in range(4):
            got = compiled(torch.ones(2))[1]
            assert list(got.items()) == list(copy(mapping).items())
    other["a"] = 1
    assert list(compiled(torch.ones(2))[1]) == ["b", "a"]
    assert flashpoint.counters()["hits"] > 0


def test_pairs_become_a_mapping_once_there_is_keys() -> None:
    class Pairs:
        def __iter__(self) -> Iterator[Any]:
            return iter([("a", 1)])

        def __getitem__(self, key: str) -> int:
            return 50

    pairs = Pairs()
    compiled = flashpoint.compile(lambda x: (x + 1, dict(pairs)), backend="eager")
    for _ in range(3):
        assert compiled(torch.ones(2))[1] == {"a": 1}
    hits = flashpoint.counters()["hits"]
    assert hits > 0
    pairs.keys = lambda: ["q"]
    assert compiled(torch.ones(2))[1] == {"q": 50}


class Dotted(dict):
    __getattr__ = dict.get


class DottedItems(dict):
    __getattr__ = dict.__getitem__


@pytest.mark.parametrize("kind", [Dotted, DottedItems])
def test_attributes_that_are_items(kind: type) -> None:
    items = kind(a=1.0, b=None)
    fn = lambda x: (x * items.a, items.b is None)  # noqa: E731
    compiled = flashpoint.compile(fn, backend="eager", fullgraph=True)
    for change in (lambda: None, lambda: items.update(a=4.0), lambda: items.update(b=3)):
        change()
        before = flashpoint.counters()["hits"]
        for _ in range(3):
            x = torch.randn(2)
            got = compiled(x)
            assert torch.equal(got[0], x * items.a)
            assert got[1] is (items.b is None)
        assert flashpoint.counters()["hits"] >= before + 2


@pytest.mark.parametrize("made", [lambda n: enumerate([5], n), lambda n: itertools.islice([1, 2, 3], n)])
def test_iterators_ask_an_object_for_its_number(made: Callable[[Any], Any]) -> None:
    number = [1]

    class Number:
        def __index__(self) -> int:
            return number[0]

    n = Number()
    compiled = flashpoint.compile(lambda x: (x + 1, made(n)), backend="eager")
    for value in (1, 2):
        number[0] = value
        before = flashpoint.counters()["hits"]
        for _ in range(3):
            assert list(compiled(torch.ones(2))[1]) == list(made(n))
        assert flashpoint.counters()["hits"] == before + 2
