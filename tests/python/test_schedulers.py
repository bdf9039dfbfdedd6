"""Learning rate schedulers of torch: their lists of numbers change with each step, the recordings do not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

import flashpoint

# Two groups of parameters; how many calls pass until nothing new is met; breaks at each step after that.
SCHEDULERS: dict[str, tuple[Callable[[Any], Any], int, int]] = {
    "StepLR": (lambda o: lr_scheduler.StepLR(o, 3, 0.5), 8, 0),
    "CosineAnnealingLR": (lambda o: lr_scheduler.CosineAnnealingLR(o, 40), 6, 0),
    "LambdaLR": (lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.95**epoch), 6, 0),
    "MultiplicativeLR": (lambda o: lr_scheduler.MultiplicativeLR(o, lambda epoch: 0.97), 6, 0),
    "OneCycleLR": (lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=100), 8, 0),
    "LinearLR": (lambda o: lr_scheduler.LinearLR(o, total_iters=40), 6, 0),
    "CosineAnnealingWarmRestarts": (lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5), 8, 0),
    "CyclicLR": (lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 5), 8, 0),
    "PolynomialLR": (lambda o: lr_scheduler.PolynomialLR(o, 40, 2.0), 8, 0),
    "MultiStepLR": (lambda o: lr_scheduler.MultiStepLR(o, [3, 60]), 8, 1),
}


def world(make: Callable[[Any], Any]) -> tuple:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)]
    groups = [{"params": layer.parameters(), "lr": 0.1 / (i + 1)} for i, layer in enumerate(layers)]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    return torch.nn.Sequential(*layers), optimizer, make(optimizer)


def state_of(case: tuple) -> tuple:
    model, optimizer, scheduler = case
    rates = [(group["lr"], group["momentum"]) for group in optimizer.param_groups]
    return rates, scheduler.last_epoch, scheduler._last_lr, [p.detach().clone() for p in model.parameters()]


def compare(
    make: Callable, step_of: Callable, calls: int, warm: int, breaks: int, *more: Callable[[int], Any]
) -> None:
    ours, theirs = world(make), world(make)
    compiled, eager = flashpoint.compile(step_of(*ours), backend="eager"), step_of(*theirs)
    for i in range(calls):
        if i == warm:
            before = flashpoint.counters()
        torch.manual_seed(i)
        args = (torch.randn(3, 4), *(m(i) for m in more))
        torch.testing.assert_close(compiled(*args), eager(*args), rtol=0, atol=0)
        torch.testing.assert_close(state_of(ours), state_of(theirs), rtol=0, atol=0)
    after = flashpoint.counters()
    assert after["hits"] - before["hits"] == calls - warm, compiled.last_report()
    assert after["resume_hits"] - before["resume_hits"] == breaks * (calls - warm), compiled.last_report()
    for counter in ("captures_started", "eager_calls", "misses"):
        assert after[counter] == before[counter], (counter, compiled.last_report())


@pytest.mark.parametrize("name", list(SCHEDULERS))
def test_alone(name: str) -> None:
    make, warm, breaks = SCHEDULERS[name]

    def step_of(model: Any, optimizer: Any, scheduler: Any) -> Callable:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.step()

        def step(x: torch.Tensor) -> tuple:
            scheduler.step()
            return x * optimizer.param_groups[1]["lr"], scheduler.get_last_lr()

        return step

    compare(make, step_of, warm + 8, warm, breaks)


def training_step(model: Any, optimizer: Any, scheduler: Any) -> Callable:
    def step(x: torch.Tensor, *metric: float) -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(x).pow(2).mean()
        loss.backward()
        optimizer.step()
        scheduler.step(*metric)
        return loss.detach()

    return step


@pytest.mark.parametrize("name", list(SCHEDULERS))
def test_in_a_training_step(name: str) -> None:
    make, warm, breaks = SCHEDULERS[name]
    compare(make, training_step, warm + 14, warm + 6, breaks)


@pytest.mark.parametrize("name", ["StepLR", "OneCycleLR"])
def test_beside_a_training_step(name: str) -> None:
    """The scheduler runs in eager mode, and the compiled step takes the rate as it finds it."""

    def step_of(model: Any, optimizer: Any, scheduler: Any) -> Callable:
        inner = training_step(model, optimizer, type("Nothing", (), {"step": lambda self: None})())
        if step_of.compiled:
            inner = flashpoint.compile(inner, backend="eager")
        step_of.compiled = not step_of.compiled

        def step(x: torch.Tensor) -> torch.Tensor:
            loss = inner(x)
            scheduler.step()
            return loss

        return step

    step_of.compiled = True
    make = SCHEDULERS[name][0]
    ours, theirs = world(make), world(make)
    compiled, eager = step_of(*ours), step_of(*theirs)
    for i in range(16):
        if i == 8:
            before = flashpoint.counters()
        torch.manual_seed(i)
        x = torch.randn(3, 4)
        torch.testing.assert_close(compiled(x), eager(x), rtol=0, atol=0)
        torch.testing.assert_close(state_of(ours), state_of(theirs), rtol=0, atol=0)
    after = flashpoint.counters()
    assert after["hits"] - before["hits"] == 8 and after["captures_started"] == before["captures_started"]


def test_reduce_on_plateau() -> None:
    metrics = [5.0, 4.0, 3.0] + [3.5, 3.2, 3.3, 3.1] * 12

    def make(optimizer: Any) -> Any:
        return lr_scheduler.ReduceLROnPlateau(optimizer, patience=2)

    compare(make, training_step, 40, 32, 0, lambda i: metrics[i])
