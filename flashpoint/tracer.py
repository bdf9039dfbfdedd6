"""The switch between tensor operators and the tracer, per thread, as ATen/TracerMode.h has it.

An operator is recorded only while all of these hold: a recording is under way on this thread, the switch is
on (`set_dispatch_enabled`), and no `NoTracerDispatchMode` is entered. Recordings turn the switch on
themselves; these functions are for those who build on the tracer. Threads start with the switch off.
"""

from __future__ import annotations

import contextlib

from flashpoint import _C
from flashpoint._C import is_dispatch_enabled, set_dispatch_enabled

__all__ = ["NoTracerDispatchMode", "is_dispatch_enabled", "set_dispatch_enabled"]


class NoTracerDispatchMode(_C.NoTracerDispatchMode, contextlib.ContextDecorator):
    """Context manager and decorator: what this thread runs inside is not recorded.

    For tensor work that must not appear in a graph. It nests, one object may be entered several times, and
    whatever leaves the block leaves the mode. Inside, `is_dispatch_enabled()` is False and
    `set_dispatch_enabled` raises RuntimeError. An object belongs to the thread that entered it; leaving it on
    another raises RuntimeError.
    """
