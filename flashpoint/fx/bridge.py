"""Calls a backend of torch.compile with a recorded graph."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import logging
import os
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._dynamo.exc import BackendCompilerFailed, ShortenTraceback, SkipFrame
from torch._guards import CompileContext, CompileId, TracingContext, compile_context, tracing
from torch._subclasses.fake_tensor import FakeTensorMode

from flashpoint.fx import fakes, graph_module
from flashpoint.fx.background import LaterProgram
from flashpoint.fx.exported import Exported, read

_log = logging.getLogger("flashpoint")
_graph_numbers = itertools.count()


class GraphCompiler:
    """What the core calls at the end of a recording; `backend` takes `(GraphModule, example inputs)`.

    background: in a thread, while the recorded operators run.
    """

    def __init__(self, backend: Callable[..., Any], background: bool = False) -> None:
        self.backend = backend
        self.background = background
        self.name = getattr(backend, "__name__", None) or getattr(backend, "compiler_name", "?")

    # A copy of a compiled module has the same backend, counters of it included.
    def __deepcopy__(self, memo: dict[int, Any]) -> GraphCompiler:
        return self

    def __call__(self, raw: dict[str, Any]) -> Callable[..., Any] | None:
        """The callable that runs the graph; None where the recorded operators are to run instead.

        Raises:
            BackendCompilerFailed: the backend raised, or returned what cannot be called.
        """
        exported = read(raw)
        mode = fakes.new_mode()
        compile_id = CompileId(frame_id=next(_graph_numbers), frame_compile_id=0)
        context = TracingContext(mode)
        with _random_state_kept(), _compiling(context, compile_id):
            built = self._build(exported, mode)
            if built is None:
                return None
            if _wants_graph_code():
                print(built[0].print_readable(print_output=False), file=sys.stderr)
            if not self.background:
                return self._compile(*built)

        def compile_graph() -> Callable[..., Any] | None:
            with _compiling(context, compile_id):
                return self._compile(*built)

        return LaterProgram(self.name, compile_graph)

    def _build(
        self, exported: Exported, mode: FakeTensorMode
    ) -> tuple[torch.fx.GraphModule, list[Any]] | None:
        try:
            return graph_module.build(exported, mode)
        except graph_module.NotConvertible as reason:
            _log.info("graph %s is not handed to backend %s: %s", exported.name, self.name, reason)
        except Exception as error:  # a defect of ours
            if os.environ.get("FLASHPOINT_STRICT") == "1":
                raise
            _log.warning("graph %s is not handed to backend %s: %r", exported.name, self.name, error)
        return None

    def _compile(self, module: torch.fx.GraphModule, examples: list[Any]) -> Callable[..., Any] | None:
        try:
            compiled = self.backend(module, examples)
            if not callable(compiled):
                raise AssertionError(
                    f"[flashpoint.compile] backend {self.name} must return a callable, "
                    f"not {type(compiled).__name__}"
                )
            return compiled
        except SkipFrame:
            return None
        except Exception as error:
            if torch._dynamo.config.suppress_errors:
                _log.warning("backend %s failed, the operators run instead: %s", self.name, error)
                return None
            if isinstance(error, (ShortenTraceback, IndexError)):
                raise
            raise BackendCompilerFailed(self.backend, error, inspect.currentframe()).with_traceback(
                error.__traceback__
            ) from None


@functools.cache
def _wants_graph_code() -> bool:
    return any(
        "graph_code" in os.environ.get(variable, "").split(",")
        for variable in ("FLASHPOINT_LOG", "TORCH_LOGS")
    )


@contextlib.contextmanager
def _compiling(context: TracingContext, compile_id: CompileId) -> Iterator[None]:
    with tracing(context), compile_context(CompileContext(compile_id)):
        yield


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """Compiling draws no random numbers that the program would miss."""
    python, native = random.getstate(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        torch.set_rng_state(native)
