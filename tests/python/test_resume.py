"""Graph breaks that resume: results, exceptions and effects are eager's, and both sides are replayed."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import pytest
import torch
from torch import nn

import flashpoint
from flashpoint import _C


@pytest.fixture(autouse=True)
def resuming():
    with flashpoint.config.patch(resume_breaks=True, value_guards=False), torch.no_grad():
        yield
    _C.set_config("break_at_event", 0)


def printing(x):
    y = x + 1
    print("between", tuple(y.shape))
    return y * 2


def branching(x):
    y = x * 2
    z = y + 10 if y.sum() > 0 else y - 10
    return z * 3


def reading(x):
    y = x + 1
    return y * y.sum().item()


def nested(x):
    a = reading(x) + 1
    return a + reading(a) * 2


def looping(x):
    for i in range(3):
        x = x + 1
        print("step", i)
        x = x * 2
    return x


def over_dict(x):
    for name, value in {"a": 1, "b": 2}.items():
        x = x + value
        print(name)
    return x


def comprehension(x):
    return torch.stack([x * k if (x * k).sum() > 0 else x for k in range(1, 4)])


def recursive(x, depth=3):
    if depth == 0:
        print("bottom")
        return x
    return recursive(x + 1, depth=depth - 1) * 2


def closing_over(x):
    total = x

    def add(y):
        nonlocal total
        total = total + y
        print("added")
        return total

    return add(x) + add(x * 2)


def raising(x):
    y = x + 1
    try:
        print("before")
        raise ValueError("no")
    except ValueError:
        y = y * 3
    finally:
        y = y + 1
    return y


def with_grad_mode(x):
    with torch.enable_grad():
        print("inside")
        y = x * 2
    return y, torch.is_grad_enabled()


class Printing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        y = self.linear(x)
        print("module")
        return y + 1


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Printing() for _ in range(3)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x * 2


class Pair:
    def __init__(self, x):
        self.double = x * 2
        print("made")
        self.triple = x * 3


def constructing(x):
    pair = Pair(x)
    return pair.double + pair.triple


def appending(x):
    values = [1, 2]
    for value in values:
        print("value", value)
        if len(values) < 4:
            values.append(value + 2)
        x = x + value
    return x, values


class Shifted(list):
    def __getitem__(self, i):
        return list.__getitem__(self, i) + 100


def backwards(x):
    for value in reversed(Shifted([1, 2, 3])):
        print("value", value)
        x = x + value
    return x


PROGRAMS = [appending, backwards, printing, branching, reading, nested, looping, over_dict, comprehension,
            recursive, closing_over,
            raising, with_grad_mode, constructing]  # fmt: skip


def run(fn, x):
    out = io.StringIO()
    with redirect_stdout(out):
        result = fn(x)
    return result, out.getvalue()


def same(a, b) -> bool:
    if isinstance(a, tuple):
        return all(same(p, q) for p, q in zip(a, b, strict=True))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def check(fn, *inputs):
    compiled = flashpoint.compile(fn)
    for x in inputs:
        assert same(run(compiled, x), run(fn, x))


@pytest.mark.parametrize("fn", PROGRAMS, ids=lambda f: f.__name__)
def test_results_and_output_are_eagers(fn):
    x = torch.arange(16.0).reshape(4, 4)
    check(fn, x, x, -x, x + 1, x)


@pytest.mark.parametrize("fn", [printing, branching, nested, looping, over_dict, recursive, constructing])
def test_both_sides_of_a_break_are_replayed(fn):
    compiled = flashpoint.compile(fn)
    x = torch.ones(4, 4)
    run(compiled, x)
    before = flashpoint.counters()
    assert before["breaks_resumed"] > 0
    assert same(run(compiled, x), run(fn, x))
    after = flashpoint.counters()
    assert after["captures_started"] == before["captures_started"]
    assert after["hits"] == before["hits"] + 1
    assert after["resume_hits"] - before["resume_hits"] == before["breaks_resumed"]


@pytest.mark.parametrize("make", [Printing, Stack])
def test_modules(make):
    model = make()
    check(model, torch.randn(2, 4), torch.randn(2, 4), torch.randn(3, 4))
    assert flashpoint.counters()["resume_hits"] > 0


@pytest.mark.parametrize("fn", PROGRAMS, ids=lambda f: f.__name__)
def test_a_break_at_every_event(fn):
    x = torch.ones(4, 4)
    for event in range(1, 60):
        _C.set_config("break_at_event", event)
        check(fn, x, x, -x)


def test_off_by_default():
    with flashpoint.config.patch(resume_breaks=False):
        compiled = flashpoint.compile(printing)
        run(compiled, torch.ones(2))
        assert flashpoint.counters()["captures_kept"] == 0
