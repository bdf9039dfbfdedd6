"""The evaluator keeps no references: running the corpus again and again allocates nothing that stays."""

from __future__ import annotations

import gc
import sys
import time

import pytest

from tests.python.eval_corpus import CASES
from tests.python.eval_support import by_default, cold, in_evaluator, observed, outcome

ROUNDS = 10
# A leak goes on. Caches of event loops and tables of classes fill up, some only after thousands of runs.
ATTEMPTS = 400


def _leaks(case, run) -> bool:
    """Whether some block per round is left behind for as long as one looks."""
    function = cold(case)
    # Fills most caches of the interpreter and the library.
    end = time.thread_time() + 0.05
    while time.thread_time() < end:
        outcome(function, by_default)
    steady = 0
    for _ in range(ATTEMPTS):
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(ROUNDS):
            outcome(function, run)
        gc.collect()
        steady = steady + 1 if sys.getallocatedblocks() - before < ROUNDS // 2 else 0
        if steady == 3:  # one could be something else that was freed
            return False
    return True


@pytest.fixture(autouse=True, scope="module")
def _small_heap():
    gc.collect()
    gc.freeze()  # collections need not walk everything torch has allocated
    yield
    gc.unfreeze()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=[case.__name__ for case in CASES])
def test_no_growth(case):
    assert not _leaks(case, in_evaluator)


@pytest.mark.sweep
@pytest.mark.parametrize("case", CASES, ids=[case.__name__ for case in CASES])
def test_no_growth_observed(case):
    assert not _leaks(case, observed)


def test_a_leak_is_found():
    kept = []

    def leaking():
        kept.append(object())

    assert _leaks(leaking, in_evaluator)
