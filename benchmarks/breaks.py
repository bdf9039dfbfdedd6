"""What a graph break costs in the steady state: 20 layers with one each at several depths; 40 items."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from benchmarks.measure import Options, steady

LAYERS = 20


class Layer(nn.Module):
    """A Linear, and then a call that nothing can record, `depth` calls further down."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.linear, self.depth = nn.Linear(64, 64), depth

    def inner(self, x: torch.Tensor, depth: int) -> torch.Tensor:
        if depth > 0:
            return self.inner(x, depth - 1)
        x = self.linear(x)
        sys.stderr.flush()
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x, self.depth)


def items(x: torch.Tensor) -> tuple[torch.Tensor, float]:
    total = 0.0
    for _ in range(40):
        x = torch.sin(x) * 1.01
        total += x.sum().item()
    return x, total


def run(options: Options) -> Iterator[dict[str, Any]]:
    inputs = (torch.linspace(-1, 1, 64),)
    with torch.no_grad():
        for depth in (0, 1, 4):
            model = nn.Sequential(*(Layer(depth) for _ in range(LAYERS))).eval()
            yield steady(
                "breaks", f"{LAYERS} layers, depth {depth}", model, inputs, options, rounds=40, repeat=20
            )
        yield steady("breaks", "40 items", items, inputs, options, rounds=40, repeat=20)
