"""The evaluator gives what CPython's gives: results, exceptions, tracebacks with lines and columns."""

from __future__ import annotations

import dis
import sys

import pytest

from flashpoint import _C
from tests.python.eval_corpus import CASES
from tests.python.eval_support import by_default, cold, in_evaluator, observed, outcome, specialized

NOT_INSTRUCTIONS = {"CACHE"}
IDS = [case.__name__ for case in CASES]


def _executed_opcodes() -> set[str]:
    """Names of the opcodes the corpus really runs, from the default evaluator's opcode trace."""
    executed: set[int] = set()

    def trace(frame, event, argument):
        frame.f_trace_opcodes = True
        if event == "opcode":
            code = frame.f_code.co_code
            executed.add(code[frame.f_lasti])
        return trace

    for case in CASES:
        copy = cold(case)
        sys.settrace(trace)
        try:
            copy()
        except BaseException:
            pass
        finally:
            sys.settrace(None)
    return {dis.opname[opcode] for opcode in executed}


def test_corpus_runs_every_opcode():
    # Tracing starts at RESUME: what comes before it, and prefixes, are found in the code itself.
    untraced = {"COPY_FREE_VARS", "MAKE_CELL", "RETURN_GENERATOR", "RESUME", "EXTENDED_ARG"}
    missing = set(dis.opmap) - NOT_INSTRUCTIONS - _executed_opcodes()
    assert missing <= untraced


def test_every_opcode_has_a_handler_or_is_a_known_hand_over():
    known = {"RETURN_GENERATOR", "ASYNC_GEN_WRAP", "CHECK_EG_MATCH", "PREP_RERAISE_STAR"}
    assert set(dis.opmap) - NOT_INSTRUCTIONS - set(_C._eval_opcodes()) == known


@pytest.mark.parametrize("prepare", [cold, specialized])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_same_outcome(case, prepare):
    expected = outcome(cold(case), by_default)
    function = prepare(case)
    before = _C._eval_counters()["frames_evaluated"]
    assert outcome(function, in_evaluator) == expected
    assert _C._eval_counters()["frames_evaluated"] > before


@pytest.mark.parametrize("prepare", [cold, specialized])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_same_outcome_observed(case, prepare):
    expected = outcome(cold(case), by_default)
    assert outcome(prepare(case), observed) == expected
    report = _C._eval_observed()
    assert report["problems"] == []
    assert report["frames"] > 0


def test_tags_follow_values():
    def program():
        a, b = len("ab"), len("abc")
        a, b = b, a
        c = [a, b, a]
        for item in c:
            a = item
        return a is b or (a, b)

    _C._eval_run(program, observe="check")
    report = _C._eval_observed()
    assert report["problems"] == []
    assert report["tags_seen"] > 20


def test_an_evaluated_program_is_not_handed_over():
    before = _C._eval_counters()
    outcome(cold(CASES[0]), in_evaluator)
    after = _C._eval_counters()
    assert after["frames_handed_over"] == before["frames_handed_over"]
    assert after["instructions"] > before["instructions"]
