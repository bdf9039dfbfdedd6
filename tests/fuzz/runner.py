"""Runs generated programs eagerly and compiled in forked workers, and makes failing ones smaller.

A worker that dies or hangs costs one verdict, not the run: its parent starts another one behind that
program.
"""

from __future__ import annotations

import faulthandler
import functools
import json
import os
import select
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from tests import WITH_STORE
from tests.fuzz.generator import generate
from tests.fuzz.program import Program, smaller
from tests.support import Mismatch, compare
from tests.world import Call, run

LIMIT = 60.0  # seconds one program may take


@dataclass
class Verdict:
    """kind: same, differs (from eager), unsteady (eager differs from itself), died (by a signal), hangs, or
    broken (the program does not get as far as its calls)."""

    seed: int
    kind: str
    message: str = ""
    counters: dict[str, int] = field(default_factory=dict)
    calls: int = 0
    raised: int = 0

    @property
    def failed(self) -> bool:
        return self.kind != "same"


def judge(program: Program, package: Any) -> Verdict:
    """Compares the program's eager and compiled runs, in this process."""
    source, calls = program.source(), program.calls
    try:
        outcomes = compare(source, calls, package, watch=program.watch)
    except Mismatch as found:
        first, second = (run(source, calls, watch=program.watch) for _ in range(2))
        steady = all(a.lines == b.lines for a, b in zip(first, second, strict=True))
        return Verdict(program.seed, "differs" if steady else "unsteady", str(found), calls=len(calls))
    if WITH_STORE:
        package._C._recordings_write()
    totals: dict[str, int] = {}
    for outcome in outcomes:
        for name, count in outcome.counters.items():
            totals[name] = totals.get(name, 0) + count
    raised = sum(outcome.raised for outcome in outcomes)
    return Verdict(program.seed, "same", counters=totals, calls=len(calls), raised=raised)


@functools.cache
def _warm_up() -> None:
    """What every worker would import and initialize is done once, before the first fork."""
    run("def fn(x):\n  with torch.no_grad(): return torch.rand(2) + x[0, :2]", [Call("x")])


class _Worker:
    """A forked child that judges programs and writes one JSON line before and after each."""

    def __init__(self, programs: list[Callable[[], Program]], package: Any) -> None:
        self.left = len(programs)
        self.buffer = b""
        self.errors = tempfile.TemporaryFile()
        self.read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self.read)
                os.dup2(self.errors.fileno(), 2)
                faulthandler.enable(self.errors)
                with os.fdopen(write, "w", buffering=1) as out:
                    for make in programs:
                        print(json.dumps(asdict(judge(make(), package))), file=out)
                if WITH_STORE:  # the child ends without its handlers of exit
                    package._C._store_exit()
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(0)
        os.close(write)

    def end(self, kill: bool) -> tuple[bool, str]:
        """Waits for the child; whether a signal ended it, and the end of what it wrote to stderr."""
        if kill:
            os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        os.close(self.read)
        self.errors.seek(0)
        text = self.errors.read().decode(errors="replace")[-3000:]
        self.errors.close()
        if os.WIFSIGNALED(status):
            return True, f"signal {os.WTERMSIG(status)}\n{text}"
        return False, text


def judge_all(
    programs: Iterable[tuple[int, Callable[[], Program]]],
    package: Any,
    *,
    jobs: int = 2,
    chunk: int = 50,
    limit: float = LIMIT,
) -> list[Verdict]:
    """Judges programs, given as (seed, maker), in `jobs` forked workers; in the order of the seeds."""
    _warm_up()
    queue = list(programs)
    batches = [queue[i : i + chunk] for i in range(0, len(queue), chunk)][::-1]
    running: dict[_Worker, list[tuple[int, Callable[[], Program]]]] = {}
    alive: dict[_Worker, float] = {}
    verdicts: list[Verdict] = []

    def finish(worker: _Worker, kind: str) -> None:
        rest = running.pop(worker)
        signaled, text = worker.end(kill=kind == "hangs")
        if rest:
            verdicts.append(Verdict(rest[0][0], kind if signaled else "broken", text))
            if rest[1:]:
                batches.append(rest[1:])
        del alive[worker]

    while batches or running:
        while batches and len(running) < jobs:
            batch = batches.pop()
            worker = _Worker([make for _, make in batch], package)
            running[worker] = batch
            alive[worker] = time.monotonic()
        ready, _, _ = select.select([w.read for w in running], [], [], 1.0)
        for worker in list(running):
            if worker.read in ready:
                chunk_read = os.read(worker.read, 1 << 16)
                alive[worker] = time.monotonic()
                worker.buffer += chunk_read
                *lines, worker.buffer = worker.buffer.split(b"\n")
                for line in lines:
                    verdicts.append(Verdict(**json.loads(line)))
                    running[worker].pop(0)
                if not chunk_read:
                    finish(worker, "died")
            elif time.monotonic() - alive[worker] > limit:
                finish(worker, "hangs")
    return sorted(verdicts, key=lambda v: v.seed)


def fuzz(seeds: Iterable[int], package: Any, *, jobs: int = 2) -> list[Verdict]:
    """Judges the programs of the seeds."""
    return judge_all([(seed, lambda seed=seed: generate(seed)) for seed in seeds], package, jobs=jobs)


def shrink(program: Program, package: Any, *, candidates: int = 500) -> tuple[Program, Verdict]:
    """The smallest program found, by deletion, that still fails in the same way; and its verdict. At most
    `candidates` smaller programs are tried.
    """

    def verdict_of(candidate: Program) -> Verdict:
        return judge_all([(candidate.seed, lambda: candidate)], package, jobs=1, limit=10.0)[0]

    best, verdict = program, verdict_of(program)
    if not verdict.failed:
        return best, verdict
    progress = True
    while progress and candidates > 0:
        progress = False
        for candidate in smaller(best):
            if candidates <= 0:
                break
            candidates -= 1
            found = verdict_of(candidate)
            if found.kind == verdict.kind:
                best, verdict, progress = candidate, found, True
                break
    return best, verdict
