"""Calls of torch functions under capture: eager is the oracle, counters prove what was compiled.

Entries of the peer's surface that no `expect` is given for must break, cleanly: right results, nothing kept.
The documentation's table of the surface (docs/reference/torch_rules.md) is made from the same rows.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.python.soundness.row import Row
from tests.python.torch_calls import arguments, handlers, higher_order, managers, overrides
from tests.python.torch_calls.entry import Entry, reference_page
from tests.support import check_calls
from tests.world import run

SECTIONS = {
    name: rows
    for table in (arguments, handlers, higher_order, managers, overrides)
    for name, rows in table.SECTIONS.items()
}
ROWS = [pytest.param(row, id=f"{name}: {row.name}") for name, rows in SECTIONS.items() for row in rows]
RECORDED = [
    pytest.param(row, id=f"{name}: {row.name}")
    for name, rows in SECTIONS.items()
    for row in rows
    if isinstance(row, Entry) and row.recorded
]


@pytest.mark.parametrize("row", ROWS)
def test_row(row: Row) -> None:
    outcomes = check_calls(row.source, row.calls, expect=row.expect)
    if isinstance(row, Entry) and not row.recorded:
        first = outcomes[0].counters
        assert first["captures_dropped"] + first["breaks_resumed"] >= 1


@pytest.mark.sweep
@pytest.mark.parametrize("row", RECORDED)
def test_peer_gives_the_same(row: Entry) -> None:
    """torch.compile in one graph gives what eager gives, so one recording is no more graphs than it needs; or
    the row says what it does instead.
    """
    torch._dynamo.reset()
    eager = run(row.source, row.calls)
    peer = run(row.source, row.calls, lambda fn: torch.compile(fn, backend="eager", fullgraph=True))
    same = all(
        mine.raised == other.raised and (mine.raised or mine.shown() == other.shown())
        for mine, other in zip(eager, peer, strict=True)
    )
    assert same == (not row.peer), [other.shown()[:2] for other in peer]


def test_names_are_unique() -> None:
    names = [row.id for row in ROWS]
    assert len(names) == len(set(names))


def test_reference_page_is_current(root: Path) -> None:
    """To write it anew: python -m tests.python.torch_calls > docs/reference/torch_rules.md"""
    assert (root / "docs/reference/torch_rules.md").read_text() == reference_page()
