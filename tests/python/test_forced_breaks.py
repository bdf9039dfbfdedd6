"""A break forced at any event of the evaluator's corpus: results, logs and tracebacks equal eager's.

The corpus has what a frame can be in: nested calls and generators, closures, comprehensions, try and finally
that raise on either side, with blocks, recursion. Each point is recorded once and called three times.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import flashpoint
from flashpoint import _C
from tests.python.eval_corpus import CASES
from tests.python.eval_support import by_default, outcome

IDS = [case.__name__ for case in CASES]
MOST_EVENTS = 6000  # library code below these runs for much longer
# How many events in a row may pass without a forced break before there are none left.
PATIENCE = 3


@pytest.fixture(autouse=True)
def no_forced_break_left() -> Iterator[None]:
    yield
    _C.set_config("break_at_event", 0)


def forced(case: Callable[[], Any], event: int, expected: tuple[str, Any]) -> bool:
    """Compares three calls with a break at the event of each recording; whether there is such an event."""
    flashpoint.reset()
    _C.set_config("break_at_event", event)
    compiled = flashpoint.compile(case)
    there = False
    for call in range(3):
        assert outcome(compiled, by_default) == expected, f"event {event}, call {call}"
        report = flashpoint.explaining.inspect_compiled(compiled)
        there = there or any(found.reason == "forced" for found in report.breaks)
    _C.set_config("break_at_event", 0)
    return there


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_some_events(case: Callable[[], Any]) -> None:
    expected = outcome(case, by_default)
    rng = random.Random(case.__name__)
    events = sorted({int(2 ** rng.uniform(0, 9)) for _ in range(10)})
    assert any([forced(case, event, expected) for event in [1, *events]])


@pytest.mark.sweep
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_every_event(case: Callable[[], Any]) -> None:
    expected = outcome(case, by_default)
    flashpoint.reset_counters()
    event = missed = 0
    while missed < PATIENCE and event < MOST_EVENTS:
        event += 1
        missed = 0 if forced(case, event, expected) else missed + 1
    print(f"POINTS {case.__name__} {event - missed} resumed {flashpoint.counters()['breaks_resumed']}")
