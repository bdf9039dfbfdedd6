"""A frame may be handed to CPython at any instruction boundary and goes on as if nothing had happened."""

from __future__ import annotations

import functools

import pytest

from flashpoint import _C
from tests.python.eval_corpus import CASES
from tests.python.eval_support import by_default, cold, instructions_of, outcome, specialized

IDS = [case.__name__ for case in CASES]
# Library code below these runs for tens of thousands of instructions: sweep only their first part.
MOST_POINTS = 4000


def _sweep(case, prepare, stride: int, observe: str = "") -> int:
    expected = outcome(cold(case), by_default)
    total = min(instructions_of(prepare(case)), MOST_POINTS)
    function = prepare(case)
    handed_over = 0
    for point in range(total % stride, total, stride):
        if prepare is cold:
            function = cold(case)
        before = _C._eval_counters()["frames_handed_over"]
        run = functools.partial(_C._eval_run, hand_over_at=point, observe=observe)
        assert outcome(function, run) == expected, f"handed over at {point}"
        handed_over += _C._eval_counters()["frames_handed_over"] - before
        if observe:
            assert _C._eval_observed()["problems"] == [], f"handed over at {point}"
    return handed_over


@pytest.mark.parametrize("prepare", [cold, specialized])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_stride(case, prepare):
    total = min(instructions_of(cold(case)), MOST_POINTS)
    assert _sweep(case, prepare, max(1, total // 12)) >= min(10, total // 2)


@pytest.mark.sweep
@pytest.mark.parametrize("observe", ["", "check"], ids=["plain", "observed"])
@pytest.mark.parametrize("prepare", [cold, specialized])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_every_point(case, prepare, observe):
    assert _sweep(case, prepare, 1, observe) > 0
