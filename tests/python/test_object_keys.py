"""Dicts whose keys are members of enumerations, objects told by address, classes, or tuples of them."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

import pytest
import torch

import flashpoint


class Pair(NamedTuple):
    first: Any
    second: Any


class Act(enum.Enum):
    RELU = 1
    TANH = 2


class Text(str, enum.Enum):  # noqa: UP042
    A = "a"


class Number(enum.IntEnum):
    ONE = 1


class Level(enum.Enum):
    LOW = 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Level)

    def __hash__(self) -> int:
        return 7


class Holder:
    pass


HOLDER, OTHER = Holder(), Holder()
TABLE: dict = {}


def reset_table() -> None:
    TABLE.clear()
    TABLE.update({
        Act.RELU: 2.0,
        Act.TANH: 3.0,
        Text.A: 4.0,
        Number.ONE: 5.0,
        Level.LOW: 6.0,
        HOLDER: 7.0,
        (HOLDER, int): 8.0,
        (Act.RELU, 1): 9.0,
    })  # fmt: skip


def fresh(x):
    table = {Act.RELU: x, Act.TANH: x * 2}
    return table[Act.TANH] + table[Act.RELU]


CASES = {
    "enum": (lambda x: x * TABLE[Act.RELU], Act.RELU, 1),
    "text": (lambda x: x * TABLE[Text.A], Text.A, 1),
    "number": (lambda x: x * TABLE[Number.ONE], Number.ONE, 1),
    "own hash": (lambda x: x * TABLE[Level.LOW], Level.LOW, None),
    "object": (lambda x: x * TABLE[HOLDER], HOLDER, 1),
    "tuple of an object": (lambda x: x * TABLE[HOLDER, int], (HOLDER, int), 1),
    "tuple of a member": (lambda x: x * TABLE[Act.RELU, 1], (Act.RELU, 1), 1),
    "get": (lambda x: x * TABLE.get(Act.TANH, 1.0), Act.TANH, 1),
    "missing": (lambda x: x * TABLE.get(OTHER, 1.0), OTHER, 1),
    "in": (lambda x: x + 1 if Act.TANH in TABLE else x, Act.TANH, 1),
    "made in the call": (fresh, None, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_lookup(name: str) -> None:
    fn, key, captures = CASES[name]
    reset_table()
    compiled, x = flashpoint.compile(fn), torch.rand(3)
    flashpoint.reset_counters()
    for _ in range(3):
        assert torch.equal(compiled(x), fn(x))
    counters = flashpoint.counters()
    assert counters["hits"] == 2
    if captures is not None:
        assert counters["captures_started"] == captures
        assert counters["breaks_resumed"] == 0
    if key is None:
        return
    for value in (11.0, 12.0):
        TABLE[key] = value
        assert torch.equal(compiled(x), fn(x))
    TABLE.pop(key)
    if name in ("get", "missing", "in"):
        assert torch.equal(compiled(x), fn(x))
    else:
        with pytest.raises(KeyError):
            compiled(x)
    reset_table()
    assert torch.equal(compiled(x), fn(x))


def test_another_object_as_the_key() -> None:
    reset_table()
    TABLE[OTHER] = 20.0
    compiled, x = flashpoint.compile(lambda x, key: x * TABLE[key]), torch.ones(2)
    for key in [HOLDER, HOLDER, OTHER, HOLDER, OTHER, Act.RELU, Act.TANH, Act.RELU]:
        assert compiled(x, key).tolist() == [TABLE[key]] * 2
    assert flashpoint.counters()["hits"] > 0


def test_keys_handed_out_are_the_very_objects() -> None:
    table = {(Act.RELU, 1): 1, Act.TANH: 2}

    def fn(x):
        return x + 1, list(table)

    compiled = flashpoint.compile(fn)
    for _ in range(3):
        _, keys = compiled(torch.ones(1))
        assert all(a is b for a, b in zip(keys, table, strict=True))


def test_iteration_over_members() -> None:
    table = {Act.RELU: 2.0, Act.TANH: 3.0}

    def fn(x):
        for key, value in table.items():
            if key is Act.TANH:
                x = x * value
        return x

    compiled, x = flashpoint.compile(fn), torch.ones(2)
    flashpoint.reset_counters()
    for _ in range(3):
        assert compiled(x).tolist() == [3.0, 3.0]
    assert flashpoint.counters()["hits"] == 2
    assert flashpoint.counters()["breaks_resumed"] == 0
    table[Act.TANH] = 4.0
    assert compiled(x).tolist() == [4.0, 4.0]
    del table[Act.TANH]
    assert compiled(x).tolist() == [1.0, 1.0]


def test_tuples_made_anew_as_keys() -> None:
    """They are told by their elements."""

    def fn(x, table):
        for key, value in table.items():
            x = x * len(key) + value
        return x

    compiled = flashpoint.compile(fn)
    compiled(torch.ones(2), {(a, Act.RELU, a + "z"): 0.5 for a in "pq"})
    flashpoint.reset_counters()
    for _ in range(12):
        table = {(a, Act.RELU, a + "z"): 0.5 for a in "pq"}
        assert torch.equal(compiled(torch.ones(2), table), fn(torch.ones(2), table))
    assert flashpoint.counters()["hits"] == 12
    for key in [("p", Act.TANH, "pz"), ("p", Act.RELU, "py"), ("p", Act.RELU), (1, 2, 3)]:
        table = {key: 0.5, ("q", Act.RELU, "qz"): 0.5}
        assert torch.equal(compiled(torch.ones(2), table), fn(torch.ones(2), table))


@pytest.mark.parametrize("named", [False, True], ids=["tuple", "named tuple"])
def test_an_argument_that_is_a_key(named: bool) -> None:
    """What a key is made of is guarded: another tuple is another key."""
    make = Pair if named else lambda a, b: (a, b)
    table = {make(i, "a"): float(i) for i in range(3)}
    members = {make(0, "a"), make(1, "b")}

    def fn(x: torch.Tensor, key: tuple) -> torch.Tensor:
        return x * table[key] + (key in members) + len({key, (1, "a")})

    compiled = flashpoint.compile(fn, backend="eager")
    for i in (0, 0, 1, 1, 0, 2, 2, 1):
        x = torch.randn(3)
        assert torch.equal(compiled(x, make(i, "a")), fn(x, make(i, "a"))), i
    counters = flashpoint.counters()
    assert counters["hits"] == 5 and counters["captures_started"] == 3, compiled.last_report()


def test_iteration_over_objects() -> None:
    layers = [torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)]
    table = {layer: i for i, layer in enumerate(layers)}
    chosen = {layers[0]}

    def fn(x: torch.Tensor) -> torch.Tensor:
        for layer, i in table.items():
            x = layer(x) + i + (layer in chosen)
        for layer in chosen:
            x = x + layer.in_features
        return x

    compiled = flashpoint.compile(fn, backend="eager")
    for step in range(8):
        if step == 3:
            table[layers[0]] = 5
        if step == 5:
            chosen.clear()
            chosen.add(layers[1])
        if step == 7:
            table[torch.nn.Linear(3, 3)] = 2
        x = torch.randn(3)
        assert torch.equal(compiled(x), fn(x)), step
    assert flashpoint.counters()["hits"] >= 4, compiled.last_report()
