"""What would silently go stale: one table per row of the design's soundness table; eager is the oracle."""

from __future__ import annotations

import pytest

from tests import fake
from tests.python.soundness import effects, readers, tensors, world
from tests.python.soundness.row import Row
from tests.support import Mismatch, check_calls

SECTIONS = {
    name: rows for table in (tensors, readers, effects, world) for name, rows in table.SECTIONS.items()
}
ROWS = [pytest.param(row, id=f"{name}: {row.name}") for name, rows in SECTIONS.items() for row in rows]


@pytest.mark.parametrize("row", ROWS)
def test_row(row: Row) -> None:
    check_calls(row.source, row.calls, expect=row.expect)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_row_seen_at_the_end_only(row: Row) -> None:
    check_calls(row.source, row.calls, expect=row.expect, watch="end")


def test_names_are_unique() -> None:
    names = [row.id for row in ROWS]
    assert len(names) == len(set(names))


@pytest.mark.slow
@pytest.mark.parametrize("rows", SECTIONS.values(), ids=SECTIONS)
def test_a_stale_replay_fails_most_rows(rows: list[Row]) -> None:
    """A row on which even the crudest replay passes could not fail; few rows only may not crash."""
    missed = []
    for row in rows:
        try:
            check_calls(row.source, row.calls, package=fake.Stale())
        except Mismatch:
            continue
        except Exception:  # a later step found the world in a state that no eager run has
            continue
        missed.append(row.name)
    assert len(missed) <= len(rows) // 10, missed
