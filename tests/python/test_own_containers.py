"""Classes of the program below tuple, list and dict, whose methods call those of the builtin class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import flashpoint

X = torch.arange(3.0) + 1


class Tuple(tuple):
    def __getitem__(self, i: Any) -> Any:
        return super().__getitem__(i) + 100

    def __len__(self) -> int:
        return super().__len__() + 10

    def __contains__(self, o: object) -> bool:
        return super().__contains__(o)

    def __iter__(self) -> Any:
        return super().__iter__()


class List(list):
    def __getitem__(self, i: Any) -> Any:
        return super().__getitem__(i) + 100

    def __len__(self) -> int:
        return super().__len__() + 10

    def __contains__(self, o: object) -> bool:
        return super().__contains__(o)

    def __iter__(self) -> Any:
        return super().__iter__()

    def __setitem__(self, i: Any, v: Any) -> None:
        super().__setitem__(i, v + 1)


class Dict(dict):
    def __getitem__(self, i: Any) -> Any:
        return super().__getitem__(i) + 100

    def __len__(self) -> int:
        return super().__len__() + 10

    def __contains__(self, o: object) -> bool:
        return super().__contains__(o)

    def __iter__(self) -> Any:
        return super().__iter__()

    def __setitem__(self, i: Any, v: Any) -> None:
        super().__setitem__(i, v + 1)

    def get(self, k: Any, d: Any = None) -> Any:
        return super().get(k, d)

    def __bool__(self) -> bool:
        return super().__len__() > 2


class Set(set):
    def __len__(self) -> int:
        return super().__len__() + 10

    def __contains__(self, o: object) -> bool:
        return super().__contains__(o)


def first(p: Any) -> Any:
    return X * p[0]


def length(p: Any) -> Any:
    return X * len(p)


def membership(p: Any) -> Any:
    return X * (3 if 1 in p else 2)


def each(p: Any) -> Any:
    return X * sum([i for i in p])


def each_in_turn(p: Any) -> Any:
    total = 0
    for i in p:
        total += i
    return X * total


def store(p: Any) -> Any:
    p[0] = p[0] + 1
    return X * p[0]


def truth(p: Any) -> Any:
    return X * 2 if p else X


def get(p: Any) -> Any:
    return X * p.get(0, 5)


def of_dict(p: Any) -> Any:
    return X * dict.__getitem__(p, 0) + dict.__len__(p)


def of_list(p: Any) -> Any:
    return X * list.__getitem__(p, 0) + list.__len__(p)


MAKERS: dict[str, Callable[[int], Any]] = {
    "tuple": lambda n: Tuple(range(n, 2 * n)),
    "list": lambda n: List(range(n, 2 * n)),
    "dict": lambda n: Dict({0 if i == n else i: i for i in range(n, 2 * n)}),
    "set": lambda n: Set(range(n, 2 * n)),
}
USES = [first, length, membership, each, each_in_turn, store, truth, get, of_dict, of_list]


@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
@pytest.mark.parametrize("kind", MAKERS)
def test_methods_of_the_builtin_class(kind: str, use: Callable[[Any], Any]) -> None:
    def outcome(call: Callable[[Any], Any], n: int) -> Any:
        made = MAKERS[kind](n)
        try:
            return call(made).tolist(), list(made.items() if isinstance(made, dict) else made)
        except (TypeError, AttributeError) as error:
            return type(error).__name__

    compiled = flashpoint.compile(use, backend="eager", recompile_limit=30)
    flashpoint.reset_counters()
    for n in (1, 1, 1, 2, 3, 4, 1, 5, 5):
        assert outcome(compiled, n) == outcome(use, n)
    if not isinstance(outcome(use, 1), str) and (kind, use) != ("dict", store):  # no recipe for its contents
        assert flashpoint.counters()["hits"] > 0


class Named(set):
    def __iter__(self) -> Any:
        raise AssertionError("what a set holds is looked at as it is")


class Fixed(frozenset):
    pass


def test_sets_of_the_program_that_the_call_makes() -> None:
    def fn(x: torch.Tensor) -> Any:
        named = Named((1, 2))
        named.add(3)
        named.label = x + 1
        return named, Fixed((4, 5)), x * len(named)

    compiled = flashpoint.compile(fn, backend="eager", fullgraph=True)
    seen = []
    for i in range(4):
        if i == 1:
            before = flashpoint.counters()["hits"]
        x = torch.randn(3)
        named, fixed, scaled = compiled(x)
        assert type(named) is Named and set.__eq__(named, {1, 2, 3})
        assert type(fixed) is Fixed and fixed == {4, 5}
        assert torch.equal(named.label, x + 1) and torch.equal(scaled, x * 3)
        seen.append(named)
    assert flashpoint.counters()["hits"] == before + 3
    assert len(set(map(id, seen))) == 4
