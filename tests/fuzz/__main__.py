"""python -m tests.fuzz --seed S --count N: random programs, eager against compiled; failing ones are made
smaller.
"""

from __future__ import annotations

import argparse
import collections
import sys

import torch

from tests.fuzz.generator import generate
from tests.fuzz.runner import fuzz, shrink
from tests.support import flashpoint


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first program's seed")
    parser.add_argument("--count", type=int, default=1000, help="how many programs")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes")
    parser.add_argument(
        "--shrink", type=int, default=500, help="smaller programs to try for a failing one; 0: none"
    )
    parser.add_argument(
        "--show", type=int, default=5, help="how many failing programs to make smaller and print"
    )
    parser.add_argument("--print", action="store_true", help="only print the programs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(options.seed, options.seed + options.count)
    if options.print:
        for seed in seeds:
            program = generate(seed)
            print(f"# seed {seed}\n{program.source()}# {program.calls}\n")
        return 0
    verdicts = fuzz(seeds, flashpoint, jobs=options.jobs)
    failed = [verdict for verdict in verdicts if verdict.failed]
    for verdict in failed[: options.show]:
        program = generate(verdict.seed)
        if options.shrink:
            program, smallest = shrink(program, flashpoint, candidates=options.shrink)
            verdict = smallest if smallest.failed else verdict
        print(f"=== seed {verdict.seed} {verdict.kind} (watch={program.watch!r})\n{verdict.message}")
        if verdict.kind in ("died", "hangs"):
            print(program.source(), *program.calls, sep="\n")
    hit = sum(verdict.counters.get("hits", 0) > 0 for verdict in verdicts)
    loaded = sum(verdict.counters.get("entries_loaded", 0) > 0 for verdict in verdicts)
    kinds = collections.Counter(verdict.kind for verdict in verdicts)
    raised, calls = sum(v.raised for v in verdicts), sum(v.calls for v in verdicts)
    print(f"{len(verdicts)} programs, {hit} hit an entry, {loaded} loaded one; ", end="")
    print(f"{calls} calls, {raised} raised; {dict(kinds)}")
    print("failing seeds:", *[f"{v.seed}:{v.kind}" for v in failed][:200])
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
