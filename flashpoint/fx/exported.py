"""A recorded graph as the core hands it over (csrc/driver/fx_backend.h), under names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from flashpoint.fx.calls import Trace
from flashpoint.fx.names import argument_names

# ("%", value) | ("=", constant) | ("#", number in a tensor's place) | ("[", [arguments])
Argument = tuple[str, Any]


class TensorMeta(NamedTuple):
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    layout: torch.layout
    requires_grad: bool


class State(NamedTuple):
    """What an operator ran under. `flags` None: the process-wide settings are those at entry."""

    grad: bool
    inference: bool
    autocast_cache: bool
    autocast: list[tuple[str, torch.dtype]]
    flags: int | None


class Node(NamedTuple):
    operator: str
    overload: str
    arguments: list[Argument]
    outputs: list[int | list[int]]
    state: int
    location: str
    callable: str
    mutates: list[int]


class Source(NamedTuple):
    path: str
    tensor: torch.Tensor | float | int | None  # a number where a tensor without dimensions stands for it
    written: bool


class HostFunction(NamedTuple):
    callable: Callable[..., Any]
    arguments: list[Any]
    is_tensor: list[bool]
    returns_tuple: bool
    results: list[Any]


class Exported(NamedTuple):
    name: str
    values: list[TensorMeta | None]
    inputs: list[int]
    outputs: list[int]
    nodes: list[Node]
    states: list[State]
    sources: list[Source]
    functions: list[HostFunction]
    arguments: list[str]
    trace: Trace


def read(raw: dict[str, Any]) -> Exported:
    """The core's plain tuples under names."""
    return Exported(
        name=raw["name"],
        values=[None if v is None else TensorMeta(*v) for v in raw["values"]],
        inputs=raw["inputs"],
        outputs=raw["outputs"],
        nodes=[Node(*n) for n in raw["nodes"]],
        states=[State(*s) for s in raw["states"]],
        sources=[Source(*s) for s in raw["sources"]],
        functions=[HostFunction(*f) for f in raw["functions"]],
        arguments=argument_names(raw["function"], raw["positional"], raw["keywords"], raw["first"]),
        trace=Trace(raw["trace"]),
    )
