"""5,000 chained additions: what recording costs per operator, and what replaying one costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.measure import Options, contenders, counting, interleave, result, timed

LENGTH = 5000


def chain(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    for _ in range(LENGTH):
        x = x + y
    return x


def run(options: Options) -> Iterator[dict[str, Any]]:
    x, y = torch.zeros(8), torch.ones(8)
    makers = contenders(options)
    times: dict[str, list[float]] = {"eager": [], **{maker: [] for maker in makers}}
    compiled: dict[str, Any] = {}
    chain(x, y)
    for turn in range(options.rounds(10)):
        times["eager"].append(timed(lambda: chain(x, y)))
        for maker, make in makers.items():
            if maker != "flashpoint" and turn >= 1:  # seconds each
                continue
            compiled[maker] = make(chain)
            times[maker].append(timed(lambda f=compiled[maker]: f(x, y)))
    yield result("chain of adds, first call", f"{LENGTH} x + y", times)

    calls = {"eager": lambda: chain(x, y)}
    calls |= {maker: lambda f=function: f(x, y) for maker, function in compiled.items()}
    for call in calls.values():
        call()
    gained: dict[str, int] = {}
    with counting(gained):
        steady = interleave(calls, options.rounds(20))
    more = {"calls": len(steady["flashpoint"]), "hits": gained["hits"]}
    yield result("chain of adds, steady", f"{LENGTH} x + y", steady, **more)
