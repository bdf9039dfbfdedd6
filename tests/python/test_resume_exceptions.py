"""Breaks while an exception is being handled: what the program can see of exceptions is as in eager mode.

`note` breaks and writes down what sys.exc_info() and the traceback module show, so that each comparison
covers contexts, causes and tracebacks.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

import flashpoint

SEEN: list[Any] = []


@flashpoint.disable
def note(error: BaseException | None = None) -> None:
    SEEN.append((repr(sys.exc_info()[1]), traceback.format_exc()))
    if error is not None:
        SEEN.append(shown(error))


@flashpoint.disable
def fail(key: int) -> None:
    raise KeyError(key)


def shown(error: BaseException) -> list[str]:
    return traceback.format_exception(type(error), error, error.__traceback__)


class Special(ValueError):
    def __init__(self, text: str, extra: int) -> None:
        super().__init__(text)
        self.extra = extra


class Slotted(Exception):
    __slots__ = ("value",)


def handler(x):
    y = x + 1
    try:
        raise ValueError("no")
    except ValueError:
        y = y * 2
        note()
        y = y + 3
    return y * 2


def raised_by_a_callee(x):
    def bad(y):
        raise Special("bad", extra=7)

    y = x + 1
    try:
        bad(y)
    except Special as error:
        y = y * error.extra
        note(error)
        y = y + 1
    note()
    return y * 2


def of_slots(x):
    try:
        error = Slotted("a")
        error.value = x * 2
        raise error
    except Slotted as caught:
        note()
        x = x + caught.value
    return x


def nested(x):
    y = x + 1
    try:
        raise ValueError("outer")
    except ValueError:
        y = y * 2
        try:
            y = y - 1
            raise KeyError("inner")
        except KeyError as inner:
            y = y * 3
            note(inner)
            y = y + 5
        note()
        y = y + 3
    note()
    return y * 2


def raised_again(x):
    y = x + 1
    try:
        try:
            y = y * 2
            raise ValueError("no")
        except ValueError:
            y = y * 2
            note()
            y = y - 1
            raise
    except ValueError as error:
        y = y * 5
        note(error)
        y = y - 2
    return y


def through_finally(x):
    y = x + 1
    try:
        try:
            y = y * 2
            raise ValueError("no")
        finally:
            y = y * 2
            note()
            y = y - 1
    except ValueError:
        y = y * 5
        note()
        y = y - 2
    return y


def leaving(x):
    y = x + 1
    try:
        y = y * 2
        raise ValueError("no")
    finally:
        y = y * 2
        note()


def handling(y):
    try:
        raise ValueError("a")
    except ValueError as error:
        y = y * 2
        note(error)
        return y - 1


def in_a_callee(x):
    y = handling(x + 1) * 2
    y = handling(y)
    return y + 1


def caused(x):
    y = x + 1
    try:
        try:
            raise ValueError("a")
        except ValueError as error:
            y = y * 2
            note()
            raise KeyError("b") from error
    except KeyError as error:
        note(error)
    return y


class Manager:
    def __enter__(self):
        note()
        return 1

    def __exit__(self, kind, error, trace):
        note(error)
        note()
        return True


def with_block(x):
    y = x + 1
    with Manager() as one:
        y = y * 2 + one
        raise ValueError("w")
    note()
    return y + 1


class Keeper:
    def __init__(self, y):
        self.y = y

    def __enter__(self):
        return 1

    def __exit__(self, kind, error, trace):
        self.y = self.y + 1
        note(error)
        self.y = self.y * 2
        return False


def with_that_lets_pass(x):
    keeper = Keeper(x)
    try:
        with keeper, keeper:
            raise ValueError(3)
    except ValueError as error:
        note(error)
    return keeper.y


def the_break_raises(x):
    y = x + 1
    try:
        y = y * 2
        fail(3)
    except KeyError:
        y = y * 2
        note()
        y = y - 1
    return y


def exit_stack(x):
    y = x + 1
    with contextlib.ExitStack() as stack:
        stack.enter_context(Manager())
        y = y * 2
        print(end="")
        y = y + 1
        raise ValueError("q")
    return y


def in_a_loop(x):
    y = x
    for i in range(3):
        try:
            y = y + 1
            if i == 1:
                raise ValueError(i)
            print(end="")
        except ValueError:
            y = y * 2
            note()
            y = y - 1
            continue
        finally:
            y = y + 10
            note()
    return y


def stored(x):
    errors = []
    for i in range(2):
        try:
            raise Special("kept", i)
        except Special as error:
            errors.append(error)
    note(errors[1])
    return x * errors[0].extra, [shown(error)[-1] for error in errors]


@contextlib.contextmanager
def noting(value):
    try:
        yield value
    except ValueError:
        note()
    finally:
        note()


def context_manager(x):
    y = x + 1
    with noting(2) as two:
        y = y * two
        raise ValueError("in the block")
    note()
    return y + 1


# Name of the program: how many breaks a call has.
PROGRAMS: dict[Callable[..., Any], int] = {
    handler: 1,
    raised_by_a_callee: 2,
    of_slots: 1,
    nested: 3,
    raised_again: 3,
    through_finally: 3,
    in_a_callee: 2,
    with_block: 4,
    the_break_raises: 2,
    exit_stack: 4,
    in_a_loop: 6,
}


def outcome(fn: Callable[..., Any], x: torch.Tensor) -> Any:
    SEEN.clear()
    try:
        result = fn(x)
    except Exception as error:
        return shown(error)[:1] + shown(error)[2:], list(SEEN)
    return result, list(SEEN)


def same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, (tuple, list)):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def check(fn: Callable[..., Any], calls: int = 5) -> dict[str, int]:
    compiled = flashpoint.compile(fn)
    for i in range(calls):
        x = torch.ones(2) * i
        expected = outcome(fn, x)
        flashpoint.reset_counters()
        actual = outcome(compiled, x)
        assert same(expected, actual), (expected, actual)
    return flashpoint.counters()


@pytest.mark.parametrize("fn", PROGRAMS, ids=lambda fn: fn.__name__)
def test_breaks_while_handling(fn: Callable[..., Any]) -> None:
    last = check(fn)
    assert (last["hits"], last["captures_started"], last["frames_handed_over"]) == (1, 0, 0)
    assert last["resume_hits"] >= PROGRAMS[fn]


def test_an_exception_that_leaves_the_call() -> None:
    def inner(y, n):
        if n < 3:
            raise Special("few", n)
        return y

    def fn(x, n):
        y = x * 2
        SEEN.append(None)
        return inner(y, n) + 1

    compiled, hits = flashpoint.compile(fn), []
    for n in (2, 2, 5, 5, 2):
        x = torch.ones(2) * n
        flashpoint.reset_counters()
        assert same(outcome(partial(fn, n=n), x), outcome(partial(compiled, n=n), x))
        hits.append(flashpoint.counters()["hits"])
    assert hits == [0, 1, 0, 1, 1]


@pytest.mark.parametrize(
    "fn", [leaving, caused, with_that_lets_pass, stored, context_manager], ids=lambda fn: fn.__name__
)
def test_results_and_tracebacks(fn: Callable[..., Any]) -> None:
    assert check(fn)["hits"] == 1


def test_under_a_handler_of_the_caller() -> None:
    def inner(x):
        y = x + 1
        try:
            raise ValueError("in")
        except ValueError as error:
            y = y * 2
            note(error)
            y = y + 1
        note()
        return y

    compiled = flashpoint.compile(inner)

    def under(fn, x):
        try:
            raise KeyError("around")
        except KeyError:
            return fn(x)

    for i in range(8):
        x = torch.ones(2) * i
        flashpoint.reset_counters()
        # The exception around the call comes and goes.
        eager, actual = (outcome(partial(under, fn) if i % 2 else fn, x) for fn in (inner, compiled))
        assert same(eager, actual), (eager, actual)
    counters = flashpoint.counters()
    assert counters["hits"] == 1 and counters["captures_started"] == 0 and counters["resume_hits"] >= 2


def test_an_unset_local_is_part_of_the_position() -> None:
    def fn(x, flag):
        if flag:
            extra = 5
        print(end="")
        try:
            return x * extra
        except UnboundLocalError:
            return x + 1

    compiled = flashpoint.compile(fn)
    x = torch.ones(2)
    for flag in (False, True, False, True):
        assert torch.equal(compiled(x, flag), fn(x, flag))
