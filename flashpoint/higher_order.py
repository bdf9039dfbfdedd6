"""Torch's higher-order operators, recorded as what they do in eager mode: their bodies are inlined.

A body that is chosen by data is a graph break like any other `if`, and each side has its own recording behind
it. To add one: a row in _DENSE, if torch's dense implementation is plain Python over its arguments.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch._C import DispatchKey

from flashpoint import _C

# module, operator, whether autograd through the dense implementation is the operator's own gradient
_DENSE = (
    ("cond", "cond_op", True),
    ("while_loop", "while_loop_op", True),
    ("map", "map_impl", True),
    ("scan", "scan_op", True),
    ("associative_scan", "associative_scan_op", True),
    ("flex_attention", "flex_attention", False),
)


def _needs_grad(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.requires_grad
    if isinstance(value, (list, tuple)):
        for item in value:
            if _needs_grad(item):
                return True
    return False


def _unless_differentiated(operator: Any, dense: Callable[..., Any]) -> Callable[..., Any]:
    def inlined(*args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled() and _needs_grad(args):
            return type(operator).__call__(operator, *args, **kwargs)  # a graph break
        return dense(*args, **kwargs)

    return inlined


def register() -> None:
    """Recordings call the dense implementations from now on."""
    for module, name, differentiable in _DENSE:
        operator = getattr(sys.modules.get(f"torch._higher_order_ops.{module}"), name, None)
        dense = getattr(operator, "py_kernels", {}).get(DispatchKey.CompositeExplicitAutograd)
        if dense is not None:
            _C.substitute(operator, dense if differentiable else _unless_differentiated(operator, dense))
