"""python -m tests.mutations --seed S --count N [--steps K] [--backend B]: N programs of K steps each."""

from __future__ import annotations

import argparse
import sys

import flashpoint
from tests.mutations.runner import drive

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--count", type=int, default=100)
parser.add_argument("--steps", type=int, default=100)
parser.add_argument("--backend", choices=("native", "eager"), default="native")
options = parser.parse_args()
steps = hits = raised = 0
failed = []
for seed in range(options.seed, options.seed + options.count):
    tally = drive(seed, options.steps, backend=options.backend)
    flashpoint.reset()
    steps, hits, raised = steps + tally.steps, hits + tally.hits, raised + tally.raised
    if (seed - options.seed) % 1000 == 999:
        print(f"{steps} steps, {hits} hits, {raised} raised, {len(failed)} failed", flush=True)
    for difference in tally.differences:
        failed.append(seed)
        print(*difference, sep="\n  ", flush=True)
print(f"{steps} steps, {hits} hits, {raised} raised; failing seeds: {failed}")
sys.exit(bool(failed))
