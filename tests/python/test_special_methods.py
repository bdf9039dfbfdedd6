"""A special method that is replaced between calls is noticed, whatever code of C called it."""

from __future__ import annotations

import functools
import itertools
import math
import operator
import os
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import torch

import flashpoint

X = torch.arange(6.0).reshape(2, 3) + 1
Y = torch.ones(2, 3) * 2
I = torch.tensor([3, 5])  # noqa: E741
B = torch.tensor([True, False])

TENSOR: dict[str, Callable[[Any], Any]] = {
    "__add__": lambda x: x + Y,
    "__radd__": lambda x: 1 + x,
    "__sub__": lambda x: x - Y,
    "__rsub__": lambda x: 1 - x,
    "__mul__": lambda x: x * Y,
    "__rmul__": lambda x: 2 * x,
    "__truediv__": lambda x: x / Y,
    "__rtruediv__": lambda x: 2 / x,
    "__floordiv__": lambda x: x // Y,
    "__rfloordiv__": lambda x: 5 // x,
    "__mod__": lambda x: x % Y,
    "__rmod__": lambda x: 5 % x,
    "__pow__": lambda x: x**2,
    "__rpow__": lambda x: 2**x,
    "__matmul__": lambda x: x @ Y.T,
    "__and__": lambda x: I & 1,
    "__or__": lambda x: I | 1,
    "__xor__": lambda x: I ^ 1,
    "__lshift__": lambda x: I << 1,
    "__rshift__": lambda x: I >> 1,
    "__neg__": lambda x: -x,
    "__pos__": lambda x: +x,
    "__abs__": abs,
    "__invert__": lambda x: ~B,
    "__eq__": lambda x: x == Y,
    "__ne__": lambda x: x != Y,
    "__lt__": lambda x: x < Y,
    "__le__": lambda x: x <= Y,
    "__gt__": lambda x: x > Y,
    "__ge__": lambda x: x >= Y,
    "__getitem__": lambda x: x[0],
    "__len__": lambda x: x + len(x),
    "__iter__": lambda x: [row + 1 for row in x],
    "__reversed__": lambda x: list(reversed(x))[0],
    "__iadd__": lambda x: operator.iadd(x.clone(), 1),
    "__imul__": lambda x: operator.imul(x.clone(), 2),
    "__setitem__": lambda x: stored(x.clone()),
    "__torch_function__": lambda x: torch.add(x, 1),
}
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "__add__": lambda x: operator.add(x, Y),
    "__rsub__": lambda x: operator.sub(1, x),
    "__neg__": operator.neg,
    "__invert__": lambda x: operator.inv(B),
    "__lt__": lambda x: operator.lt(x, Y),
    "__getitem__": lambda x: operator.getitem(x, 1),
    "__pow__": lambda x: pow(x, 2),
    "__radd__": lambda x: sum([x, x]),
}


def stored(x: Any) -> Any:
    x[0] = 9.0
    return x


class Thing:
    """Everything about it is a number."""


def _method(value: Any) -> Any:
    return lambda self, *args: value


for _name in (
    "add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod pow rpow matmul rmatmul and "
    "rand or ror xor rxor lshift rlshift rshift rrshift lt le gt ge eq ne iadd imul getitem neg pos invert "
    "abs call float int round divmod floor ceil trunc"
).split():
    setattr(Thing, f"__{_name}__", _method(7))
for _name in ("len", "index"):
    setattr(Thing, f"__{_name}__", _method(2))
for _name in ("contains", "bool"):
    setattr(Thing, f"__{_name}__", _method(True))
for _name in ("str", "repr", "format"):
    setattr(Thing, f"__{_name}__", _method("four"))
Thing.__float__ = _method(7.0)  # type: ignore[attr-defined]
Thing.__enter__ = _method(3)  # type: ignore[attr-defined]
Thing.__exit__ = _method(False)  # type: ignore[attr-defined]
Thing.__iter__ = lambda self: iter([1, 2])  # type: ignore[attr-defined]
Thing.__reversed__ = lambda self: iter([1, 2])  # type: ignore[attr-defined]
Thing.__getattr__ = lambda self, name: 5  # type: ignore[attr-defined]
K = Thing()


def entered(x: Any) -> Any:
    with K as k:
        return x * k


