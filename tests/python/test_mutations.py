"""Twenty thousand calls, each with one change of what the function reads: no stale result.

More of it: python -m tests.mutations --seed S --count N.
"""

from __future__ import annotations

import pytest

import flashpoint
from tests.mutations.runner import drive

PROGRAMS, STEPS = 25, 100


@pytest.mark.parametrize("backend", ["eager", "native"])
def test_some_changes(backend: str) -> None:
    tally = drive(100_000, STEPS, backend=backend)
    assert tally.steps == STEPS and tally.hits > 0
    assert not tally.differences


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(8))
def test_changes_between_calls(batch: int) -> None:
    steps = hits = 0
    backend = "native" if batch % 2 else "eager"
    for seed in range(batch * PROGRAMS, (batch + 1) * PROGRAMS):
        tally = drive(seed, STEPS, backend=backend)
        flashpoint.reset()
        steps, hits = steps + tally.steps, hits + tally.hits
        assert not tally.differences
    assert steps == PROGRAMS * STEPS
    assert hits >= 0.5 * steps
