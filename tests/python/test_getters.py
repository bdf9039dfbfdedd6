"""Small things of the standard library: getters, text of functions, time spans, the environment, versions."""

from __future__ import annotations

import datetime
import operator
import os
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch

import flashpoint

X = torch.arange(3.0) + 1
SPAN = datetime.timedelta(days=1, seconds=5)
RATE = 3


class Holder:
    def __init__(self, rate: float) -> None:
        self.inner = types.SimpleNamespace(rate=rate)
        self.other = 4

    def scaled(self, x: torch.Tensor, by: int) -> torch.Tensor:
        return x * by * self.other


HOLDER = Holder(2.0)


def helper() -> None: ...


def agree_on(found: Any, expected: Any) -> None:
    if isinstance(expected, tuple):
        assert found[1:] == expected[1:]
        found, expected = found[0], expected[0]
    assert torch.equal(found, expected)


def method_of_a_tensor(x: torch.Tensor) -> torch.Tensor:
    return operator.methodcaller("add", 2)(x) + operator.methodcaller("sum")(x)


def method_of_an_object(x: torch.Tensor) -> torch.Tensor:
    return operator.methodcaller("scaled", x, 3)(HOLDER) + operator.methodcaller("upper")("a").count("A")


def mapped(x: torch.Tensor) -> torch.Tensor:
    return (
        x + sum(map(operator.methodcaller("bit_length"), [1, 2, 5])) + sum(map(operator.itemgetter(0), [[4]]))
    )


def dotted(x: torch.Tensor) -> torch.Tensor:
    return (
        x * operator.attrgetter("inner.rate")(HOLDER) + operator.attrgetter("other", "inner.rate")(HOLDER)[0]
    )


def text_of_a_function(x: torch.Tensor) -> tuple:
    return x + 1, str(helper), f"{helper!r}", repr(HOLDER)


def time_spans(x: torch.Tensor) -> tuple:
    span = datetime.timedelta(hours=2) + SPAN * 2
    return x * span.total_seconds() + span.days, span > SPAN, span / 2


def version(x: torch.Tensor) -> torch.Tensor:
    if torch.__version__ >= "2.1" and torch.__version__ > (1, 8) and torch.__version__.startswith("2."):
        return x + 1
    return x


def read_globals(x: torch.Tensor) -> torch.Tensor:
    return x * globals()["RATE"]


PROGRAMS = [
    method_of_a_tensor,
    method_of_an_object,
    mapped,
    dotted,
    text_of_a_function,
    time_spans,
    version,
    read_globals,
]


@pytest.mark.parametrize("fn", PROGRAMS)
def test_in_one_recording(fn: Callable) -> None:
    compiled = flashpoint.compile(fn, backend="eager")
    for i in range(4):
        agree_on(compiled(X + i), fn(X + i))
    counters = flashpoint.counters()
    assert counters["hits"] == 3 and counters["captures_started"] == 1, compiled.last_report()
    assert counters["resume_hits"] == 0


def test_what_was_read_is_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    def agree() -> None:
        for fn, compiled in zip(PROGRAMS, all_compiled, strict=True):
            agree_on(compiled(X), fn(X))

    all_compiled = [flashpoint.compile(fn, backend="eager") for fn in PROGRAMS]
    agree()
    agree()
    monkeypatch.setattr(HOLDER.inner, "rate", 5.0)
    agree()
    monkeypatch.setattr(HOLDER, "other", 7)
    agree()
    monkeypatch.setitem(globals(), "SPAN", datetime.timedelta(days=3))
    monkeypatch.setitem(globals(), "RATE", 9)
    agree()
    monkeypatch.setattr(helper, "__qualname__", "renamed")
    agree()
    monkeypatch.setitem(globals(), "HOLDER", Holder(1.5))
    agree()
    assert flashpoint.counters()["hits"] > 0


def test_getters_that_leave() -> None:
    def fn(x: torch.Tensor) -> tuple:
        getters: Any = operator.itemgetter(1), operator.attrgetter("shape"), operator.methodcaller("add", 1)
        return x + 1, getters

    compiled = flashpoint.compile(fn, backend="eager")
    for _ in range(3):
        _, (item, attribute, method) = compiled(X)
        assert item([4, 5]) == 5 and attribute(X) == X.shape and torch.equal(method(X), X + 1)
    assert flashpoint.counters()["hits"] == 2


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASHPOINT_TEST_VALUE", "0")

    def fn(x: torch.Tensor) -> torch.Tensor:
        os.environ["FLASHPOINT_TEST_VALUE"] = "3"
        return x + int(os.environ.get("FLASHPOINT_TEST_VALUE", "1"))

    compiled = flashpoint.compile(fn, backend="eager")
    for _ in range(4):
        os.environ["FLASHPOINT_TEST_VALUE"] = "7"
        assert torch.equal(compiled(X), X + 3)
        assert (
            os.environ["FLASHPOINT_TEST_VALUE"] == "3"
            and os.popen("echo $FLASHPOINT_TEST_VALUE").read() == "3\n"
        )
    counters = flashpoint.counters()
    assert counters["hits"] == 3 and counters["captures_started"] == 1, compiled.last_report()
