"""torch's operator database through `flashpoint.compile`; see check.py for what is compared.

A fixed stride of the operators, a few samples of each, is part of the fast suite; `make sweep` runs all.
"""

from __future__ import annotations

import pytest

import flashpoint
from tests.opdb.check import Difference, check
from tests.opdb.expected import BREAKING_CALLS, BREAKS, UNDEFINED_VALUES
from tests.opdb.numbers import check_numbers
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


def _run_numbers(chunk: int, step: int) -> None:
    answered, differences = 0, []
    for op in operators()[chunk::step]:
        # An unknown mode leaves what grid_sampler returns as it was allocated.
        if op.name in UNDEFINED_VALUES or op.name.startswith("grid_sampler"):
            continue
        for case in cases(op, 2):
            if case.variant not in ("function", "method"):
                continue
            try:
                answered += check_numbers(case)
            except Difference as difference:
                differences.append(str(difference))
    assert not differences, "\n".join(differences)
    assert answered > 0


@pytest.mark.slow
def test_some_numbers() -> None:
    _run_numbers(3, STRIDE)


@pytest.mark.sweep
@pytest.mark.parametrize("chunk", range(ALL_CHUNKS // 2))
def test_all_numbers(chunk: int) -> None:
    """Operators that decide by a number are known as such (record/number_rules.def)."""
    _run_numbers(chunk, ALL_CHUNKS // 2)
