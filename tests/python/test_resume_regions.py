"""Breaks inside torch.inference_mode(): the region is entered again, and left as in eager mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import flashpoint
from flashpoint import _C


def state(y: Any) -> tuple[Any, ...]:
    return y.is_inference(), y.requires_grad, torch.is_grad_enabled(), torch.is_inference_mode_enabled()


def block(x):
    with torch.inference_mode():
        y = x + 1
        print(end="")
        y = y * 2
    return y, x * 3


def two_breaks(x):
    with torch.inference_mode():
        y = x + 1
        print(end="")
        y = y * 2
        print(end="")
        z = y - x
    print(end="")
    return z, x * 3


def under_no_grad(x):
    with torch.no_grad():
        with torch.inference_mode():
            y = x + 1
            print(end="")
            y = y * 2
        z = x * 3
    return y, z, x * 4


def inside_of_enable_grad(x):
    with torch.inference_mode(), torch.enable_grad():
        y = x + 1
        print(end="")
        y = y * 2
    return y, x * 3


def switched_off(x):
    with torch.inference_mode():
        y = x + 1
        print(end="")
        with torch.inference_mode(False):
            z = torch.ones(2, requires_grad=True) * 2
            print(end="")
            z = z * 3
        y = y * 2
    return y, z


def off_already(x):
    with torch.inference_mode(False):
        y = x + 1
        print(end="")
        y = y * 2
    return y, x * 3


@torch.inference_mode()
def decorated(x):
    y = x + 1
    print(end="")
    return y * 2


def of_a_callee(x):
    y = decorated(x)
    print(end="")
    return y + 1, x * 3


def raising(x):
    try:
        with torch.inference_mode():
            y = x + 1
            print(end="")
            raise ValueError("in")
    except ValueError:
        print(end="")
        return y, x * 2


@pytest.mark.parametrize(
    "fn",
    [
        block,
        two_breaks,
        under_no_grad,
        inside_of_enable_grad,
        switched_off,
        off_already,
        of_a_callee,
        raising,
    ],
    ids=lambda fn: fn.__name__,
)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_break_in_inference_mode(fn: Callable[..., Any], requires_grad: bool) -> None:
    compiled = flashpoint.compile(fn)
    for i in range(9):
        x = torch.full((2,), float(i), requires_grad=requires_grad)
        expected = [(y.detach(), state(y)) for y in fn(x)]
        flashpoint.reset_counters()
        actual = [(y.detach(), state(y)) for y in compiled(x)]
        for (left, left_state), (right, right_state) in zip(expected, actual, strict=True):
            assert torch.equal(left, right) and left_state == right_state
        assert not _C._graph_enabled() and not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
    counters = flashpoint.counters()
    assert (counters["hits"], counters["captures_started"], counters["frames_handed_over"]) == (1, 0, 0)


def test_inference_tensors_are_told_apart() -> None:
    def fn(x):
        print(end="")
        return x * 2

    compiled = flashpoint.compile(fn)
    plain = torch.ones(2)
    with torch.inference_mode():
        inference = torch.ones(2)
    for x in (plain, inference, plain, inference):
        assert compiled(x).is_inference() == fn(x).is_inference()
