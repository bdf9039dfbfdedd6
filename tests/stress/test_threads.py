"""Threads that call, record, invalidate and reset the same compiled functions; and forks after use."""

from __future__ import annotations

import gc
import os
import random
import sys
import threading
from collections.abc import Iterator

import pytest
import torch

import flashpoint
from flashpoint import code_state

THREADS = 6


class Layered(torch.nn.Module):
    def __init__(self, k: int) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(8, 8) for _ in range(3)])
        self.k = k

    def forward(self, x, y=None):
        for layer in self.layers:
            x = torch.relu(layer(x)) * self.k
        if y is not None:
            x = x + y
        if x.sum() > 1e9:  # a break
            x = x - 1
        return {"out": x, "more": [x.shape[0], x * 2]}


def count_up(x, n):
    for i in range(n):
        x = x + i
    return x, float(x.sum())


class Work:
    """One world that all threads share."""

    def __init__(self) -> None:
        self.models = [Layered(k) for k in range(3)]
        self.compiled = [flashpoint.compile(model) for model in self.models]
        self.counting = flashpoint.compile(count_up)
        self.steps = [0] * THREADS
        self.errors: list[BaseException] = []

    def call_a_model(self, r: random.Random) -> None:
        at = r.randrange(3)
        x, y = torch.randn(r.choice([1, 2, 3]), 8), None if r.random() < 0.5 else torch.ones(8)
        with torch.set_grad_enabled(r.random() < 0.5):
            actual, expected = self.compiled[at](x, y), self.models[at](x, y)
        assert torch.equal(actual["out"], expected["out"])
        assert torch.equal(actual["more"][1], expected["more"][1])
        assert actual["more"][0] == expected["more"][0]
        assert actual["out"].requires_grad == expected["out"].requires_grad

    def call_a_function(self, r: random.Random) -> None:
        n, x = r.randrange(4), torch.randn(4)
        actual, expected = self.counting(x, n), count_up(x, n)
        assert torch.equal(actual[0], expected[0]) and actual[1] == expected[1]

    def compile_another(self, r: random.Random) -> None:
        k, x = r.random(), torch.ones(2)
        another = flashpoint.compile(lambda x: x * k + 1)
        for _ in range(2):
            assert torch.equal(another(x), x * k + 1)

    def disturb(self, r: random.Random) -> None:
        at = r.random()
        if at < 0.1:
            flashpoint.reset()
        elif at < 0.3:
            layer = self.models[r.randrange(3)].layers[0]  # the same values: what others compare stays equal
            layer.weight = torch.nn.Parameter(layer.weight.detach().clone())
        elif at < 0.4:
            gc.collect()
        elif at < 0.5:
            flashpoint.explain(count_up)(torch.ones(3), 2)

    def run(self, thread: int, steps: int) -> None:
        r = random.Random(thread)
        kinds = [*[self.call_a_model] * 5, *[self.call_a_function] * 2, self.compile_another, self.disturb]
        try:
            for _ in range(steps):
                if self.errors:
                    return
                r.choice(kinds)(r)
                self.steps[thread] += 1
        except BaseException as error:
            self.errors.append(error)


