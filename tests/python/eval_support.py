"""Running a corpus case under one evaluator or the other, and describing what came of it."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from flashpoint import _C


def describe_error(error: BaseException | None, seen: tuple[int, ...] = ()) -> Any:
    """Type, text, notes, chain and every traceback position of an exception."""
    if error is None or id(error) in seen:
        return None
    seen = (*seen, id(error))
    positions = []
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        spans = list(code.co_positions())
        # The runner's own frames are not the program's.
        if code.co_filename != __file__:
            positions.append((code.co_name, traceback.tb_lineno, spans[traceback.tb_lasti // 2]))
        traceback = traceback.tb_next
    inner = [describe_error(e, seen) for e in getattr(error, "exceptions", ())]
    chain = (describe_error(error.__cause__, seen), describe_error(error.__context__, seen))
    return type(error).__name__, str(error), positions, inner, chain, error.__suppress_context__


def outcome(function: Callable[[], Any], run: Callable[[Callable[[], Any]], Any]) -> tuple[str, Any]:
    try:
        return "value", repr(run(function))
    except BaseException as error:
        return "error", describe_error(error)


def by_default(function: Callable[[], Any]) -> Any:
    return function()


def in_evaluator(function: Callable[[], Any]) -> Any:
    return _C._eval_run(function)


def observed(function: Callable[[], Any]) -> Any:
    return _C._eval_run(function, observe="check")


def _cold_code(code: types.CodeType) -> types.CodeType:
    constants = tuple(_cold_code(c) if isinstance(c, types.CodeType) else c for c in code.co_consts)
    return code.replace(co_consts=constants)


def cold(function: Callable[[], Any]) -> Callable[[], Any]:
    """A copy of the function whose code (nested code too) has never run, hence is not specialized."""
    code = _cold_code(function.__code__)
    return types.FunctionType(code, function.__globals__, function.__name__, None, function.__closure__)


def specialized(function: Callable[[], Any]) -> Callable[[], Any]:
    """A copy of the function whose code the default evaluator has specialized."""
    copy = cold(function)
    for _ in range(20):
        outcome(copy, by_default)
    return copy


def instructions_of(function: Callable[[], Any]) -> int:
    before = _C._eval_counters()["instructions"]
    outcome(function, in_evaluator)
    return _C._eval_counters()["instructions"] - before