THING: dict[str, Callable[[Any], Any]] = {
    "__add__": lambda x: K + x,
    "__radd__": lambda x: x + K,
    "__sub__": lambda x: K - x,
    "__rsub__": lambda x: x - K,
    "__mul__": lambda x: K * x,
    "__rmul__": lambda x: x * K,
    "__truediv__": lambda x: K / x,
    "__rtruediv__": lambda x: x / K,
    "__floordiv__": lambda x: K // x,
    "__rfloordiv__": lambda x: x // K,
    "__mod__": lambda x: K % x,
    "__rmod__": lambda x: x % K,
    "__pow__": lambda x: K**x,
    "__rpow__": lambda x: x**K,
    "__matmul__": lambda x: K @ x,
    "__rmatmul__": lambda x: x @ K,
    "__and__": lambda x: K & x,
    "__rand__": lambda x: x & K,
    "__or__": lambda x: K | 1,
    "__rxor__": lambda x: 1 ^ K,
    "__lt__": lambda x: K < x,
    "__gt__": lambda x: K > x,
    "__le__": lambda x: K <= 3,
    "__eq__": lambda x: K == x,
    "__ne__": lambda x: K != x,
    "__iadd__": lambda x: operator.iadd(K, x),
    "__imul__": lambda x: operator.imul(K, 2),
    "__getitem__": lambda x: K[x],
    "__contains__": lambda x: x * (3 in K),
    "__neg__": lambda x: x * (-K),
    "__pos__": lambda x: x * (+K),
    "__invert__": lambda x: x * (~K),
    "__abs__": lambda x: x * abs(K),
    "__round__": lambda x: x * round(K),
    "__divmod__": lambda x: x * divmod(K, 2),
    "__call__": lambda x: K(x),
    "__len__": lambda x: x * len(K),
    "__index__": lambda x: x[: operator.index(K)],
    "__bool__": lambda x: x * (2 if K else 3),
    "__float__": lambda x: x * float(K),
    "__int__": lambda x: x * int(K),
    "__str__": lambda x: x * len(str(K)),
    "__repr__": lambda x: x * len(repr(K)),
    "__format__": lambda x: x * len(f"{K}"),
    "__iter__": lambda x: x * sum(K),
    "__reversed__": lambda x: x * list(reversed(K))[0],
    "__enter__": entered,
    "__getattr__": lambda x: x * K.anything,
}
MORE: dict[str, Callable[[Any], Any]] = {
    "__add__": lambda x: x * operator.add(K, 1),
    "__radd__": lambda x: x * sum([K, K]),
    "__lt__": lambda x: x * (1 if min([K, K, K]) is K else 2) * len(sorted([K, K])),
    "__mul__": lambda x: operator.mul(K, x),
    "__rsub__": lambda x: operator.sub(x, K),
    "__neg__": lambda x: x * operator.neg(K),
    "__iter__": lambda x: x * len([a for a, _ in zip(K, K)]),  # noqa: B905
    "__len__": lambda x: x * len(list(map(len, [K, K]))),
    "__bool__": lambda x: x * (not K),
    "__eq__": lambda x: x * ([K] == [3]),
    "__contains__": lambda x: x * operator.contains(K, 3),
    "__int__": lambda x: x * sum(map(int, [K])),
    "__str__": lambda x: x * len(f"{str(K)}"),
}


def replacement(name: str) -> Any:
    if name == "__torch_function__":
        return classmethod(lambda *args: 5.0)
    if name in ("__iter__", "__reversed__"):
        return lambda self: iter([4, 3, 1])
    if name in ("__str__", "__repr__", "__format__"):
        return lambda self, *args: "fourteen"
    value = {"__contains__": False, "__bool__": False, "__float__": 4.0}.get(name, 4)
    value = 1 if name in ("__len__", "__index__") else value
    return lambda self, *args: value


def outcome(call: Callable, x: torch.Tensor) -> Any:
    try:
        return call(x)
    except Exception as error:
        return type(error)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        return type(a) is type(b) and torch.Tensor.equal(a, b)
    return type(a) is type(b) and bool(a == b)


