"""The evaluator keeps no references: running the corpus again and again allocates nothing that stays."""

from __future__ import annotations

import gc
import sys
import time

import pytest

from tests.python.eval_corpus import CASES
from tests.python.eval_support import by_default, cold, in_evaluator, observed, outcome

ROUNDS = 10
ATTEMPTS = 8
# These leave blocks behind under the default evaluator as well: caches of event loops, tables of classes.
IRREGULAR = {"asynchronous", "matching_errors"}


def _leaks(case, run) -> bool:
    """Whether every one of several attempts leaves at least a block per round."""
    function = cold(case)
    # Fills the caches of the interpreter and the library; some take hundreds of runs.
    end = time.thread_time() + 0.05
    while time.thread_time() < end:
        outcome(function, by_default)
    for _ in range(ATTEMPTS):
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(ROUNDS):
            outcome(function, run)
        gc.collect()
        if sys.getallocatedblocks() - before < ROUNDS:
            return False
    return True


@pytest.fixture(autouse=True, scope="module")
def _small_heap():
    gc.collect()
    gc.freeze()  # collections need not walk everything torch has allocated
    yield
    gc.unfreeze()


def _check(case, run):
    if case.__name__ in IRREGULAR:
        pytest.skip("irregular under the default evaluator too")
    assert not _leaks(case, run)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=[case.__name__ for case in CASES])
def test_no_growth(case):
    _check(case, in_evaluator)


@pytest.mark.sweep
@pytest.mark.parametrize("case", CASES, ids=[case.__name__ for case in CASES])
def test_no_growth_observed(case):
    _check(case, observed)


def test_a_leak_is_found():
    kept = []

    def leaking():
        kept.append(object())

    assert _leaks(leaking, in_evaluator)
