"""What code says about its own compilation: break here, never record this."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from typing import Any, TypeVar, overload

import torch

from flashpoint import _C
from flashpoint.importing import when_imported

_F = TypeVar("_F", bound=Callable[..., Any])


def graph_break(msg: str = "") -> None:
    """End the recording here and begin another behind; `msg` is for the reader of the code.

    Does nothing when it is called outside a recording. With fullgraph=True it raises RuntimeError.
    `torch._dynamo.graph_break` means the same.
    """


@overload
def disable(fn: None = None, recursive: bool = True, *, reason: str | None = None) -> Callable[[_F], _F]: ...


@overload
def disable(fn: _F, recursive: bool = True, *, reason: str | None = None) -> _F: ...


def disable(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """A function that is never recorded: a call of it is a graph break, and it runs eagerly.

    Args:
        fn: a function, method or `nn.Module`. Left out, a decorator is returned. A module is changed in
            place: its `forward` is replaced by a disabled one.
        recursive: True: compiled functions that it calls run eagerly as well. False: they replay and record
            as ever.
        reason: why, shown with the break.

    Raises:
        TypeError: `fn` is neither callable nor a module, or a class.

    `torch.compiler.disable` is honoured in the same way.
    """
    if fn is None:
        return functools.partial(disable, recursive=recursive, reason=reason)
    if isinstance(fn, torch.nn.Module):
        fn.forward = disable(fn.forward, recursive, reason=reason)
        return fn
    if isinstance(fn, type) or not callable(fn):
        raise TypeError(f"[flashpoint.disable] takes a function, a method or an nn.Module, not {fn!r}")

    def call(*args: Any, **kwargs: Any) -> Any:
        if not recursive:
            return fn(*args, **kwargs)
        _C.enter_disabled()
        try:
            return fn(*args, **kwargs)
        finally:
            _C.leave_disabled()

    functools.update_wrapper(call, fn)
    call._flashpoint_disable = reason or True  # type: ignore[attr-defined]
    return call


def allow_in_graph(fn: _F) -> _F:
    """`fn` itself. Recordings follow a function into whatever it calls, so there is little to allow:
    `graph_break()` does nothing below a Python function that is marked so.

    Raises:
        TypeError: `fn` is not callable.

    `torch._dynamo.allow_in_graph` means the same.
    """
    if not callable(fn):
        raise TypeError(f"[flashpoint.allow_in_graph] takes a callable, not {type(fn).__name__}")
    if isinstance(fn, types.FunctionType):
        fn._flashpoint_allow_in_graph = True  # type: ignore[attr-defined]
    return fn


def assume_constant_result(fn: _F) -> _F:
    """Declares that the function always gives the same result: a recording calls it once, watches nothing of
    what it does, and keeps the result as a constant.

    Raises:
        TypeError: `fn` is not callable.

    `torch.compiler.assume_constant_result` means the same.
    """
    if not callable(fn):
        raise TypeError(f"[flashpoint.assume_constant_result] takes a callable, not {type(fn).__name__}")
    fn._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return fn


def substitute_in_graph(original: Callable[..., Any]) -> Callable[[_F], _F]:
    """Decorates a function that recordings call in place of `original`, which they cannot follow.

    Args:
        original: a function that gives the same results, with the same effects. Outside recordings it is
            called as ever. Nothing undoes this.

    Raises:
        TypeError: one of the two is not callable, or `original` is a class.

    `torch.compiler.substitute_in_graph` means the same.
    """
    if isinstance(original, type) or not callable(original):
        raise TypeError(f"[flashpoint.substitute_in_graph] takes a function, not {original!r}")

    def decorate(replacement: _F) -> _F:
        if not callable(replacement):
            raise TypeError(f"[flashpoint.substitute_in_graph] decorates a function, not {replacement!r}")
        _C.substitute(original, replacement)
        return replacement

    return decorate


def follow_torch() -> None:
    """From now on what torch.compiler.substitute_in_graph is told holds here too, but for torch's own."""
    when_imported("torch._dynamo.decorators", _follow_substitutions)


def _follow_substitutions(decorators: Any) -> None:
    original_decorator = decorators.substitute_in_graph

    @functools.wraps(original_decorator)
    def substitute_in_graph(original_fn: Any, **options: Any) -> Any:
        decorate = original_decorator(original_fn, **options)

        def both(replacement: Any) -> Any:
            result = decorate(replacement)
            own = str(getattr(replacement, "__module__", "")).split(".")[0] == "torch"
            if not own and not isinstance(original_fn, type):
                _C.substitute(original_fn, replacement)
            return result

        return both

    decorators.substitute_in_graph = substitute_in_graph
    package = sys.modules.get("torch._dynamo")
    if package is not None and hasattr(package, "substitute_in_graph"):
        package.substitute_in_graph = substitute_in_graph  # type: ignore[attr-defined]
