"""The first call of a fresh compiled model beside that of a fresh eager one; and the calls after it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.measure import Options, contenders, counting, interleave, result, timed
from flashpoint.explaining import inspect_compiled
from tools.models import DEMO, build

# Beside the demo's: a state space, windows with shifts, and experts.
MODELS = (*DEMO, "mamba", "swin", "mixtral")


def run(options: Options) -> Iterator[dict[str, Any]]:
    for name in MODELS[:2] if options.quick else MODELS:
        with torch.no_grad():
            yield from _one(name, options)


def _one(name: str, options: Options) -> Iterator[dict[str, Any]]:
    make_model, make_inputs = build(name, tiny=True)
    model = make_model()
    model(**make_inputs(0))
    makers = contenders(options)
    times: dict[str, list[float]] = {"eager": [], **{maker: [] for maker in makers}}
    compiled: dict[str, Any] = {}
    for turn in range(options.rounds(10)):
        eager, inputs = copy.deepcopy(model), make_inputs(turn)
        times["eager"].append(timed(lambda m=eager, i=inputs: m(**i)))
        for maker, make in makers.items():
            if maker != "flashpoint" and turn >= 2:  # seconds each
                continue
            compiled[maker] = make(copy.deepcopy(model))
            times[maker].append(timed(lambda m=compiled[maker], i=inputs: m(**i)))
    told = inspect_compiled(compiled["flashpoint"])
    yield result("first call", name, times, graphs=told.graph_count, breaks=len(told.breaks))

    inputs = make_inputs(100)
    calls = {"eager": lambda: model(**inputs)}
    calls |= {maker: lambda m=module: m(**inputs) for maker, module in compiled.items()}
    for call in calls.values():
        call()
    gained: dict[str, int] = {}
    with counting(gained):
        steady = interleave(calls, options.rounds(30))
    yield result("steady call", name, steady, calls=len(steady["flashpoint"]), hits=gained["hits"])
