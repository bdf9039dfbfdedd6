"""What a replay rebuilds: cycles through tuples and sets, keys whose own code fails, frames of tracebacks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest

import flashpoint


class Holder:
    value: Any = None


def through_tuple():
    holder = Holder()
    holder.value = (holder, 1)
    return holder.value


def through_set():
    holder = Holder()
    holder.value = {holder}
    return holder.value


def through_frozenset():
    holder = Holder()
    holder.value = frozenset([holder])
    return holder.value


def through_a_list_in_a_tuple():
    holder = Holder()
    holder.value = (holder, [holder, 1])
    return holder.value


@pytest.mark.parametrize(
    "fn",
    [through_tuple, through_set, through_frozenset, through_a_list_in_a_tuple],
    ids=lambda fn: fn.__name__,
)
def test_cycle_is_one_object(fn: Callable[[], Any]) -> None:
    compiled = flashpoint.compile(fn, backend="eager")
    for _ in range(3):
        container = compiled()
        holder = next(iter(container))
        assert holder.value is container
    assert flashpoint.counters()["hits"] == 2


class Contrary:
    """Equal to itself only, and says so until it is told to fail."""

    fails = False

    def __eq__(self, other: object) -> bool:
        if Contrary.fails:
            raise ZeroDivisionError
        return self is other

    def __hash__(self) -> int:
        return 0


def meets_contrary_keys(kind):
    Contrary.fails = False
    keys = kind([Contrary(), Contrary()])
    Contrary.fails = True
    print(end="")
    return len(keys)


@pytest.mark.parametrize("kind", [set, frozenset, dict.fromkeys])
def test_keys_that_fail_when_they_are_compared(kind: Callable[..., Any]) -> None:
    """Rebuilding the container would compare them once more: the call runs again as it is."""
    compiled = flashpoint.compile(meets_contrary_keys, backend="eager")
    for _ in range(4):
        assert compiled(kind) == 2
        assert Contrary.fails


def lines_of_frames():
    def leaves_by_finally():
        try:
            1 / 0  # noqa: B018
        finally:
            pass

    try:
        leaves_by_finally()
    except ZeroDivisionError as error:
        traceback = error.__traceback__.tb_next
    frame = traceback.tb_frame
    start = frame.f_code.co_firstlineno
    return traceback.tb_lineno - start, frame.f_lineno - start


def test_line_of_a_frame_that_has_ended() -> None:
    """The line it got to, which is not the one that raised."""
    expected = lines_of_frames()
    assert expected == (2, 4)
    compiled = flashpoint.compile(lines_of_frames, backend="eager")
    for _ in range(4):
        assert compiled() == expected
    assert flashpoint.counters()["resume_hits"] > 0


def test_ordered_dict_that_lost_its_order() -> None:
    """dict's own methods leave its list of keys behind: nothing rebuilds that, so it is a break at most."""

    class Ordered(OrderedDict[str, int]):
        pass

    def fn(kind):
        made = kind(spam=1, ham=2)
        dict.__delitem__(made, "spam")
        try:
            print(made, end="")
        except KeyError:
            return "lost"
        return "kept"

    for kind in (Ordered, OrderedDict):
        compiled = flashpoint.compile(fn, backend="eager")
        for _ in range(4):
            assert compiled(kind) == fn(kind) == "lost"
