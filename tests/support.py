"""What the Python tests share: one program, run eagerly and compiled, must do the same.

    check_calls(source, ["x, 2", "x, 2", Call("x, 3", expect=".")])

`source` defines `fn` (see tests.world.PRELUDE for the names it finds). The calls run in two worlds, one
eager and one compiled; results, mutations, exceptions, output, random state and global modes must be equal
after every call.

Counters are checked per call by one letter of `expect` (or of `Call.expect`):
    k  a recording started and was kept          h  answered by an entry, no recording started
    H  if the call before it was kept or hit, as h; otherwise nothing is expected
    m  no entry answered                         .  nothing is expected
With FLASHPOINT_FAKE=1 a stand-in that runs eagerly takes the package's place and the letters are not checked.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from tests import WITH_STORE, fake
from tests.describe import difference
from tests.world import Call, Outcome, run

FAKE = os.environ.get("FLASHPOINT_FAKE") == "1"
if FAKE:
    flashpoint: Any = fake.Identity()
else:
    import flashpoint

__all__ = ["FAKE", "Call", "Mismatch", "check_calls", "flashpoint"]


class Mismatch(AssertionError):
    """The compiled run did something that the eager run did not."""

    def __init__(self, message: str, call: int) -> None:
        super().__init__(message)
        self.call = call


def _hit(counters: dict[str, int]) -> bool:
    return counters.get("hits", 0) > 0 and counters.get("captures_started", 0) == 0


def check_counters(letters: Sequence[str], outcomes: list[Outcome]) -> str | None:
    """The first call whose counters are not what its letter says, in words."""
    warm = False
    for index, (letter, outcome) in enumerate(zip(letters, outcomes, strict=True)):
        counters = outcome.counters
        kept, hit = counters.get("captures_kept", 0) > 0, _hit(counters)
        good = {"k": kept, "h": hit, "H": hit or not warm, "m": not hit, ".": True}[letter]
        if not good:
            changed = {k: v for k, v in counters.items() if v}
            return f"call {index}: expected {letter!r}, but its counters were {changed}"
        # A call that both kept an entry and broke elsewhere gives no promise for the next.
        warm = (kept and counters.get("captures_dropped", 0) == 0) or hit
    return None


def _counters(package: Any) -> dict[str, int]:
    if WITH_STORE and package is flashpoint:  # while the program's modules are there
        flashpoint._C._recordings_write()
    return package.counters()


def _first_difference(eager: list[Outcome], compiled: list[Outcome]) -> int | None:
    for index, (left, right) in enumerate(zip(eager, compiled, strict=True)):
        if left.lines != right.lines:
            return index
    return None


def compare(
    source: str,
    calls: Sequence[Call],
    package: Any,
    *,
    backend: str = "eager",
    watch: str = "each",
    seed: int = 0,
    eager: list[Outcome] | None = None,
) -> list[Outcome]:
    """Runs both worlds, raises Mismatch at the first difference, returns the compiled run's outcomes."""
    eager = eager if eager is not None else run(source, calls, watch=watch, seed=seed)
    package.reset()
    compiled = run(
        source,
        calls,
        lambda fn: package.compile(fn, backend=backend),
        counters=lambda: _counters(package),
        watch=watch,
        seed=seed,
    )
    if _first_difference(eager, compiled) is None:
        return compiled
    # What only the first run of a process does (a warning given once) may be missing in the compiled run.
    eager = run(source, calls, watch=watch, seed=seed)
    for index, (left, right) in enumerate(zip(eager, compiled, strict=True)):
        found = difference(left.lines, right.lines)
        if found is not None:
            script = "\n".join(
                f"    {'>' if i == index else ' '} {c.pre + '; ' if c.pre else ''}fn({c.args})"
                for i, c in enumerate(calls)
            )
            raise Mismatch(f"call {index} differs:\n  {found}\n  calls:\n{script}\n{source}", index)
    return compiled


def check_calls(
    source: str,
    calls: Sequence[Call | str],
    *,
    expect: str = "",
    backend: str = "eager",
    watch: str = "each",
    package: Any = None,
) -> list[Outcome]:
    """Runs the same calls eagerly and compiled and asserts that nothing differs; then the counters.

    `package` replaces flashpoint (tests of the oracle). Returns the compiled run's outcomes.
    """
    steps = [call if isinstance(call, Call) else Call(call) for call in calls]
    outcomes = compare(source, steps, package or flashpoint, backend=backend, watch=watch)
    if not FAKE and not WITH_STORE and package is None:
        letters = list(expect) if expect else [call.expect or "." for call in steps]
        found = check_counters(letters, outcomes)
        assert found is None, f"{found}\n{source}"
    return outcomes


def differing(source: str, calls: Sequence[Call], first: int, second: int) -> bool:
    """Whether eager itself gives different answers at two of the calls."""
    outcomes: list[Outcome] = run(source, calls)
    return outcomes[first].shown() != outcomes[second].shown()
