"""`torch.compile(..., backend="flashpoint")`: runs the graphs that TorchDynamo makes.

A graph is recorded when it first runs, on the real inputs, and replayed by the native backend from then on.
TorchDynamo guards what it specialized on; what it may leave open (sizes, with dynamic shapes) tells
recordings apart here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule

from flashpoint import _C

_MOST_RECORDINGS = 16


def flashpoint_backend(
    module: GraphModule,
    example_inputs: list[Any],
    *,
    mode: str | None = None,
    options: dict[str, Any] | None = None,
) -> Callable[..., Any]:
    """A backend for torch.compile.

    Args:
        options: {"backend": "native"} (the default) or {"backend": "eager"}, which replays the operators.

    Raises:
        ValueError: another option.
    """
    options = dict(options or {})
    backend = options.pop("backend", "native")
    if options or backend not in ("native", "eager"):
        raise ValueError(
            '[flashpoint] backend="flashpoint" has one option, "backend", which is "native" or "eager"'
        )
    return RecordedModule(module, native=backend == "native")


class RecordedModule:
    """A graph module that is recorded at its first run with inputs of a kind, and replayed at later ones."""

    def __init__(self, module: GraphModule, native: bool) -> None:
        self._module = module
        self._native = native
        # Tensors that the graph holds itself: known to recordings as inputs of theirs.
        self._held = [
            value
            for node in module.graph.find_nodes(op="get_attr")
            if isinstance(value := _attribute(module, node.target), torch.Tensor)
        ]
        self._recordings: dict[Any, _Recording | None] = {}

    def __call__(self, *inputs: Any) -> Any:
        key = (_state(), tuple(map(_kind, inputs)))
        if key in self._recordings:
            recording = self._recordings[key]
            return self._module(*inputs) if recording is None else recording.run(inputs, self._held)
        if len(self._recordings) >= _MOST_RECORDINGS or not _recordable(inputs):
            return self._module(*inputs)
        return self._record(key, inputs)

    def _record(self, key: Any, inputs: tuple[Any, ...]) -> Any:
        tensors = [t for t in (*inputs, *self._held) if isinstance(t, torch.Tensor)]
        graph, result = _C._graph_record(lambda *_: self._module(*inputs), *tensors)
        recording = None
        if graph.break_reason is None and isinstance(result, (tuple, list)):
            recording = _Recording(graph, result, inputs, self._native)
        self._recordings[key] = recording
        return result


class _Recording:
    def __init__(self, graph: Any, result: Any, inputs: tuple[Any, ...], native: bool) -> None:
        # Generated code takes it that no other input shares memory with one that is written to.
        self._run = graph.run_generated if native and not graph.mutated else graph.run
        # A tensor of the result is the graph's next output; anything else is a constant or an input's number.
        self._is_tensor = [isinstance(item, torch.Tensor) for item in result]
        self._constants = [None if isinstance(item, torch.Tensor) else item for item in result]

    def run(self, inputs: tuple[Any, ...], held: list[torch.Tensor]) -> Any:
        outputs = iter(self._run(*(t for t in (*inputs, *held) if isinstance(t, torch.Tensor))))
        return tuple(
            next(outputs) if tensor else constant
            for tensor, constant in zip(self._is_tensor, self._constants, strict=True)
        )


def _attribute(module: Any, target: str) -> Any:
    for part in target.split("."):
        module = getattr(module, part, None)
    return module


def _kind(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        strides = value.stride() if value.layout is torch.strided else None
        return (
            tuple(value.shape),
            strides,
            value.dtype,
            value.device,
            value.layout,
            value.requires_grad,
            value.is_leaf,
            value.is_conj(),
            value.is_neg(),
            value.is_inference(),
            type(value),
        )
    return type(value), value


def _recordable(inputs: tuple[Any, ...]) -> bool:
    plain = (torch.Tensor, torch.nn.Parameter)
    seen: set[int] = set()
    for value in inputs:
        if isinstance(value, torch.Tensor):
            if type(value) not in plain or id(value) in seen:
                return False
            seen.add(id(value))
        elif not isinstance(value, (int, float, bool)) and value is not None:
            return False
    return True


def _state() -> Any:
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu"),
        torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda"),
        torch.is_autocast_cache_enabled(),
        torch.get_default_dtype(),
        _C.global_flags(),
    )
