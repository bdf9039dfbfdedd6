"""A gradient that compiled code has read dies where eager's does: when the program lets go of it."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest
import torch

import flashpoint


def reads(parameter):
    return lambda: parameter.grad + 1


def asks(parameter):
    return lambda: None if parameter.grad is None else parameter.grad.is_sparse


def collects(parameter):
    def step():
        held = []
        if parameter.grad is not None:
            held.append(parameter.grad)
        return held[0] * 2

    return step


def writes(parameter):
    def step():
        with torch.no_grad():
            parameter.sub_(parameter.grad)

    return step


def steps(optimizer: Callable[..., torch.optim.Optimizer], **options):
    def make(parameter):
        made = optimizer([parameter], lr=0.1, **options)
        return lambda: made.step()

    return make


PROGRAMS = {
    "reads": reads,
    "asks": asks,
    "collects": collects,
    "writes": writes,
    "sgd": steps(torch.optim.SGD, foreach=False),
    "sgd foreach": steps(torch.optim.SGD, foreach=True),
    "adam": steps(torch.optim.Adam, foreach=False),
    "adam foreach": steps(torch.optim.Adam, foreach=True),
}


@pytest.mark.parametrize("backend", ["eager", "native"])
@pytest.mark.parametrize("calls", [1, 2, 3, 5])
@pytest.mark.parametrize("program", PROGRAMS)
def test_gradient_dies(program: str, calls: int, backend: str) -> None:
    parameter = torch.nn.Parameter(torch.ones(4))
    compiled = flashpoint.compile(PROGRAMS[program](parameter), backend=backend)
    for _ in range(calls):
        parameter.grad = None
        (parameter * 2).sum().backward()
        compiled()
    gradient = weakref.ref(parameter.grad)
    parameter.grad = None
    assert gradient() is None
    if calls == 5:
        assert flashpoint.counters()["hits"] >= 2


def test_gradient_of_a_call_that_missed_dies() -> None:
    parameter = torch.nn.Parameter(torch.ones(4))
    compiled = flashpoint.compile(lambda scale: parameter.grad.sum() * len(scale), backend="eager")
    for call in range(6):
        parameter.grad = None
        (parameter * 2).sum().backward()
        compiled("x" * call)
    gradient = weakref.ref(parameter.grad)
    parameter.grad = None
    assert gradient() is None