@pytest.fixture
def quick_switches() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def drive(steps: int) -> Work:
    work = Work()
    threads = [threading.Thread(target=work.run, args=(i, steps)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
        assert not thread.is_alive(), "a thread is stuck"
    if work.errors:
        raise work.errors[0]
    return work


@pytest.mark.slow
@pytest.mark.parametrize("steps", [200, pytest.param(10_000, marks=pytest.mark.sweep)])
def test_threads(quick_switches: None, steps: int) -> None:
    flashpoint.reset_counters()
    work = drive(steps)
    counters = flashpoint.counters()
    assert work.steps == [steps] * THREADS
    assert counters["hits"] > 100 and counters["resume_hits"] > 100 and counters["captures_kept"] > 100
    assert counters["internal_errors"] == 0


def test_fork_after_use() -> None:
    compiled, x = flashpoint.compile(lambda x: torch.relu(x) * 2 + 1), torch.randn(4)
    for _ in range(2):
        compiled(x)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            flashpoint.reset_counters()
            good = torch.equal(compiled(x), torch.relu(x) * 2 + 1)
            another = flashpoint.compile(lambda x: x - 3)
            good = good and all(torch.equal(another(x), x - 3) for _ in range(2))
            status = 0 if good and flashpoint.counters()["hits"] == 2 else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert torch.equal(compiled(x), torch.relu(x) * 2 + 1)


def scaled(x, n, table):
    x = x * n + table["shift"]
    if n > 2:
        x = x.relu()
    return x, [n, x.shape[0]]


def run_together(bodies: list) -> None:
    """Runs them in threads of their own, started at once; the first error is raised here."""
    errors: list[BaseException] = []
    ready = threading.Barrier(len(bodies))

    def run(body) -> None:
        try:
            ready.wait(60)
            body()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
        assert not thread.is_alive(), "a thread is stuck"
    if errors:
        raise errors[0]


@pytest.mark.parametrize("backend", ["eager", "native"])
def test_first_calls_at_once(quick_switches: None, backend: str) -> None:
    """Every thread's first call is its first: all are right, and afterwards one entry answers all."""
    for _ in range(5):
        compiled, x = flashpoint.compile(scaled, backend=backend), torch.randn(4)
        want = scaled(x, 3, {"shift": 1})

        def call(compiled=compiled, x=x, want=want) -> None:
            for _ in range(5):
                got = compiled(x, 3, {"shift": 1})
                assert torch.allclose(got[0], want[0]) and got[1] == want[1]

        run_together([call] * THREADS)
        flashpoint.reset_counters()
        call()
        counters = flashpoint.counters()
        assert (counters["hits"], counters["captures_started"], counters["internal_errors"]) == (5, 0, 0)
        assert 1 <= len(code_state.entries_of(compiled)) <= THREADS


def test_hits_while_others_invalidate_and_reset(quick_switches: None) -> None:
    """Entries that go while they run; none is lost that nobody dropped."""
    compiled = flashpoint.compile(scaled, backend="eager", recompile_limit=1000)
    stop = threading.Event()
    calls = [0] * 4

    def call(thread: int) -> None:
        r = random.Random(thread)
        try:
            for _ in range(400):
                n, shift, size = r.choice([1, 2.5, 3, 4]), r.randrange(3), r.randrange(1, 4)
                x = torch.randn(size)
                got, want = compiled(x, n, {"shift": shift}), scaled(x, n, {"shift": shift})
                assert torch.equal(got[0], want[0]) and got[1] == want[1]
                calls[thread] += 1
        finally:
            stop.set()

    def disturb() -> None:
        r = random.Random(99)
        while not stop.wait(0.001):
            what = r.random()
            found = code_state.entries_of(compiled)
            if what < 0.05:
                flashpoint.reset()
            elif what < 0.1:
                code_state.reset_code(scaled)
            elif what < 0.4 and found:
                code_state.invalidate(scaled, r.choice(found))
            elif what < 0.5 and found:
                start = [entry for entry in found if not entry.behind_a_break]
                if start:
                    code_state.load_precompile_entry(scaled, r.choice(start))
                code_state.reset_precompile_entries(scaled)
            elif what < 0.6:
                compiled.last_report()

    flashpoint.reset_counters()
    run_together([*(lambda i=i: call(i) for i in range(4)), disturb])
    counters = flashpoint.counters()
    assert min(calls) == 400 and counters["hits"] > 200 and counters["internal_errors"] == 0
    # What is left answers.
    x = torch.ones(2)
    compiled(x, 3, {"shift": 1})
    before = code_state.entry_count(scaled)
    flashpoint.reset_counters()
    compiled(x, 3, {"shift": 1})
    assert flashpoint.counters()["hits"] == 1 and code_state.entry_count(scaled) == before


def test_one_entry_in_many_threads_at_once(quick_switches: None) -> None:
    """An entry's graph runs in several threads at the same time, each with its own inputs and results."""

    def fn(x, box):
        y = x
        for _ in range(20):
            y = torch.sin(y) + x
        box.append(y)
        return {"y": y, "n": len(box)}

    compiled = flashpoint.compile(fn, backend="eager")
    compiled(torch.ones(3), []), compiled(torch.ones(3), [])
    flashpoint.reset_counters()

    def call(thread: int) -> None:
        for step in range(100):
            x, mine, other = torch.full((3,), thread + step / 100), [], []
            got, want = compiled(x, mine), fn(x, other)
            assert torch.equal(got["y"], want["y"]) and got["n"] == 1 and torch.equal(mine[0], other[0])

    run_together([lambda i=i: call(i) for i in range(THREADS)])
    counters = flashpoint.counters()
    assert (counters["hits"], counters["captures_started"]) == (100 * THREADS, 0)


def test_fork_while_others_call() -> None:
    """The child has what was recorded, and can use, drop and record entries."""
    compiled, x, stop = flashpoint.compile(scaled, backend="eager"), torch.randn(4), threading.Event()
    for _ in range(2):
        compiled(x, 3, {"shift": 1})

    def call() -> None:
        while not stop.is_set():
            compiled(torch.randn(random.randrange(1, 4)), 3, {"shift": 1})

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    flashpoint.reset_counters()
                    good = torch.equal(compiled(x, 3, {"shift": 1})[0], scaled(x, 3, {"shift": 1})[0])
                    good = good and flashpoint.counters()["hits"] == 1
                    flashpoint.reset()
                    for _ in range(2):
                        good = good and torch.equal(compiled(x, 2, {"shift": 0})[0], x * 2)
                    status = 0 if good and flashpoint.counters()["hits"] == 2 else 2
                finally:
                    os._exit(status)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
