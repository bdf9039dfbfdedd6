"""`flashpoint.install`: torch.compile and nn.Module.compile compile with Flashpoint."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from flashpoint import _C
from flashpoint.compiling import compile as flashpoint_compile
from flashpoint.dynamo_counters import count
from flashpoint.importing import when_imported
from flashpoint.state import reset

# What install() replaced; empty while it is not installed.
_replaced: dict[str, Any] = {}
# Whether torch._dynamo.optimize asks, once TorchDynamo is imported, if install() is in force.
_routes_optimize = False


def _belongs_to_an_operator(model: Any) -> bool:
    """Higher-order operators compile what they call in eager mode, for backends of their own."""
    module = str(getattr(model, "__module__", ""))
    if module.startswith("torch.nn.attention."):
        return "<locals>" in getattr(model, "__qualname__", "")  # and not flex_attention itself
    return module.startswith("torch._higher_order_ops.")


def install(backend: str | Callable[..., Any] = "native") -> None:
    """From now on `torch.compile`, and with it `nn.Module.compile`, is `flashpoint.compile`, also where it is
    spelled `torch._dynamo.optimize`; `torch.compiler.reset` resets Flashpoint too, and
    `torch._dynamo.utils.counters` counts frames, graphs and graph breaks of Flashpoint's as well.

    What was compiled before stays as it is. Installing again only sets the backend.

    Args:
        backend: for calls that name none. A backend that is named is used as named.
    """
    if not _replaced:
        _replaced["compile"] = torch.compile
        _replaced["reset"] = torch.compiler.reset
    original, original_reset = _replaced["compile"], _replaced["reset"]

    @functools.wraps(original)
    def compile(
        model: Any = None,
        *,
        fullgraph: bool = False,
        dynamic: bool | None = None,
        backend: Any = backend,
        mode: str | None = None,
        options: dict[str, Any] | None = None,
        **rest: Any,
    ) -> Any:
        chosen = original if _belongs_to_an_operator(model) else flashpoint_compile
        if chosen is flashpoint_compile and backend in ("eager", "native"):
            mode, options = None, None  # they choose how inductor generates code
        return chosen(
            model,
            fullgraph=fullgraph,
            dynamic=dynamic,
            backend=backend,
            mode=mode,
            options=options,
            **rest,
        )

    @functools.wraps(original_reset)
    def reset_both() -> None:
        original_reset()
        reset()

    _C.set_recording_hook(count)
    torch.compile = compile  # type: ignore[assignment]
    torch.compiler.reset = reset_both
    global _routes_optimize
    if not _routes_optimize:
        _routes_optimize = True
        when_imported("torch._dynamo", _wrap_optimize)


def _wrap_optimize(dynamo: Any) -> None:
    """Routes torch._dynamo.optimize and optimize_assert, older spellings of torch.compile as a decorator."""

    def routed(original: Callable[..., Any], renamed: dict[str, str], fixed: dict[str, Any]) -> Any:
        @functools.wraps(original)
        def optimize(backend: Any = None, **options: Any) -> Any:
            own = {renamed[name]: value for name, value in options.items() if name in renamed}
            chosen = {} if backend is None else {"backend": backend}
            asked_by_torch = sys._getframe(1).f_globals.get("__name__", "").split(".")[0] == "torch"
            # torch's own compilations stay, and so do those that hook into TorchDynamo.
            if not _replaced or asked_by_torch or len(own) != len(options):
                return original(**chosen, **options)
            return functools.partial(torch.compile, **chosen, **own, **fixed)

        return optimize

    same = {name: name for name in ("dynamic", "recompile_limit", "isolate_recompiles")}
    either = {**same, "nopython": "fullgraph", "disable": "disable"}
    dynamo.optimize = routed(dynamo.optimize, either, {})
    dynamo.optimize_assert = routed(dynamo.optimize_assert, same, {"fullgraph": True})


def uninstall() -> None:
    """`torch.compile` is torch's own again. What was compiled meanwhile stays compiled."""
    if _replaced:
        torch.compile = _replaced.pop("compile")
        torch.compiler.reset = _replaced.pop("reset")
        _C.set_recording_hook(None)


@contextmanager
def installed(backend: str | Callable[..., Any] = "native") -> Iterator[None]:
    """`install` for the duration of a `with` block."""
    was_installed = bool(_replaced)
    before = torch.compile, torch.compiler.reset
    install(backend)
    try:
        yield
    finally:
        if was_installed:
            torch.compile, torch.compiler.reset = before
        else:
            uninstall()
