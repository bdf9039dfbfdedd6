"""The guard on global state: what it lets through, and what it says when it does not."""

from __future__ import annotations

import inspect
import math
import sys

import pytest
import torch

import flashpoint


@pytest.fixture
def recursion_limit():
    limit = sys.getrecursionlimit()
    yield limit
    sys.setrecursionlimit(limit)


@pytest.mark.parametrize("reads", [False, True])
def test_a_higher_recursion_limit(recursion_limit: int, reads: bool) -> None:
    def fn(x):
        return x + (sys.getrecursionlimit() if reads else 1)

    compiled, x = flashpoint.compile(fn), torch.ones(3)
    flashpoint.reset_counters()
    for limit in (recursion_limit, recursion_limit, recursion_limit + 500, recursion_limit):
        sys.setrecursionlimit(limit)
        assert torch.equal(compiled(x), fn(x))
    counters = flashpoint.counters()
    assert (counters["captures_kept"], counters["hits"]) == ((2, 2) if reads else (1, 3))


def test_unwrap_holds_under_a_higher_recursion_limit(recursion_limit: int) -> None:
    def fn(x):
        return x + len(inspect.signature(math.hypot if x is None else named).parameters)

    def named(a, b):
        return a

    compiled, x = flashpoint.compile(fn), torch.ones(3)
    flashpoint.reset_counters()
    for limit in (recursion_limit, recursion_limit + 500, recursion_limit):
        sys.setrecursionlimit(limit)
        assert torch.equal(compiled(x), fn(x))
    counters = flashpoint.counters()
    assert (counters["captures_kept"], counters["hits"]) == (1, 2)


def test_a_lower_recursion_limit(recursion_limit: int) -> None:
    compiled, x = flashpoint.compile(lambda x: x + 1), torch.ones(3)
    sys.setrecursionlimit(recursion_limit + 500)
    compiled(x)
    sys.setrecursionlimit(recursion_limit)
    flashpoint.reset_counters()
    compiled(x)
    assert flashpoint.counters()["captures_kept"] == 1


MODES = {
    "torch.no_grad()": ["grad mode: was on, is off"],
    "torch.autocast('cpu', dtype=torch.float16)": [
        "autocast nesting: was 0, is 1",
        "autocast dtype of CPU: was BFloat16, is Half",
        "dispatch keys",
    ],
    "torch.autograd.set_detect_anomaly(True)": ["anomaly mode: was off, is on"],
    "torch.device('cpu')": ["torch-function mode: was none, is DeviceContext"],
    "torch.backends.mkldnn.flags(enabled=False)": ["flags: was "],
}


@pytest.mark.slow
def test_a_miss_says_what_changed(run_python) -> None:
    program = "import torch, flashpoint\nx = torch.ones(3)\nf = flashpoint.compile(lambda x: x + 1)\nf(x)\n"
    program += "import sys\n"
    for mode in MODES:
        program += f"sys.stderr.write('next\\n')\nwith {mode}: f(x)\nflashpoint.reset(); f(x)\n"
    done = run_python("-W", "ignore", "-c", program, FLASHPOINT_LOG="miss")
    parts = done.stderr.split("next\n")[1:]
    assert len(parts) == len(MODES), done.stderr
    for part, wanted in zip(parts, MODES.values(), strict=True):
        assert "global state: " in part
        assert all(text in part for text in wanted), part
