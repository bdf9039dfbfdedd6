"""Another object in the same place, or the same object under another name: nothing stale is replayed."""

from __future__ import annotations

import functools
import operator
import re
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import flashpoint

USES: dict[str, tuple[list[Any], Callable[[Any, torch.Tensor], Any]]] = {
    "ufunc": ([np.add, np.multiply, np.subtract], lambda v, x: x + v(2, 3)),
    "cached function": (
        [functools.lru_cache(lambda n, by=by: n * by) for by in (1, 5, 7)],
        lambda v, x: x + v(3),
    ),
    "tensor function": ([torch.sin, torch.cos, torch.tan], lambda v, x: v(x)),
    "builtin": ([len, sum, max], lambda v, x: x + v([1, 5])),
    "bound method of a list": ([[1].count, [1, 1].count, [2].count], lambda v, x: x + v(1)),
    "pattern": (
        [re.compile("a"), re.compile("b"), re.compile("ab")],
        lambda v, x: x + len(v.findall("aabb")),
    ),
    "getter": ([operator.itemgetter(i) for i in range(3)], lambda v, x: x + v([4, 5, 6])),
    "views": ([{"a": 1}.keys(), {"b": 1}.keys(), {}.keys()], lambda v, x: x + v.isdisjoint(["a"])),
}


@pytest.fixture
def modules() -> Iterator[dict]:
    yield sys.modules
    sys.modules.pop("flashpoint_test_swapped", None)


@pytest.mark.parametrize("place", ["argument", "attribute", "cell", "behind a break"])
@pytest.mark.parametrize("kind", USES)
def test_another_object_in_its_place(kind: str, place: str) -> None:
    objects, use = USES[kind]
    current = objects[0]
    holder = types.SimpleNamespace(held=current)

    def fn(x: torch.Tensor, given: Any) -> Any:
        if place == "behind a break":
            kept = given
            flashpoint.graph_break()
            return use(kept, x)
        return use(given if place == "argument" else holder.held if place == "attribute" else current, x)

    compiled = flashpoint.compile(fn, backend="eager")
    flashpoint.reset_counters()
    for step in (0, 0, 1, 1, 0, 2, 2, 1):
        holder.held = current = objects[step]
        x = torch.full((2,), 0.5)
        for _ in range(2):
            assert torch.equal(compiled(x, current), fn(x, current))
    assert flashpoint.counters()["hits"] >= 8


def test_a_class_that_is_renamed() -> None:
    class Before:
        pass

    def fn(x: torch.Tensor) -> tuple:
        return x + 1, Before.__name__, type(Before()).__qualname__

    compiled = flashpoint.compile(fn, backend="eager")
    flashpoint.reset_counters()
    for name in ("Before", "After", "After", "Later"):
        Before.__name__ = name
        Before.__qualname__ = "outer." + name
        for _ in range(3):
            assert compiled(torch.ones(1))[1:] == (name, "outer." + name)
    assert flashpoint.counters()["hits"] >= 8


@pytest.mark.parametrize("make", [types.SimpleNamespace, lambda: types.ModuleType("quite_another_name")])
def test_a_module_under_a_name_that_is_not_its_own(make: Callable, modules: dict) -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        import flashpoint_test_swapped  # type: ignore[import-not-found]

        return x + flashpoint_test_swapped.value

    def by_name(x: torch.Tensor) -> torch.Tensor:
        from flashpoint_test_swapped import value

        return x + value

    for program in (fn, by_name):
        compiled = flashpoint.compile(program, backend="eager")
        flashpoint.reset_counters()
        for value in (1, 1, 8, 2):
            modules["flashpoint_test_swapped"] = make()
            modules["flashpoint_test_swapped"].value = value
            for _ in range(3):
                assert compiled(torch.zeros(1)).item() == value
        assert flashpoint.counters()["hits"] >= 7
