"""What the benchmarks share: options, interleaved timing, and the form of a result line."""

from __future__ import annotations

import functools
import gc
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

import flashpoint

PEER = "torch.compile"


@dataclass(frozen=True)
class Options:
    """quick: few rounds, to see that everything runs. torch_compile: measure the peer as well."""

    quick: bool = False
    torch_compile: bool = False
    threads: int = 1
    cpu_time: bool = False  # of this thread, instead of wall time

    def rounds(self, number: int) -> int:
        return 2 if self.quick else number


def contenders(options: Options) -> dict[str, Callable[[Any], Any]]:
    """Name -> how it compiles. Each call of one gives a callable that has nothing compiled yet."""
    made: dict[str, Callable[[Any], Any]] = {
        "flashpoint": functools.partial(flashpoint.compile, backend="eager")
    }
    if options.torch_compile:

        def peer(target: Any) -> Any:
            torch._dynamo.reset()
            return torch.compile(target, backend="eager")

        made[PEER] = peer
    return made


# What `timed` reads. CPU time of the thread is what tells one-threaded work apart on a busy machine.
CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}
clock = CLOCKS["wall"]


def use_clock(name: str) -> None:
    global clock
    clock = CLOCKS[name]


def timed(call: Callable[[], Any], repeat: int = 1) -> float:
    """Seconds per call, of `repeat` calls in a row."""
    start = clock()
    for _ in range(repeat):
        call()
    return (clock() - start) / repeat


def interleave(
    calls: Mapping[str, Callable[[], Any]], rounds: int, repeat: int = 1
) -> dict[str, list[float]]:
    """Seconds per call of each, one measurement of every one per round, in alternating order.

    The garbage collector runs between rounds and not inside one.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    with no_gc():
        for turn in range(rounds):
            gc.collect()
            order = list(calls) if turn % 2 == 0 else list(reversed(calls))
            for name in order:
                times[name].append(timed(calls[name], repeat))
    return times


@contextmanager
def no_gc() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def counting(into: dict[str, int]) -> Iterator[None]:
    """Puts what the counters gained inside the block into `into`."""
    before = flashpoint.counters()
    yield
    after = flashpoint.counters()
    into.update({name: after[name] - before.get(name, 0) for name in after})


def add_ratios(ratios: dict[str, list[float]], times: Mapping[str, list[float]]) -> None:
    """Appends each contender's median over eager, round by round, to its list."""
    for contender in times:
        if contender != "eager":
            pairs = zip(times[contender], times["eager"], strict=True)
            ratios[contender].append(statistics.median(a / b for a, b in pairs))


def quartiles(values: list[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def result(
    benchmark: str, case: str, times: Mapping[str, list[float]], *, unit: str = "ms", **more: Any
) -> dict[str, Any]:
    """One line: per contender the median and quartiles, and the median of its pairwise ratios to eager."""
    scale = {"s": 1.0, "ms": 1e3, "us": 1e6}[unit]
    line: dict[str, Any] = {"benchmark": benchmark, "case": case, "unit": unit}
    for name, values in times.items():
        low, high = quartiles(values)
        line[name] = {
            "median": round(statistics.median(values) * scale, 4),
            "quartiles": [round(low * scale, 4), round(high * scale, 4)],
            "rounds": len(values),
        }
        if name != "eager" and "eager" in times:
            pairs = list(zip(values, times["eager"], strict=False))
            line[name]["over_eager"] = round(statistics.median(one / base for one, base in pairs), 3)
            line[name]["minus_eager"] = round(statistics.median(one - base for one, base in pairs) * scale, 4)
    return {**line, **more}


def environment(options: Options) -> dict[str, Any]:
    return {
        "flashpoint": flashpoint.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": options.threads,
        "clock": "cpu" if options.cpu_time else "wall",
        "quick": options.quick,
    }


def steady(
    benchmark: str,
    case: str,
    target: Callable[..., Any],
    inputs: tuple[torch.Tensor, ...],
    options: Options,
    *,
    rounds: int,
    repeat: int,
) -> dict[str, Any]:
    """A result line: what a call takes once everything has been recorded."""
    calls = {"eager": lambda: target(*inputs)}
    for maker, make in contenders(options).items():
        compiled = make(target)
        for _ in range(3):
            compiled(*inputs)
        calls[maker] = lambda f=compiled: f(*inputs)
    gained: dict[str, int] = {}
    rounds = options.rounds(rounds)
    with counting(gained):
        times = interleave(calls, rounds, repeat)
    return result(benchmark, case, times, unit="us", calls=rounds * repeat, hits=gained["hits"])
