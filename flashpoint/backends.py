"""Which backend `flashpoint.compile(backend=...)` names, and what the core is told of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# The core's own; all other names are those of torch.compiler.list_backends().
OWN = ("eager", "native")


def core_options(
    backend: str | Callable[..., Any],
    mode: str | None,
    options: dict[str, Any] | None,
    dynamic: bool | None,
) -> dict[str, Any]:
    """The core's options for a backend.

    Raises:
        torch._dynamo.exc.InvalidBackend: no backend of that name.
        RuntimeError: inductor has no such mode or option.
        TypeError: options["background"] is no bool.
    """
    if backend == "eager":
        return {}
    if backend == "native":
        return {"backend": backend}
    import torch

    from flashpoint.fx.bridge import GraphCompiler

    background = False
    if options and "background" in options:
        options = dict(options)
        background = options.pop("background")
        if not isinstance(background, bool):
            raise TypeError(
                f'[flashpoint.compile] options["background"] must be True or False, not {background!r}'
            )
        options = options or None
    if backend == "inductor":
        wrapped: Any = torch._TorchCompileInductorWrapper(mode, options, dynamic)
        wrapped.__name__ = "inductor"
    elif mode in (None, "default") and not options:
        from torch._dynamo.backends.registry import lookup_backend

        wrapped = lookup_backend(backend)
    else:
        wrapped = torch._TorchCompileWrapper(backend, mode, options, dynamic)
        wrapped.__name__ = wrapped.compiler_name
    return {"compiler": GraphCompiler(wrapped, background)}