C_CODE: list[tuple[str, Callable[[Any], Any]]] = [
    ("__radd__", lambda x: x * sum(k for k in [K, K])),
    ("__add__", lambda x: x * functools.reduce(operator.add, [K, K])),
    ("__neg__", lambda x: x * list(map(operator.neg, [K]))[0]),
    ("__mul__", lambda x: x * math.prod([K, K])),
    ("__rmul__", lambda x: x * math.prod([K, K])),
    ("__add__", lambda x: x * list(itertools.accumulate([K, K, K]))[-1]),
    ("__index__", lambda x: x * [1, 2, 3][K]),
    ("__index__", lambda x: x * len(range(K))),
    ("__len__", lambda x: x * (3 if [k for k in [K] if len(k) > 1] else 4)),
    ("__bool__", lambda x: x * len(list(filter(None, [K])))),
    ("__bool__", lambda x: x * (any([K]) + 1)),
    ("__eq__", lambda x: x * ([3, K].index(K) + 1)),
    ("__eq__", lambda x: x * ((3 in [4, K]) + 1)),
    ("__lt__", lambda x: x * (max([K, 3], key=lambda k: 1) is K)),
    ("__float__", lambda x: x * math.sqrt(K)),
    ("__int__", lambda x: torch.full((2,), float(int(K)))),
    ("__iter__", lambda x: x * max(K)),
    ("__iter__", lambda x: x * len([*K])),
    ("__iter__", lambda x: x * dict.fromkeys(K, 3)[1]),
    ("__str__", lambda x: x * len("-".join(map(str, [K])))),
    ("__format__", lambda x: x * len(f"{K:s}")),
    ("__getattr__", lambda x: x * getattr(K, "some", 3)),
    ("__getattr__", lambda x: x * operator.attrgetter("some")(K)),
    ("__getitem__", lambda x: x * operator.itemgetter(2)(K)),
    ("__call__", lambda x: x * list(map(K, [1]))[0]),
    ("__abs__", lambda x: x * list(map(abs, [K]))[0]),
    ("__floor__", lambda x: x * math.floor(K)),
    ("__ceil__", lambda x: x * math.ceil(K)),
    ("__trunc__", lambda x: x * math.trunc(K)),
]
C_CODE_OF_TENSORS: list[tuple[str, Callable[[Any], Any]]] = [
    ("__add__", lambda x: functools.reduce(operator.add, [x, x])),
    ("__mul__", lambda x: functools.reduce(operator.mul, [x, x])),
    ("__neg__", lambda x: list(map(operator.neg, [x]))[0]),
    ("__add__", lambda x: list(itertools.accumulate([x, x, x]))[-1]),
    ("__abs__", lambda x: list(map(abs, [x]))[0]),
    ("__getitem__", lambda x: operator.itemgetter(1)(x)),
    ("__len__", lambda x: x * list(map(len, [x]))[0]),
    ("__add__", lambda x: sum(t for t in [x, x])),
    ("__radd__", lambda x: sum(t for t in [x, x])),
    ("__add__", lambda x: sum(map(torch.sin, [x, x]))),
    ("__add__", lambda x: sum([1, 2], x)),
    ("__mul__", lambda x: math.prod([x, x])),
    ("__rmul__", lambda x: math.prod((x, x))),
    ("__mul__", lambda x: math.prod(t for t in [x, x])),
    ("__mul__", lambda x: functools.reduce(operator.mul, (t for t in [x, x]))),
]

ROWS = [
    *(pytest.param(torch.Tensor, name, call, id=f"tensor-{name}") for name, call in TENSOR.items()),
    *(pytest.param(torch.Tensor, name, call, id=f"function-{name}") for name, call in FUNCTIONS.items()),
    *(pytest.param(Thing, name, call, id=f"thing-{name}") for name, call in THING.items()),
    *(pytest.param(Thing, name, call, id=f"more-{name}") for name, call in MORE.items()),
    *(pytest.param(Thing, *row, id=f"c{i}-{row[0]}") for i, row in enumerate(C_CODE)),
    *(pytest.param(torch.Tensor, *row, id=f"t{i}-{row[0]}") for i, row in enumerate(C_CODE_OF_TENSORS)),
]


def check(owner: type, name: str, call: Callable) -> None:
    compiled = flashpoint.compile(call, backend="eager")
    for _ in range(3):
        assert same(outcome(compiled, X), outcome(call, X))
    missing = object()
    old = owner.__dict__.get(name, missing)
    setattr(owner, name, replacement(name))
    try:
        expected, got = outcome(call, X), outcome(compiled, X)
    finally:
        delattr(owner, name) if old is missing else setattr(owner, name, old)
    assert same(expected, got), (expected, got)
    assert same(outcome(compiled, X), outcome(call, X))


@pytest.mark.parametrize("owner, name, call", ROWS)
def test_replaced(owner: type, name: str, call: Callable) -> None:
    if owner is not torch.Tensor:
        return check(owner, name, call)
    # In a child: a class that had a method for a while keeps some of the slots.
    child = os.fork()
    if child == 0:
        try:
            check(owner, name, call)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return None


def test_most_are_hits() -> None:
    """Otherwise the test above would show little."""
    hits = 0
    for row in ROWS:
        flashpoint.reset_counters()
        compiled = flashpoint.compile(row.values[2], backend="eager")
        for _ in range(2):
            outcome(compiled, X)
        hits += flashpoint.counters()["hits"] > 0
    assert hits >= 0.8 * len(ROWS), (hits, len(ROWS))
