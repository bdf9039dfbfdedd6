"""`python -m benchmarks [names] [--torch-compile] [--quick]`: JSON lines on standard output."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch  # noqa: E402

import flashpoint  # noqa: E402
from benchmarks import (  # noqa: E402
    breaks,
    chain,
    first_call,
    guards,
    kernels,
    memory,
    models,
    overhead,
    training,
    warm,
)
from benchmarks.measure import Options, environment, use_clock  # noqa: E402

BENCHMARKS: dict[str, Callable[[Options], Iterator[dict[str, Any]]]] = {
    "first_call": first_call.run,
    "chain": chain.run,
    "overhead": overhead.run,
    "guards": guards.run,
    "breaks": breaks.run,
    "memory": memory.run,
    "kernels": kernels.run,
    "models": models.run,
    "training": training.run,
    "warm": warm.run,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"some of: {', '.join(BENCHMARKS)}")
    parser.add_argument("--torch-compile", action="store_true", help="measure torch.compile too (minutes)")
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that all runs, no more")
    parser.add_argument("--threads", type=int, default=1, help="torch.set_num_threads (default 1)")
    parser.add_argument("--cpu-time", action="store_true", help="CPU time of the thread, not wall time")
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in BENCHMARKS]:
        parser.error(f"unknown benchmarks: {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}")
    options = Options(args.quick, args.torch_compile, args.threads, args.cpu_time)
    if args.cpu_time and args.threads > 1:
        parser.error("--cpu-time counts one thread")
    use_clock("cpu" if args.cpu_time else "wall")
    torch.set_num_threads(args.threads)
    flashpoint.config.native_patience = 0  # what compiled code does is measured, not when it begins
    if options.torch_compile:
        torch.compile(torch.neg, backend="eager")(torch.ones(1))  # its imports belong to no benchmark
    told = environment(options)
    for name in args.names or BENCHMARKS:
        flashpoint.reset()
        for line in BENCHMARKS[name](options):
            print(json.dumps({**line, "environment": told}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
