"""Backends for tests: what they were handed, and what they made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

import flashpoint


class Recording:
    """A backend that runs the graph as it is and keeps what it was called with."""

    __name__ = "recording"

    def __init__(self) -> None:
        self.modules: list[fx.GraphModule] = []
        self.examples: list[list[Any]] = []
        self.contexts: list[Any] = []
        self.runs = 0

    def __call__(self, module: fx.GraphModule, examples: list[Any]) -> Callable[..., Any]:
        self.modules.append(module)
        self.examples.append(list(examples))
        self.contexts.append(torch._guards.TracingContext.try_get())
        module.graph.lint()

        def run(*inputs: Any) -> Any:
            self.runs += 1
            return module(*inputs)

        return run

    @property
    def graphs(self) -> int:
        return len(self.modules)

    def inputs(self, index: int = -1) -> list[str]:
        """Names of the placeholders."""
        return [n.name for n in self.modules[index].graph.find_nodes(op="placeholder")]

    def targets(self, index: int = -1) -> list[Any]:
        """What the graph's nodes call, in order."""
        nodes = self.modules[index].graph.nodes
        return [n.target for n in nodes if n.op in ("call_function", "call_method", "call_module")]

    def names(self, index: int = -1) -> list[str]:
        return [getattr(t, "__name__", str(t)) for t in self.targets(index)]


def tensors_of(value: Any) -> list[torch.Tensor]:
    from torch.utils._pytree import tree_leaves

    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def check(
    fn: Callable[..., Any], make: Callable[[], tuple[Any, ...]], backend: Any, calls: int = 3, **options: Any
) -> Any:
    """Calls eager and compiled side by side: results, written inputs and input gradients are equal.

    Returns the compiled callable. The first call records, the others are hits.
    """
    compiled = flashpoint.compile(fn, backend=backend, **options)
    for call in range(calls):
        torch.manual_seed(call)
        expected_inputs = make()
        expected = fn(*expected_inputs)
        torch.manual_seed(call)
        inputs = make()
        hits = flashpoint.counters()["hits"]
        result = compiled(*inputs)
        assert flashpoint.counters()["hits"] == hits + (call > 0)
        torch.testing.assert_close(result, expected)
        torch.testing.assert_close(tensors_of(inputs), tensors_of(expected_inputs))
        _backward(result, expected, inputs, expected_inputs)
    return compiled


def _backward(result: Any, expected: Any, inputs: Any, expected_inputs: Any) -> None:
    if not any(t.requires_grad for t in tensors_of(expected)):
        return
    for value in (result, expected):
        sum((t.float() ** 2).sum() for t in tensors_of(value) if t.requires_grad).backward()
    for a, b in zip(tensors_of(inputs), tensors_of(expected_inputs), strict=True):
        if a.is_leaf:
            torch.testing.assert_close(a.grad, b.grad)
