"""Peak memory of a first call, and what stays behind after many captures and many hits.

Peaks are of the resident set, each contender in a process of its own: the peak is reset right before the call
(Linux: /proc/self/clear_refs) and read right after it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import flashpoint
from benchmarks.measure import Options, contenders, counting
from tools.models import build


def run(options: Options) -> Iterator[dict[str, Any]]:
    yield _peaks(options)
    yield from _leaks(options)


def resident(field: str = "VmRSS") -> int:
    """Bytes: now (VmRSS) or at most since the last reset (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")


def _peaks(options: Options) -> dict[str, Any]:
    model = "vit" if options.quick else "bert"
    found: dict[str, list[tuple[int, int]]] = {}
    names = ["eager", *contenders(options)]
    for _ in range(options.rounds(5)):
        for name in names:
            command = [sys.executable, "-m", "benchmarks.memory", name, model, str(int(options.quick))]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found.setdefault(name, []).append(json.loads(done.stdout.splitlines()[-1]))
    line: dict[str, Any] = {"benchmark": "peak memory of the first call", "case": model, "unit": "MiB"}
    for name, values in found.items():
        peak, added = (statistics.median(column) / 2**20 for column in zip(*values, strict=True))
        line[name] = {"peak": round(peak, 2), "added_by_the_call": round(added, 2), "rounds": len(values)}
        line[name]["peak_over_eager"] = round(peak / line["eager"]["peak"], 4)
    return line


def _first_call_peak(name: str, model_name: str, tiny: bool) -> tuple[int, int]:
    """Peak of the resident set in a first call, and what the call added. Run in a fresh process."""
    torch.set_num_threads(1)
    make_model, make_inputs = build(model_name, tiny=tiny)
    model, inputs = make_model(), make_inputs(0)
    if name != "eager":
        model = contenders(Options(torch_compile=True))[name](model)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident()
    with torch.no_grad():
        model(**inputs)
    peak = resident("VmHWM")
    return peak, peak - before


def _leaks(options: Options) -> Iterator[dict[str, Any]]:
    captures, hits = (50, 1000) if options.quick else (1000, 100_000)
    x = torch.ones(64)

    def capture() -> None:
        def fn(value: torch.Tensor) -> torch.Tensor:
            return (value + 1).relu() * value

        flashpoint.compile(fn)(x)

    model = flashpoint.compile(torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU()).eval())

    def capture_model() -> None:
        model.forward.reset()
        model(x)

    fixed = flashpoint.compile(lambda value: (value + 1).relu() * value)
    with torch.no_grad():
        yield _growth("captures of new functions", capture, captures, "captures_kept")
        yield _growth("captures of one module", capture_model, captures, "captures_kept")
        yield _growth("hits", lambda: fixed(x), hits, "hits")


def _growth(case: str, step: Callable[[], Any], number: int, counter: str) -> dict[str, Any]:
    """Grown resident set and Python objects over `number` steps, after a tenth of that to warm up."""
    for _ in range(max(1, number // 10)):
        step()
    gained: dict[str, int] = {}
    memory, objects = _settled()
    with counting(gained):
        for _ in range(number):
            step()
    memory_after, objects_after = _settled()
    return {
        "benchmark": "leaks",
        "case": case,
        "steps": number,
        counter: gained[counter],
        "resident_bytes_per_step": round((memory_after - memory) / number, 2),
        "python_objects_per_step": round((objects_after - objects) / number, 4),
    }


def _settled() -> tuple[int, int]:
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # freed memory goes back, so that what is left is held
    return resident(), len(gc.get_objects())


if __name__ == "__main__":
    print(json.dumps(_first_call_peak(sys.argv[1], sys.argv[2], tiny=sys.argv[3] == "1")))
