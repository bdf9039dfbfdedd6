"""Nodes that set what operators run under: grad mode, inference mode, autocast, backends' switches."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Graph
from torch.fx import Node as FxNode

from flashpoint import _C
from flashpoint.fx.exported import State

_DEVICES = ("cpu", "cuda", "xpu", "mps")


def entry_state() -> tuple[bool, bool, dict[str, torch.dtype]]:
    """Grad mode, inference mode and autocast of this thread: what a run of the graph starts under."""
    autocast = {
        device: torch.get_autocast_dtype(device) for device in _DEVICES if torch.is_autocast_enabled(device)
    }
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), autocast


def switch_flags(flags: int) -> int:
    """Sets the process-wide switches that a recording names, and returns those that were set."""
    return _C.switch_global_flags(flags)


class Regions:
    """Keeps track of the state while nodes are added to a graph, and adds the nodes that change it."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._grad, self._inference, self._autocast = entry_state()
        self._now_grad = self._grad
        self._now: State | None = None
        self._open_inference: FxNode | None = None
        self._open_autocast: list[FxNode] = []
        self._autocast_now = (self._autocast, True)
        self._flags_before: FxNode | None = None
        self._flags_now: int | None = None

    def enter(self, state: State) -> None:
        """Before a node that ran under `state`."""
        if state is self._now:
            return
        self._now = state
        self._set_inference(state.inference)
        self._set_autocast(dict(state.autocast), state.autocast_cache)
        self._set_grad(state.grad)
        self._set_flags(state.flags)

    def leave(self) -> None:
        """Behind the last node: back to what the run started under."""
        self._set_flags(None)
        self._set_autocast(self._autocast, True)
        self._set_inference(self._inference)
        self._set_grad(self._grad)

    def _call(self, target: Any, *args: Any) -> FxNode:
        return self._graph.call_function(target, args)

    def _set_grad(self, grad: bool) -> None:
        if grad != self._now_grad:
            self._call(torch._C._set_grad_enabled, grad)
            self._now_grad = grad

    def _set_inference(self, inference: bool) -> None:
        is_open = self._open_inference is not None
        if inference == (self._inference ^ is_open):
            return
        # Inference mode sets the grad mode along with it, in both directions.
        self._set_autocast(self._autocast, True)
        if self._open_inference is not None:
            self._call(torch.autograd.grad_mode._exit_inference_mode, self._open_inference)
            self._open_inference = None
            self._now_grad = self._grad_before
            return
        self._grad_before = self._now_grad
        self._open_inference = self._call(torch.autograd.grad_mode._enter_inference_mode, inference)
        self._now_grad = not inference

    def _set_autocast(self, autocast: dict[str, torch.dtype], cache: bool) -> None:
        if not autocast and not self._autocast:
            cache = True  # without autocast it means nothing
        if (autocast, cache) == self._autocast_now:
            return
        self._autocast_now = (autocast, cache)
        for region in reversed(self._open_autocast):
            self._call(torch.amp.autocast_mode._exit_autocast, region)
        self._open_autocast = []
        if autocast == self._autocast and cache:
            return
        enter = torch.amp.autocast_mode._enter_autocast
        for device, dtype in autocast.items():
            if self._autocast.get(device) is not dtype or not cache:
                self._open_autocast.append(self._call(enter, device, dtype, True, cache))
        for device in self._autocast:
            if device not in autocast:
                self._open_autocast.append(self._call(enter, device, None, False, cache))

    def _set_flags(self, flags: int | None) -> None:
        if flags == self._flags_now:
            return
        if flags is None:
            self._call(switch_flags, self._flags_before)
            self._flags_before = None
        else:
            before = self._call(switch_flags, flags)
            self._flags_before = self._flags_before or before
        self._flags_now = flags
