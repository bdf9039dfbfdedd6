"""What the process as a whole has compiled: counters, and forgetting it."""

from __future__ import annotations

from flashpoint import _C


def counters() -> dict[str, int]:
    """What Flashpoint has done in this process since the start or the last `reset_counters()`.

    Returns a new dict from a counter's name (`hits`, `misses`, `captures_kept`, ...) to its count.
    """
    return dict(_C.counters())


def reset_counters() -> None:
    """Set every counter to zero; what is compiled stays."""
    _C.reset_counters()


def reset() -> None:
    """Forget everything that was compiled in this process; the next call of each function records anew.

    Compiled functions and modules stay usable. Counters and `flashpoint.config` keep their values.
    """
    _C.reset_all()
