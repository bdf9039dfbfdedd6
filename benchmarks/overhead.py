"""What a hit costs over the eager call: on an addition, among 64 entries, and on 300 modules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

import flashpoint
from benchmarks.measure import Options, contenders, result, steady, timed


def add(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a + b


def lookup(count: int, options: Options) -> dict[str, Any]:
    """A function recorded for `count` shapes, called with each in turn, beside one recorded for one."""
    shapes = [torch.ones(n + 1, 2) for n in range(count)]
    one, many = (flashpoint.compile(lambda x: x + 1, recompile_limit=count) for _ in range(2))
    for shape in shapes:
        many(shape)
    one(shapes[0])

    def in_turn() -> None:
        for shape in shapes:
            many(shape)

    def the_same() -> None:
        for _ in shapes:
            one(shapes[0])

    times: dict[str, list[float]] = {"one entry": [], f"{count} entries": []}
    for _ in range(options.rounds(40)):
        times["one entry"].append(timed(the_same))
        times[f"{count} entries"].append(timed(in_turn))
    return result("lookup", f"{count} entries", times)


def run(options: Options) -> Iterator[dict[str, Any]]:
    small = torch.ones(8), torch.ones(8)
    yield steady("hit overhead", "a + b", add, small, options, rounds=40, repeat=2000)
    yield lookup(64, options)
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
