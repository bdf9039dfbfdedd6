"""Which nested tracer a thread is in: `current_scope_id()` and `enter_new_scope()`.

The meaning is that of torch/_dynamo/current_scope_id.py; the number itself is kept by the core.
"""

from __future__ import annotations

import contextlib

from flashpoint import _C
from flashpoint._C import current_scope_id

__all__ = ["current_scope_id", "enter_new_scope"]


class _NewScope(_C.EnterScope, contextlib.ContextDecorator):
    def _recreate_cm(self) -> _NewScope:
        return _NewScope()  # a decorated function enters a scope of its own in each call


def enter_new_scope() -> _NewScope:
    """A context manager in which `current_scope_id()` is one higher on this thread.

    The number goes back when the block is left, exceptions included. `as` gives None. Each call is good for
    one `with`, or for one function when used as a decorator.
    """
    return _NewScope()
