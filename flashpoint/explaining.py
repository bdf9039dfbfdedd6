"""`flashpoint.explain`: what one call of a function records, as data and as text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from flashpoint import _C
from flashpoint.compiling import wrap
from flashpoint.configuration import config
from flashpoint.optimized_module import OptimizedModule


@dataclass(frozen=True)
class Break:
    """Why a recording ended before the function did.

    reason: name of the kind of break. message: what was met. hint: what to do about it, or empty. file, line:
    the instruction that was met, as a traceback would name it (empty and 0 where it has no source line).
    hand_over_us, resume_us: what the break took in the call that was recorded, in microseconds: until the
    frames stood, and behind it until it was known how they go on. Negative where that was not measured.
    """

    reason: str
    message: str
    hint: str = ""
    file: str = ""
    line: int = 0
    hand_over_us: float = field(default=-1.0, compare=False)
    resume_us: float = field(default=-1.0, compare=False)

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.file else ""
        text = f"{where}{self.message} [{self.reason}]" + (f"\n  hint: {self.hint}" if self.hint else "")
        if self.hand_over_us >= 0:
            text += f"\n  took {self.hand_over_us:.0f} us to hand over"
            text += f", {self.resume_us:.0f} us to resume" if self.resume_us >= 0 else ", not resumed"
        return text


@dataclass(frozen=True)
class Entry:
    """One recording.

    graph: its text. nodes: operators in it. guards: what must hold for a replay. effects: writes to objects
    that existed before. hits: calls it answered. frames, slots: what its break costs at each of them, in
    frames and values that are restored; 0 for an entry that does not end at a break. recorded_us: what
    recording it took, in microseconds, the program's own time included; negative for one that was loaded.
    behind_a_break: it begins where another one ends.
    """

    graph: str
    nodes: int
    guards: tuple[str, ...]
    effects: int = 0
    hits: int = 0
    frames: int = 0
    slots: int = 0
    recorded_us: float = field(default=-1.0, compare=False)
    behind_a_break: bool = False


@dataclass(frozen=True)
class Explanation:
    """The recordings of a compiled callable, and how its last capture went. `str()` of it is readable.

    entries: what is kept and can be replayed, oldest first.
    breaks: where the last capture broke.
    dropped: why the last capture was not kept; None if it was kept.
    recompiles: the guard that failed, for each of the last recordings that were made beside others.
    skipped: where nothing is recorded for some more calls, and why.
    result: what the explained call returned.
    """

    name: str
    entries: tuple[Entry, ...] = ()
    breaks: tuple[Break, ...] = ()
    dropped: str | None = None
    recompiles: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    result: Any = field(default=None, repr=False, compare=False)

    @property
    def graph_count(self) -> int:
        return len(self.graphs)

    @property
    def graphs(self) -> tuple[str, ...]:
        """The text of each recorded graph that has operators."""
        return tuple(entry.graph for entry in self.entries if entry.nodes)

    @property
    def guards(self) -> tuple[str, ...]:
        """The guards of all entries, in order."""
        return tuple(guard for entry in self.entries for guard in entry.guards)

    @property
    def node_count(self) -> int:
        """Operators recorded, in all entries together."""
        return sum(entry.nodes for entry in self.entries)

    def __str__(self) -> str:
        counts = (
            _count(self.graph_count, "graph"),
            _count(self.node_count, "operator"),
            _count(len(self.guards), "guard"),
            _count(len(self.breaks), "break"),
        )
        lines = [f"{self.name}: {', '.join(counts)}"]
        if self.dropped is not None:
            lines.append(f"not kept: {self.dropped}")
        for number, found in enumerate(self.breaks, 1):
            lines += [f"break {number}:", *_indented(str(found))]
        lines += [f"recorded again: {why}" for why in self.recompiles]
        lines += [f"not recorded {why}" for why in self.skipped]
        for number, entry in enumerate(self.entries, 1):
            lines += [f"entry {number}, used {_count(entry.hits, 'time')}:", *_indented(entry.graph)]
            if entry.frames:
                cost = f"{_count(entry.frames, 'frame')} and {_count(entry.slots, 'value')}"
                lines.append(f"  up to a break: restores {cost}")
            lines += [f"  {_count(len(entry.guards), 'guard')}:"]
            lines += ["    " + guard for guard in entry.guards]
        return "\n".join(lines)


def explain(fn: Callable[..., Any]) -> Callable[..., Explanation]:
    """`explain(fn)(*args, **kwargs)` runs `fn` once, recording it afresh, and returns an `Explanation`.

    `fn` may be any callable or module that `flashpoint.compile` takes, compiled already or not; what was
    compiled before is left alone. The call is a real one, with its effects; its result is in `.result`.

    Raises what `flashpoint.compile` raises for a wrong `fn`, and whatever the call itself raises.
    """
    compiled = wrap(fn, {"store": False})

    def call(*args: Any, **kwargs: Any) -> Explanation:
        core_of(compiled).reset()
        with config.patch(measure_breaks=True):
            result = compiled(*args, **kwargs)
        return inspect_compiled(compiled, result)

    return call


def core_of(compiled: Any) -> _C.CompiledFunction:
    """The native callable inside what `flashpoint.compile` returned.

    Raises TypeError for anything else.
    """
    core = compiled.forward if isinstance(compiled, OptimizedModule) else compiled
    core = getattr(core, "__func__", core)  # a method that was decorated
    if not isinstance(core, _C.CompiledFunction):
        raise TypeError(f"[flashpoint.explain] {type(compiled).__name__} is not compiled by Flashpoint")
    return core


def inspect_compiled(compiled: Any, result: Any = None) -> Explanation:
    """An `Explanation` of something already compiled, without calling it.

    Raises TypeError if Flashpoint did not compile it.
    """
    core = core_of(compiled)
    report = core.last_report()
    return Explanation(
        name=_name(compiled),
        entries=tuple(Entry(**{**entry, "guards": tuple(entry["guards"])}) for entry in core.entries()),
        breaks=tuple(Break(**found) for found in report["breaks"]) if report else (),
        dropped=report["dropped"] if report and not report["kept"] else None,
        recompiles=tuple(report["recompiles"]) if report else (),
        skipped=tuple(report["skipped"]) if report else (),
        result=result,
    )


def _name(compiled: Any) -> str:
    if isinstance(compiled, torch.nn.Module):
        return type(compiled._orig_mod).__name__
    return getattr(compiled, "__qualname__", None) or type(compiled.__wrapped__).__name__


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _indented(text: str) -> list[str]:
    return ["  " + line for line in text.splitlines()]
