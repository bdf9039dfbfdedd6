"""`flashpoint.code_state`: the cache on each code object, to look at and to control.

What is compiled hangs on the code object whose frames the calls are: a function's `__code__`, for a module
that of its class's `forward`. Every function here takes the code object, or a function, method, module or
compiled callable that has one. The names follow torch/csrc/dynamo/extra_state.h of torch 2.13.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from flashpoint import _C
from flashpoint.optimized_module import unwrap


class FrameAction(enum.IntEnum):
    """What is done with a call of a compiled function.

    DEFAULT: an entry answers it; where none fits, it is recorded.
    SKIP: it runs eagerly.
    RUN_ONLY: an entry answers it; where none fits, it runs eagerly.
    """

    DEFAULT = 0
    SKIP = 1
    RUN_ONLY = 2


@dataclass(frozen=True)
class FrameExecStrategy:
    """What is done with the frames of a code object, and with compiled functions called below them.

    An action of a code object's own goes before one that it inherits from a frame further out.
    """

    cur_action: FrameAction = FrameAction.DEFAULT
    recursive_action: FrameAction = FrameAction.DEFAULT


@dataclass(frozen=True)
class CacheEntry:
    """One recording in the cache of a code object.

    compile_id: "code/entry": numbers of the code object and of the entry among its entries, as counted in
        this process. Empty for an entry of a recording that is still going on.
    guards: what must hold for it to answer, as text. graph: what it runs, as text. nodes: operators in it.
    backend: "eager", "native", or "torch.compile" for one of that registry or a callable.
    hits: calls it answered. behind_a_break: it starts where another one ends, not with the function.
    trace_annotation: the name of its runs in profiles.
    """

    compile_id: str
    guards: tuple[str, ...]
    graph: str
    nodes: int
    backend: str
    hits: int
    behind_a_break: bool
    _handle: Any = field(repr=False, compare=False)

    @property
    def trace_annotation(self) -> str:
        return f"Torch-Compiled Region: {self.compile_id}"


def entries(code: Any) -> list[CacheEntry]:
    """The entries of all living compiled callables of the code object; those of each in the order of lookup,
    most recently used first."""
    return [_entry(row) for row in _C.code_entries(_code_of(code, "entries"), None)]


def entries_of(compiled: Any) -> list[CacheEntry]:
    """The entries of one compiled callable or module alone, in the order of lookup."""
    found = compiled.forward if isinstance(compiled, torch.nn.Module) else compiled
    if not isinstance(found, _C.CompiledFunction):
        raise TypeError(
            "[flashpoint.code_state.entries_of] takes what flashpoint.compile returned, "
            f"not {type(compiled).__name__}"
        )
    return [_entry(row) for row in _C.code_entries(_code_of(compiled, "entries_of"), found)]


def entry_count(code: Any) -> int:
    """How many entries all living compiled callables of the code object have together."""
    return len(entries(code))


def invalidate(code: Any, entry: CacheEntry) -> bool:
    """Drops one entry of the code object, recorded or loaded; calls that it answered are recorded again.

    Returns whether it was there. Raises TypeError when `entry` is no CacheEntry.
    """
    return _C.invalidate_entry(_code_of(code, "invalidate"), _handle_of(entry, "invalidate"))


def why_not(entry: CacheEntry, *args: Any, **kwargs: Any) -> str | None:
    """None when the guards of `entry` hold for these arguments, else the first that does not, as text.

    args: as the recorded function got them; methods and modules come first among their own. The order of
    keyword arguments counts. Nothing is run, no hit is counted. An entry behind a graph break takes the slots
    of its frames and cannot be asked: ValueError.
    """
    return _check(entry, args, kwargs, 1, "why_not")[1]


def time_guards(entry: CacheEntry, *args: Any, times: int = 1000, **kwargs: Any) -> float:
    """Seconds that one evaluation of the guards takes, the state of torch read each time; mean of `times`.

    Arguments are those of `why_not`. Raises ValueError when the guards do not hold for them.
    """
    if times < 1:
        raise ValueError(f"[flashpoint.code_state.time_guards] takes times of at least 1, not {times}")
    seconds, miss = _check(entry, args, kwargs, times, "time_guards")
    if miss is not None:
        raise ValueError(f"[flashpoint.code_state.time_guards] the entry does not fit: {miss}")
    return seconds / times


def precompile_entries(code: Any) -> list[CacheEntry]:
    """The entries that were loaded for the code object, in the order of lookup."""
    return [_entry(row) for row in _C.precompile_entries(_code_of(code, "precompile_entries"))]


def load_precompile_entry(code: Any, entry: CacheEntry) -> None:
    """Has `entry` answer calls of every compiled callable of the code object, before their own entries do.

    It answers for the very function it was recorded from; another closure of the code has cells of its own.
    It is kept alive until `reset_precompile_entries`, or as long as the code object lives; `flashpoint.reset`
    leaves it. Its guards decide, as ever, whether it fits a call.

    Raises TypeError when `entry` is no CacheEntry, ValueError for one that starts behind a break.
    """
    handle = _handle_of(entry, "load_precompile_entry")
    if entry.behind_a_break:
        raise ValueError(
            "[flashpoint.code_state.load_precompile_entry] this entry starts behind a graph break; only one "
            "that starts with the function can be loaded"
        )
    _C.load_precompile_entry(_code_of(code, "load_precompile_entry"), handle)


def reset_precompile_entries(code: Any) -> None:
    """Drops the entries that were loaded for the code object."""
    _C.reset_precompile_entries(_code_of(code, "reset_precompile_entries"))


def reset_code(code: Any) -> None:
    """Forgets what every compiled callable of the code object has recorded; they stay usable. Strategy and
    loaded entries stay."""
    _C.reset_code(_code_of(code, "reset_code"))


def strategy(code: Any) -> FrameExecStrategy:
    """What is done with calls of the code object."""
    current, recursive = _C.strategy(_code_of(code, "strategy"))
    return FrameExecStrategy(FrameAction(current), FrameAction(recursive))


def set_strategy(code: Any, strategy: FrameExecStrategy) -> None:
    """Says what is done with calls of the code object, from the next one on.

    Inside a recording of another function a call is part of that recording, whatever the strategy.
    """
    if not isinstance(strategy, FrameExecStrategy):
        raise TypeError(
            f"[flashpoint.code_state.set_strategy] takes a FrameExecStrategy, not {type(strategy).__name__}"
        )
    _C.set_strategy(
        _code_of(code, "set_strategy"),
        FrameAction(strategy.cur_action),
        FrameAction(strategy.recursive_action),
    )


def set_lru_cache(enabled: bool) -> bool:
    """Whether an entry that answers moves to the front of its callable's entries (it does at first).

    Returns what it was before. Off, entries are looked up newest first.
    """
    if not isinstance(enabled, bool):
        raise TypeError(f"[flashpoint.code_state.set_lru_cache] takes True or False, not {enabled!r}")
    return _C.set_lru(enabled)


@contextmanager
def lru_cache(enabled: bool) -> Iterator[None]:
    """`set_lru_cache` for the duration of a `with` block."""
    before = set_lru_cache(enabled)
    try:
        yield
    finally:
        _C.set_lru(before)


def set_guard_error_hook(
    hook: Callable[[types.CodeType | None, str, str], object] | None,
) -> Callable[[types.CodeType | None, str, str], object] | None:
    """Has `hook(code, compile_id, error)` called when evaluating the guards of an entry raises an error.

    The entry is then left out, as if it did not fit, and `flashpoint.counters()["guard_errors"]` counts it.
    code: the code object, None for an entry behind a graph break. error: what was raised, as text.
    Exceptions of the hook go to `sys.unraisablehook`. Returns the hook that was set before.
    """
    if hook is not None and not callable(hook):
        raise TypeError(
            f"[flashpoint.code_state.set_guard_error_hook] takes a callable or None, not {hook!r}"
        )
    return _C.set_guard_error_hook(hook)


def _entry(row: _C.CodeEntry) -> CacheEntry:
    return CacheEntry(
        compile_id=row["compile_id"],
        guards=tuple(row["guards"].splitlines()),
        graph=row["graph"],
        nodes=row["nodes"],
        backend=row["backend"],
        hits=row["hits"],
        behind_a_break=row["behind_a_break"],
        _handle=row["handle"],
    )


def _check(
    entry: CacheEntry, args: tuple[Any, ...], kwargs: dict[str, Any], times: int, name: str
) -> tuple[float, str | None]:
    handle = _handle_of(entry, name)
    if entry.behind_a_break:
        raise ValueError(f"[flashpoint.code_state.{name}] this entry starts behind a graph break")
    return _C.check_guards(handle, (*args, *kwargs.values()), tuple(kwargs) or None, times)


def _handle_of(entry: CacheEntry, name: str) -> Any:
    if not isinstance(entry, CacheEntry):
        raise TypeError(
            f"[flashpoint.code_state.{name}] takes a CacheEntry, as entries() gives them, "
            f"not {type(entry).__name__}"
        )
    return entry._handle


def _code_of(target: Any, name: str) -> types.CodeType:
    found: Callable[..., Any] | Any = target
    while isinstance(found, _C.CompiledFunction):
        found = found.__wrapped__
    if isinstance(found, torch.nn.Module):
        found = type(unwrap(found)).forward
    if isinstance(found, types.MethodType):
        found = found.__func__
    if isinstance(found, types.FunctionType):
        found = found.__code__
    if not isinstance(found, types.CodeType):
        raise TypeError(
            f"[flashpoint.code_state.{name}] takes a code object, or a function or module that has one, "
            f"not {type(target).__name__}"
        )
    return found
