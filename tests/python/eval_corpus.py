"""Programs for the evaluator's tests: together they run every opcode of CPython 3.11.

Each case is a function without arguments, deterministic, and its own judge: what it returns or raises
(type, text, chain, traceback positions) must be the same under both evaluators.
"""

from __future__ import annotations

from tests.python import (
    eval_corpus_basic,  # noqa: F401
    eval_corpus_errors,  # noqa: F401
    eval_corpus_flow,  # noqa: F401
    eval_corpus_generators,  # noqa: F401
)
from tests.python.eval_corpus_common import CASES

__all__ = ["CASES"]
