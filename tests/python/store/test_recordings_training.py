"""Recordings below autograd in the store: gradients and optimizers over a row of processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.python.store.recordings_cases import CASES
from tests.python.store.test_recordings import counted, run_cases

pytestmark = pytest.mark.slow  # several processes each


def source_of(name: str) -> str:
    return next(case.source for case in CASES if case.name == name)


@pytest.mark.parametrize("name", ["grads", "grads_kept"])
def test_gradients(name: str, tmp_path: Path) -> None:
    """What the first two processes met, without gradients and with them, the third one has."""
    (tmp_path / "case_it.py").write_text(source_of(name))
    rows = [run_cases(tmp_path, tmp_path / "cache", ["case_it"], seed)["case_it"] for seed in (1, 2, 3)]
    for row in rows:
        assert "crash" not in row, row["crash"]
        assert row["equal"], row["seen"]
    first, second, third = rows
    assert counted(first, "captures_kept") == 1
    # No recording is dropped to find out again that it has to be made below autograd.
    assert counted(second, "captures_dropped") == 0, second["report"]
    assert counted(second, "entries_loaded") == 1, second["report"]
    assert counted(third, "captures_started") == 0, third["report"]
    assert counted(third, "precompile_hits") == len(third["counts"]), third["counts"]


@pytest.mark.parametrize("name", ["sgd", "adam", "scheduled"])
def test_optimizers(name: str, tmp_path: Path) -> None:
    """Steps of an optimizer are kept: from its second step on, the second process records nothing."""
    (tmp_path / "case_it.py").write_text(source_of(name))
    rows = [run_cases(tmp_path, tmp_path / "cache", ["case_it"], seed)["case_it"] for seed in (1, 2)]
    for row in rows:
        assert "crash" not in row, row["crash"]
        assert row["equal"], row["seen"]
    first, second = rows
    assert counted(first, "captures_kept") > 0
    assert counted(second, "entries_loaded") > 0, second["report"]
    later = second["counts"][2:]
    assert sum(call.get("captures_started", 0) for call in later) == 0, second["report"]
    assert sum(call.get("hits", 0) for call in later) == len(later), second["counts"]
