"""Exactly one thing changes between calls; the answer is eager's.

Each row of the tables calls `fn` twice in a first state, twice in a second one, and twice in the first
again. Eager itself must answer the two states differently (unless the row says that the change is not to be
seen), so a row whose guard is missing fails.
"""

from __future__ import annotations

import pytest

from tests import fake
from tests.python.guards import arguments, constructs, functions, identities, modes, objects, tensors
from tests.python.guards.case import Case
from tests.support import Mismatch, check_calls, differing

TABLES = {
    "arguments": arguments,
    "constructs": constructs,
    "functions": functions,
    "identities": identities,
    "modes": modes,
    "objects": objects,
    "tensors": tensors,
}
ROWS = [
    pytest.param(case, id=f"{name}: {case.name}") for name, table in TABLES.items() for case in table.CASES
]


@pytest.mark.parametrize("case", ROWS)
def test_one_change(case: Case) -> None:
    assert case.same or differing(case.source, case.calls, 1, 2), "eager answers both states alike"
    check_calls(case.source, case.calls, expect=case.expect)


@pytest.mark.slow
@pytest.mark.parametrize("case", ROWS)
def test_one_change_seen_at_the_end_only(case: Case) -> None:
    check_calls(case.source, case.calls, expect=case.expect, watch="end")


def test_names_are_unique() -> None:
    names = [row.id for row in ROWS]
    assert len(names) == len(set(names))


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_stale_replay_fails_every_row(table: object) -> None:
    missed = []
    for case in table.CASES:
        try:
            check_calls(case.source, case.calls, package=fake.Stale())
        except Mismatch:
            continue
        missed.append(case.name)
    assert missed == [case.name for case in table.CASES if case.same and case.name in missed]
