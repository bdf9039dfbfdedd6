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


def deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def leaves_them(x):
    before = deterministic()
    torch.use_deterministic_algorithms(False)
    return x + 1, before


def leaves_them_at_a_break(x):
    before = deterministic()
    torch.use_deterministic_algorithms(False)
    y = x * 2
    flashpoint.graph_break()
    return y - x + 1, before


def switches_twice(x):
    before = deterministic()
    torch.use_deterministic_algorithms(True)
    x = x * 1
    torch.use_deterministic_algorithms(False)
    return x + 1, before


@pytest.fixture
def settings_kept():
    kept, mkldnn = deterministic(), torch.backends.mkldnn.enabled
    yield
    torch.use_deterministic_algorithms(kept[0], warn_only=kept[1])
    torch.backends.mkldnn.set_flags(mkldnn)


@pytest.mark.parametrize("backend", ["eager", "native", "aot_eager"])
@pytest.mark.parametrize("program", [leaves_them, leaves_them_at_a_break, switches_twice])
def test_switches_that_the_call_leaves_changed(program, backend, settings_kept) -> None:
    compiled = flashpoint.compile(program, backend=backend)
    x = torch.randn(3)
    for warn_only in (True, True, True, False, False, True):
        torch.use_deterministic_algorithms(True, warn_only=warn_only)
        y, before = compiled(x)
        assert before == (True, warn_only)
        assert deterministic() == (False, False)
        torch.testing.assert_close(y, x + 1)
    counted = flashpoint.counters()
    assert counted["hits"] >= 4 and counted["captures_dropped"] == counted["eager_calls"] == 0


def test_switches_of_a_backend_that_the_call_leaves_changed(settings_kept) -> None:
    def program(x):
        torch.backends.mkldnn.set_flags(not torch.backends.mkldnn.enabled)
        return x + 1

    compiled = flashpoint.compile(program, backend="eager")
    enabled = torch.backends.mkldnn.enabled
    for _ in range(8):
        compiled(torch.ones(2))
        enabled = not enabled
        assert torch.backends.mkldnn.enabled == enabled
    assert flashpoint.counters()["hits"] >= 4


def test_an_error_behind_a_switch(settings_kept) -> None:
    def program(x, fails):
        torch.use_deterministic_algorithms(False)
        if fails:
            raise ValueError("as asked")
        return x + 1

    compiled = flashpoint.compile(program, backend="eager")
    for fails in (False, False, True, False, True):
        torch.use_deterministic_algorithms(True)
        if fails:
            with pytest.raises(ValueError, match="as asked"):
                compiled(torch.ones(2), fails)
        else:
            compiled(torch.ones(2), fails)
        assert deterministic() == (False, False)
