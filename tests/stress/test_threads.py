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
