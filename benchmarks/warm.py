"""The first call in a new process: with nothing in the store, and with what another process recorded.

Each round starts two processes over one store of its own. Both build the model, run another instance of it
eagerly (one-time work of torch and transformers), time eager's call and then the compiled model's first one.
`captures` and `kernels` count what the second processes recorded and generated.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import flashpoint
from benchmarks.measure import Options, result
from tools.models import build

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("bert", "gpt2", "vit", "llama")


def run(options: Options) -> Iterator[dict[str, Any]]:
    for name in MODELS[:1] if options.quick else MODELS:
        for backend in ("eager", "native"):
            yield _one(name, backend, options)


def _one(name: str, backend: str, options: Options) -> dict[str, Any]:
    times: dict[str, list[float]] = {"eager": [], "cold": [], "warm": []}
    captures = kernels = 0
    for _ in range(options.rounds(3)):
        with tempfile.TemporaryDirectory() as store:
            for kind in ("cold", "warm"):
                told = _process(name, backend, options, store)
                times[kind].append(told["first"])
            times["eager"].append(told["eager"])
            captures += told["captures"]
            kernels += told["kernels"]
    return result(
        "first call in a new process", f"{name}, {backend}", times, captures=captures, kernels=kernels
    )


def _process(name: str, backend: str, options: Options, store: str) -> dict[str, Any]:
    sizes = ["--tiny"] if options.quick else []
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.warm", name, backend, str(options.threads), *sizes],
        cwd=ROOT,
        env={**os.environ, "FLASHPOINT_CACHE_DIR": store, "FLASHPOINT_RECORDINGS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def child() -> None:
    """What each process does."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("backend")
    parser.add_argument("threads", type=int)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    make_model, make_inputs = build(args.name, tiny=args.tiny)
    eager, model, inputs = make_model(), make_model(), make_inputs(0)
    with torch.no_grad():
        eager(**inputs)
        start = time.perf_counter()
        eager(**inputs)
        between = time.perf_counter()
        flashpoint.compile(model, backend=args.backend)(**inputs)
        end = time.perf_counter()
    counters = flashpoint.counters()
    told = {"eager": between - start, "first": end - between}
    told |= {"captures": counters["captures_started"], "kernels": counters["kernels_compiled"]}
    print(json.dumps(told))


if __name__ == "__main__":
    child()
