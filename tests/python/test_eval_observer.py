"""What observers may do: end their recording at any point, answer calls and frames."""

from __future__ import annotations

import functools

import pytest

from flashpoint import _C
from tests.python.eval_corpus import CASES
from tests.python.eval_support import by_default, cold, observed, outcome

IDS = [case.__name__ for case in CASES]
MOST_POINTS = 3000


def _sweep(case, points: int | None) -> None:
    expected = outcome(cold(case), by_default)
    outcome(cold(case), observed)
    total = min(_C._eval_observed()["calls"], MOST_POINTS)
    stride = 1 if points is None else max(1, total // points)
    for point in range(0, total, stride):
        run = functools.partial(_C._eval_run, observe="check", end_at=point)
        assert outcome(cold(case), run) == expected, f"ended at {point}"
        report = _C._eval_observed()
        assert report["problems"] == [], f"ended at {point}"
        assert report["calls"] == point + 1
        assert not _C._eval_installed()


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_recording_ends_in_the_middle(case):
    _sweep(case, points=12)


@pytest.mark.sweep
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_recording_ends_everywhere(case):
    _sweep(case, points=None)


def test_frames_are_left_to_cpython_after_the_end():
    def leaf():
        return 1

    def program():
        return sum(leaf() for _ in range(100))

    before = _C._eval_counters()
    assert _C._eval_run(program, observe="check", end_at=5) == 100
    after = _C._eval_counters()
    assert after["frames_evaluated"] - before["frames_evaluated"] <= 4


def replaced(*args, **kwargs):
    raise AssertionError("must not run")


class Holder:
    replaced = replaced
    __enter__ = replaced

    def __exit__(self, *details):
        return None


@pytest.mark.parametrize(
    "program",
    [
        lambda: replaced(),
        lambda: replaced(1, a=2),
        lambda: replaced(*(1, 2), **{"k": 3}),
        lambda: Holder().replaced(5),
        lambda: functools.partial(replaced, 1)(2),
        lambda: next(map(replaced, "a")),
        lambda: [replaced(i) for i in range(3)][-1],
    ],
)
def test_answers(program):
    assert _C._eval_answered(program, replaced, "answer") == "answer"


def test_answered_context_manager():
    def program():
        with Holder() as value:
            return value

    assert _C._eval_answered(program, replaced, "answer") == "answer"
