"""Views of dicts, read-only proxies and arrays of bytes that a call makes: they leave it and cross breaks."""

from __future__ import annotations

import types
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch

import flashpoint


class Named(dict):
    pass


def keys(d: Any, x: torch.Tensor) -> tuple:
    d["new"] = x + 1
    return d.keys(), d.items(), d.values()


def of_a_fresh_dict(d: Any, x: torch.Tensor) -> tuple:
    made = {"a": x + 1, "b": 2}
    return made, made.keys(), made.values(), made.items()


def of_a_fresh_ordered_dict(d: Any, x: torch.Tensor) -> tuple:
    made = OrderedDict(b=2, a=x + 1)
    made.move_to_end("b")
    return made.keys(), made.items()


def proxy(d: Any, x: torch.Tensor) -> tuple:
    return types.MappingProxyType(d), types.MappingProxyType({"b": x + 1, "a": 2})


def bytes_that_change(d: Any, x: torch.Tensor) -> tuple:
    return x + 1, bytearray(b"ab")


def across_a_break(d: Any, x: torch.Tensor) -> tuple:
    view, other = d.keys(), {"q": x + 1}.values()
    read = types.MappingProxyType(d)
    flashpoint.graph_break()
    d["late"] = 1
    return list(view), next(iter(other)) * 2, read["late"]


def unlike(d: Any, x: torch.Tensor) -> tuple:
    return d.keys().isdisjoint(["z", "new"]), d.keys().isdisjoint({"a": 1}), d.items().isdisjoint([]), x + 1


def joined_proxy(d: Any, x: torch.Tensor) -> tuple:
    return types.MappingProxyType({"p": 1}) | {"q": x + 1}, {"r": 2} | types.MappingProxyType({"p": 3})


def flat(o: Any) -> Any:
    if isinstance(o, torch.Tensor):
        return o.tolist()
    if isinstance(o, (dict, types.MappingProxyType)):
        return type(o).__name__, [(k, flat(v)) for k, v in o.items()]
    if isinstance(o, (list, tuple, type({}.keys()), type({}.values()), type({}.items()))):
        return type(o).__name__, [flat(v) for v in o]
    return o


@pytest.mark.parametrize("kind", [dict, OrderedDict, Named])
@pytest.mark.parametrize(
    "fn",
    [
        keys,
        of_a_fresh_dict,
        of_a_fresh_ordered_dict,
        proxy,
        bytes_that_change,
        across_a_break,
        unlike,
        joined_proxy,
    ],
)
def test_made_views(fn: Callable, kind: type) -> None:
    compiled = flashpoint.compile(fn, backend="eager")
    flashpoint.reset_counters()
    for step in range(4):
        x = torch.full((2,), float(step))
        mine, other = kind(a=1), kind(a=1)
        assert flat(compiled(mine, x)) == flat(fn(other, x))
        assert flat(mine) == flat(other)
    assert flashpoint.counters()["hits"] == 3


@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_a_view_shows_what_its_dict_becomes(kind: type) -> None:
    def fn(d: Any, x: torch.Tensor) -> tuple:
        made = kind(k=x)
        return d.keys(), made, made.values(), types.MappingProxyType(made)

    compiled = flashpoint.compile(fn, backend="eager")
    for _ in range(3):
        d = kind(a=1)
        view, made, values, proxy = compiled(d, torch.ones(1))
        d["b"] = made["z"] = 2
        assert list(view) == ["a", "b"] and list(values)[1] == 2 and proxy["z"] == 2


def test_what_views_are_asked_is_guarded() -> None:
    def fn(d: dict, other: list, x: torch.Tensor) -> torch.Tensor:
        return x + d.keys().isdisjoint(other)

    compiled = flashpoint.compile(fn, backend="eager")
    x = torch.zeros(1)
    for d, other in [({"a": 1}, ["b"]), ({"a": 1}, ["b"]), ({"b": 1}, ["b"]), ({"a": 1}, ["a"]), ({}, ["a"])]:
        assert torch.equal(compiled(d, other, x), fn(d, other, x))
