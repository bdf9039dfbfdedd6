"""Calls of torch functions under capture: eager is the oracle, counters prove what was compiled."""

from __future__ import annotations

import pytest

from tests.python.soundness.row import Row
from tests.python.torch_calls import arguments
from tests.support import check_calls

SECTIONS = {name: rows for table in (arguments, ) for name, rows in table.SECTIONS.items()}
ROWS = [pytest.param(row, id=f"{name}: {row.name}") for name, rows in SECTIONS.items() for row in rows]


@pytest.mark.parametrize("row", ROWS)
def test_row(row: Row) -> None:
    check_calls(row.source, row.calls, expect=row.expect)


def test_names_are_unique() -> None:
    names = [row.id for row in ROWS]
    assert len(names) == len(set(names))
