"""`flashpoint.compile`: checks its arguments, chooses what the core gets to see, wraps modules.

Signature and meaning follow torch.compile of torch 2.13 (torch/__init__.py).
"""

from __future__ import annotations

import copyreg
import functools
import operator
import types
from collections.abc import Callable
from typing import Any, TypeVar, overload

import torch

from flashpoint import _C
from flashpoint.optimized_module import OptimizedModule, unwrap

_BACKENDS = ("eager", "native")
_F = TypeVar("_F", bound=Callable[..., Any])


@overload
def compile(
    model: None = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str = "eager",
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    disable: bool = False,
) -> Callable[[_F], _F]: ...


@overload
def compile(
    model: _F,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str = "eager",
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    disable: bool = False,
) -> _F: ...


def compile(
    model: Callable[..., Any] | None = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str = "eager",
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    disable: bool = False,
) -> Any:
    """A callable that records its first call and replays the recording on later ones.

    Args:
        model: a function, bound method, other callable or `nn.Module`. Left out, a decorator is returned.
        fullgraph: raise where a graph break would be. The error comes before the breaking instruction runs;
            effects of the instructions before it stand.
        dynamic: None or False. Every new input shape is recorded anew.
        backend: "eager", which replays the recorded operators, or "native", which generates code for what
            it can on CPU and replays the rest.
        mode: must be None.
        options: must be None or empty.
        disable: return `model` itself.

    Returns:
        For a module an `OptimizedModule`; otherwise a native callable that carries the function's name,
        docstring and signature, and binds as a method where a function would.

    Raises:
        NotImplementedError: an argument that torch.compile has and this version does not.
        TypeError: an argument of the wrong type.
        ValueError: an unknown option.
    """
    _check_arguments(fullgraph, dynamic, backend, mode, options, disable)
    core_options: dict[str, Any] = {"fullgraph": True} if fullgraph else {}
    if backend != "eager":
        core_options["backend"] = backend

    def decorate(target: Any) -> Any:
        if disable and callable(target):
            return target
        return wrap(target, core_options)

    return decorate if model is None else decorate(model)


def wrap(target: Any, core_options: dict[str, Any]) -> Any:
    """The compiled form of a callable or module; one that is compiled already is compiled anew, not twice."""
    if isinstance(target, torch.nn.Module):
        return OptimizedModule(unwrap(target), core_options)
    original = _innermost(_check_callable(target))
    compiled = _C.CompiledFunction(_with_python_frame(original), core_options)
    # As for any function: a copy is the function itself, a pickle holds the name under which it is found.
    copyreg.pickle(_C.CompiledFunction, operator.attrgetter("__qualname__"))
    # A function's own attributes go along, as functools.wraps does it; those of an object with __call__ are
    # its state, which stays where it is.
    is_function = isinstance(original, (types.FunctionType, types.MethodType))
    return functools.update_wrapper(compiled, original, updated=("__dict__",) if is_function else ())


def _innermost(fn: Any) -> Any:
    """What a compiled function was made from; for a method, bound to the same object."""
    if isinstance(fn, types.MethodType) and isinstance(fn.__func__, _C.CompiledFunction):
        return types.MethodType(_innermost(fn.__func__), fn.__self__)
    while isinstance(fn, _C.CompiledFunction):
        fn = fn.__wrapped__
    return fn


def _with_python_frame(fn: Any) -> Any:
    """A callable that runs as a Python frame, which is what the core records: `fn` itself where it does."""
    if isinstance(fn, types.FunctionType):
        return fn
    if isinstance(fn, types.MethodType) and isinstance(fn.__func__, types.FunctionType):
        return fn
    if isinstance(type(fn).__call__, types.FunctionType):
        return fn.__call__

    def call(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return call


def _check_callable(target: Any) -> Any:
    if isinstance(target, type):
        raise NotImplementedError(
            f"[flashpoint.compile] classes are not compiled; compile an instance of {target.__name__}, "
            "or decorate its method"
        )
    if not callable(target):
        raise TypeError(f"[flashpoint.compile] takes a callable or an nn.Module, not {type(target).__name__}")
    return target


def _check_arguments(
    fullgraph: object, dynamic: object, backend: object, mode: object, options: object, disable: object
) -> None:
    for name, value in (("fullgraph", fullgraph), ("disable", disable)):
        if not isinstance(value, bool):
            raise TypeError(f"[flashpoint.compile] {name} must be True or False, not {value!r}")
    if dynamic is not None and not isinstance(dynamic, bool):
        raise TypeError(f"[flashpoint.compile] dynamic must be None, True or False, not {dynamic!r}")
    if dynamic:
        raise NotImplementedError(
            "[flashpoint.compile] dynamic=True is not supported in this version: every new shape is recorded "
            "anew. Leave dynamic out, and raise flashpoint.config.recompile_limit if many shapes occur"
        )
    if not isinstance(backend, str) and not callable(backend):
        raise TypeError(f"[flashpoint.compile] backend must be a string, not {type(backend).__name__}")
    if backend not in _BACKENDS:
        name = repr(backend) if isinstance(backend, str) else getattr(backend, "__name__", repr(backend))
        raise NotImplementedError(
            f"[flashpoint.compile] backend {name} is not supported in this version; "
            'use backend="eager" or "native", or leave it out'
        )
    if mode is not None:
        raise NotImplementedError(
            f"[flashpoint.compile] mode={mode!r} is not supported in this version: modes choose how a "
            'backend generates code, and backend="eager" generates none. Leave mode out'
        )
    if options is not None and not isinstance(options, dict):
        raise TypeError(f"[flashpoint.compile] options must be a dict or None, not {type(options).__name__}")
    if options:
        raise ValueError(
            f"[flashpoint.compile] unknown options: {', '.join(map(str, options))}. This version has none; "
            "settings of the process are in flashpoint.config"
        )
