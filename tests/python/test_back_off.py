"""Where recordings keep failing nothing is recorded for a while; that ends, and explain says why."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import permutations

import pytest
import torch

import flashpoint


def failing(x, bad):
    if bad:
        return x * 2, MemoryError("of C code")  # leaves the call, and nothing can make another one
    return x * 2, None


def test_the_rest_ends() -> None:
    compiled = flashpoint.compile(failing)
    x = torch.ones(2)
    flashpoint.reset_counters()
    started = []
    for _ in range(60):
        before = flashpoint.counters()["captures_started"]
        assert torch.equal(compiled(x, True)[0], x * 2)
        started.append(flashpoint.counters()["captures_started"] - before)
    assert 3 <= sum(started) <= 10, started
    assert any(started[20:]), "tried again after the first rest"
    counters = flashpoint.counters()
    assert counters["recordings_skipped"] == counters["eager_calls"] == started.count(0)


def test_bad_calls_do_not_keep_good_ones_from_being_recorded() -> None:
    compiled = flashpoint.compile(failing)
    x = torch.ones(2)
    for _ in range(6):
        compiled(x, True)
    report = flashpoint.explaining.inspect_compiled(compiled)
    assert (
        len(report.skipped) == 1 and "more calls" in report.skipped[0] and "not recorded for" in str(report)
    )
    for _ in range(9):
        compiled(x, False)
    flashpoint.reset_counters()
    assert torch.equal(compiled(x, False)[0], x * 2)
    assert flashpoint.counters()["hits"] == 1


def test_recompiles_name_the_guard() -> None:
    def fn(x, word):
        print(end="")
        return x * len(word)

    compiled = flashpoint.compile(fn)
    for word in ("ab", "cde"):
        for size in (2, 3):
            compiled(torch.ones(size), word)
    report = flashpoint.explaining.inspect_compiled(compiled)
    assert report.recompiles and any("size" in why or "tensor" in why for why in report.recompiles)
    costs = [(entry.frames, entry.slots) for entry in report.entries]
    assert (1, 2) in {(frames, min(slots, 2)) for frames, slots in costs} and (0, 0) in costs
    assert "up to a break: restores 1 frame" in str(report)


def helper(value):
    if isinstance(value, torch.Tensor):
        return value * 2 + 1
    if value is None:
        print(end="")
        return None
    if isinstance(value, str):
        raise ValueError(value)
    return value + 1


def direct(value):
    return helper(value)


def through_a_loop(value):
    return [helper(v) for v in (value,)][0]


def in_a_generator(value):
    return next(helper(v) for v in (value,))


def behind_a_break(value):
    print(end="")
    return helper(value)


@pytest.mark.parametrize("order", list(permutations([3, "text", None, "tensor"])))
def test_no_order_of_calls_keeps_a_function_eager(order: tuple[object, ...]) -> None:
    """A code object that had no tensor work, or raised, at its first calls is recorded when it has some."""
    callers = [helper, direct, through_a_loop, in_a_generator, behind_a_break]
    compiled = [flashpoint.compile(caller) for caller in callers]
    for kind in order:
        for eager, fast in zip(callers, compiled, strict=True):
            for i in range(3):
                value = torch.ones(2) + i if kind == "tensor" else kind
                expected, actual = (_outcome(fn, value) for fn in (eager, fast))
                assert expected == actual
    for caller, fast in zip(callers, compiled, strict=True):
        value = torch.ones(3) * 5
        fast(value)
        flashpoint.reset_counters()
        assert torch.equal(fast(value), value * 2 + 1)
        counters = flashpoint.counters()
        assert (counters["hits"], counters["captures_started"]) == (1, 0)
        assert counters["ops_replayed"] == 2 or caller is in_a_generator  # what a generator does runs eagerly


def _outcome(fn, value):
    try:
        return str(fn(value))
    except ValueError as error:
        return repr(error)


def test_what_breaks_cost() -> None:
    def fn(x):
        y = x + 1
        print(end="")
        return y * 2

    report = flashpoint.explain(fn)(torch.ones(2))
    assert len(report.breaks) == 1
    found = report.breaks[0]
    assert 0 < found.hand_over_us < 1e6 and 0 < found.resume_us < 1e6
    assert "us to hand over" in str(report) and "us to resume" in str(report)
    assert not flashpoint.config.measure_breaks

    compiled = flashpoint.compile(fn)
    compiled(torch.ones(2))
    assert flashpoint.explaining.inspect_compiled(compiled).breaks[0].hand_over_us < 0


def test_the_log_says_what_is_skipped_and_what_a_break_costs() -> None:
    program = """
import torch, flashpoint
class D:
    n = 2
    def __del__(self): pass
held = []
def failing(x): return x * 2, MemoryError()
def dying(x):
    d = held.pop()
    print(end="")
    return x * d.n
def fine(x):
    print(end="")
    return x * 2
flashpoint.config.measure_breaks = True
for fn in (failing, dying, fine):
    compiled = flashpoint.compile(fn)
    for _ in range(6):
        held.append(D())
        compiled(torch.ones(2))
"""
    environment = {**os.environ, "FLASHPOINT_LOG": "break"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"skip failing, \d+ more times: .*MemoryError", done.stderr), done.stderr
    assert re.search(r"skip the rest of dying: something of its own", done.stderr), done.stderr
    assert re.search(r"resumed in fine: hand-over [\d.]+ us, resume [\d.]+ us", done.stderr), done.stderr


def _init(x):
    class Made:
        def __init__(self, value):
            print(end="")
            self.value = value + 1

    return Made(x * 2).value - 1


def _region(x):
    with torch.no_grad():
        y = x * 2
        print(end="")
        y = y + 1
    return y * 3


def _handler(x):
    try:
        raise KeyError("a")
    except KeyError as error:
        y = x + 1
        print(end="")
        return y * len(error.args)


def _nested(x, depth=3):
    y = x + depth
    if depth:
        y = _nested(y, depth - 1)
    print(end="")
    return y * 2


def _loop(x):
    for _ in range(4):
        x = x * 2
        print(end="")
    return x


def _branch(x):
    return x * 2 if x.sum() > 0 else x - 1


def _item(x):
    return x * x.max().item()


def _comprehension(x):
    return [(print(end=""), x + n)[1] for n in range(3)]


def _property(x):
    class Box:
        @property
        def twice(self):
            print(end="")
            return x * 2

    return Box().twice + 1


def _raising(x):
    y = x + 1
    print(end="")
    if y.shape[0] == 3:
        raise ValueError(y.shape)
    return y


MEASURED = [_init, _region, _handler, _nested, _loop, _branch, _item, _comprehension, _property, _raising]


@pytest.mark.parametrize("fn", MEASURED, ids=[fn.__name__ for fn in MEASURED])
def test_measuring_changes_nothing(fn) -> None:
    compiled = flashpoint.compile(fn)
    with flashpoint.config.patch(measure_breaks=True):
        for i, n in enumerate((2, 2, 2, 3)):
            value = torch.arange(n) + float(i)
            assert _outcome(fn, value) == _outcome(compiled, value)
        breaks = flashpoint.explaining.inspect_compiled(compiled).breaks
    assert breaks and all(found.hand_over_us > 0 for found in breaks)
