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

from flashpoint import _C, backends
from flashpoint.optimized_module import OptimizedModule, unwrap

_F = TypeVar("_F", bound=Callable[..., Any])


@overload
def compile(
    model: None = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str | Callable[..., Any] = "native",
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    name: str | None = None,
    disable: bool = False,
    recompile_limit: int | None = None,
    isolate_recompiles: bool = False,
    shapes_spec: Any = None,
) -> Callable[[_F], _F]: ...


@overload
def compile(
    model: _F,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str | Callable[..., Any] = "native",
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    name: str | None = None,
    disable: bool = False,
    recompile_limit: int | None = None,
    isolate_recompiles: bool = False,
    shapes_spec: Any = None,
) -> _F: ...


def compile(
    model: Callable[..., Any] | None = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str | Callable[..., Any] = "native",
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    name: str | None = None,
    disable: bool = False,
    recompile_limit: int | None = None,
    isolate_recompiles: bool = False,
    shapes_spec: Any = None,
) -> Any:
    """A callable that records its first call and replays the recording on later ones.

    Args:
        model: a function, bound method, other callable or `nn.Module`. Left out, a decorator is returned.
        fullgraph: raise where a graph break would be. The error comes before the breaking instruction runs;
            effects of the instructions before it stand.
        dynamic: None, True or False: a hint. In this version every new input shape is recorded anew.
        backend: "native", which generates code for what it can on CPU, once that pays, and replays the rest;
            "eager", which replays the recorded operators, bit for bit; a name of
            `torch.compiler.list_backends(exclude_tags=None)`; or a callable that takes
            `(torch.fx.GraphModule, example_inputs)` and returns a callable. That one takes the graph's inputs
            and returns a tuple or list of its outputs.
        mode: for backend="inductor" one of torch.compile's modes; not together with `options`.
        options: for backend="inductor" its settings; for a callable backend whatever it takes as `options`.
            {"background": True} beside them has any backend but our own two compile in a thread, while calls
            run the recorded operators (`flashpoint.wait_for_backends`).
        name: what logs and warnings call it, instead of its qualified name.
        disable: return `model` itself.
        recompile_limit: recordings it may keep, 1 or more; None: `flashpoint.config.recompile_limit`, or
            torch._dynamo.config's where that one was not set. Beyond it, calls that no recording fits run
            eagerly after one warning; with `fullgraph` they raise.
        isolate_recompiles: accepted; what one call of `compile` records is always its own.
        shapes_spec: accepted; as for `dynamic`, every new input shape is recorded anew.

    Returns:
        For a module an `OptimizedModule`; otherwise a native callable that carries the function's name,
        docstring and signature, and binds as a method where a function would.

    Raises:
        NotImplementedError: `model` is a class, or a mode that the backend does not have.
        TypeError: an argument of the wrong type.
        ValueError: an unknown option.
        RuntimeError: mode and options together, or one that inductor does not know.
        torch._dynamo.exc.InvalidBackend: no backend of that name.

    A graph break with `fullgraph` raises torch._dynamo.exc.Unsupported, a RuntimeError; another recording
    while torch._dynamo.config.error_on_recompile is set raises torch._dynamo.exc.RecompileError.
    A call beyond `recompile_limit` raises torch._dynamo.exc.FailOnRecompileLimitHit with `fullgraph`.
    A call raises torch._dynamo.exc.BackendCompilerFailed when the backend does, as with torch.compile; with
    torch._dynamo.config.suppress_errors the recorded operators run instead.
    """
    _check_arguments(fullgraph, dynamic, backend, mode, options, disable)
    _check_limits(name, recompile_limit, isolate_recompiles)
    core_options = backends.core_options(backend, mode, options, dynamic)
    if name is not None:
        core_options["name"] = name
    if recompile_limit is not None:
        core_options["recompile_limit"] = recompile_limit
    if fullgraph:
        core_options["fullgraph"] = True

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
    if not isinstance(backend, str) and not callable(backend):
        raise TypeError(
            f"[flashpoint.compile] backend must be a string or a callable, not {type(backend).__name__}"
        )
    if options is not None and not isinstance(options, dict):
        raise TypeError(f"[flashpoint.compile] options must be a dict or None, not {type(options).__name__}")
    if mode is not None and options is not None:
        raise RuntimeError("[flashpoint.compile] mode and options cannot both be given")
    if backend not in backends.OWN:
        return
    if mode is not None:
        raise NotImplementedError(
            f"[flashpoint.compile] mode={mode!r} means nothing to backend={backend!r}: modes choose how a "
            "backend generates code. Leave mode out"
        )
    if options:
        raise ValueError(
            f"[flashpoint.compile] unknown options: {', '.join(map(str, options))}. backend={backend!r} has "
            "none; settings of the process are in flashpoint.config"
        )


def _check_limits(name: object, recompile_limit: object, isolate_recompiles: object) -> None:
    if name is not None and not isinstance(name, str):
        raise TypeError(f"[flashpoint.compile] name must be a string or None, not {name!r}")
    if not isinstance(isolate_recompiles, bool):
        raise TypeError(
            f"[flashpoint.compile] isolate_recompiles must be True or False, not {isolate_recompiles!r}"
        )
    if recompile_limit is None:
        return
    if isinstance(recompile_limit, bool) or not isinstance(recompile_limit, int):
        raise TypeError(
            f"[flashpoint.compile] recompile_limit must be an int or None, not {recompile_limit!r}"
        )
    if not 1 <= recompile_limit < 2**31:
        raise ValueError(f"[flashpoint.compile] recompile_limit must be 1 or more, not {recompile_limit}")
