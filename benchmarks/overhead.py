"""What a hit costs over the eager call: on one addition, and on 300 modules, where guards are what counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from benchmarks.measure import Options, contenders, result, steady, timed


def add(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a + b


def run(options: Options) -> Iterator[dict[str, Any]]:
    small = torch.ones(8), torch.ones(8)
    yield steady("hit overhead", "a + b", add, small, options, rounds=40, repeat=2000)
    with torch.no_grad():
        model, inputs = nn.Sequential(*(nn.Linear(8, 8) for _ in range(300))).eval(), (torch.ones(1, 8),)
        model(*inputs)
        times: dict[str, list[float]] = {"eager": []}
        for maker, make in contenders(options).items():
            times[maker] = []
            for _ in range(1 if maker != "flashpoint" else options.rounds(10)):
                if maker == "flashpoint":
                    times["eager"].append(timed(lambda: model(*inputs)))
                compiled = make(model)
                times[maker].append(timed(lambda f=compiled: f(*inputs)))
        yield result("first call", "300 Linear modules", times)
        yield steady("hit overhead", "300 Linear modules", model, inputs, options, rounds=40, repeat=10)
