"""torch's operator database through `flashpoint.compile`; see check.py for what is compared.

A fixed stride of the operators, a few samples of each, is part of the fast suite; `make sweep` runs all.
"""

from __future__ import annotations

import pytest

import flashpoint
from tests.opdb.check import check
from tests.opdb.expected import BREAKING_CALLS, BREAKS, UNDEFINED_VALUES
from tests.opdb.samples import cases, operators

FAST_CHUNKS, STRIDE = 2, 16
ALL_CHUNKS = 32


def _run(chunk: int, step: int, samples: int | None) -> None:
    """Nothing differs, what is not expected to break runs compiled, and most of it does."""
    compiled, broke, unexpected = 0, 0, []
    with flashpoint.config.patch(poison_empty=True):
        for op in operators()[chunk::step]:
            for case in cases(op, samples):
                verdict = check(case, values=op.name not in UNDEFINED_VALUES)
                if verdict is None:
                    continue
                compiled += verdict.compiled
                broke += not verdict.compiled
                known = op.name in BREAKS or any(call in verdict.reason for call in BREAKING_CALLS)
                if not verdict.compiled and not known:
                    unexpected.append(f"{case}: {verdict.reason}")
    assert not unexpected, "\n".join(dict.fromkeys(unexpected))
    assert compiled >= 10 and (samples is None or compiled >= 10 * broke)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(FAST_CHUNKS))
def test_some(chunk: int) -> None:
    _run(chunk * STRIDE, STRIDE * FAST_CHUNKS, 3)


@pytest.mark.sweep
@pytest.mark.parametrize("chunk", range(ALL_CHUNKS))
def test_all(chunk: int) -> None:
    _run(chunk, ALL_CHUNKS, None)


def test_expected_names_exist() -> None:
    names = {op.name for op in operators()}
    assert names >= BREAKS.keys() and names >= UNDEFINED_VALUES, {*BREAKS, *UNDEFINED_VALUES} - names
