"""An optimizer's step as a compiled function of its own, and steps whose course changes with time."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch

os.environ.setdefault("FLASHPOINT_STRICT", "1")

import flashpoint  # noqa: E402

OPTIMIZERS: dict[str, tuple[type, dict]] = {
    "SGD": (torch.optim.SGD, {"momentum": 0.9}),
    "Adam": (torch.optim.Adam, {}),
    "AdamW, foreach": (torch.optim.AdamW, {"foreach": True}),
    "RMSprop": (torch.optim.RMSprop, {}),
    "Adagrad": (torch.optim.Adagrad, {}),
}


def training(kind: type, options: dict) -> tuple[torch.nn.Module, torch.optim.Optimizer, Callable]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 4))
    optimizer = kind(model.parameters(), lr=1e-2, **options)

    def backward(i: int) -> None:
        torch.manual_seed(i)
        optimizer.zero_grad()
        model(torch.randn(4, 8)).pow(2).mean().backward()

    return model, optimizer, backward


def same_state(ours: tuple, theirs: tuple) -> None:
    for a, b in zip(ours[0].parameters(), theirs[0].parameters(), strict=True):
        assert torch.equal(a, b)
        mine, other = ours[1].state[a], theirs[1].state[b]
        assert mine.keys() == other.keys()
        for key, value in other.items():
            assert torch.equal(mine[key], value) if isinstance(value, torch.Tensor) else mine[key] == value


@pytest.fixture(autouse=True)
def fresh() -> None:
    flashpoint.reset()


@pytest.mark.parametrize("peer", [False, True], ids=["alone", "beside torch.compile"])
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_a_step_alone(name: str, peer: bool) -> None:
    """The first step makes the state; the next is recorded, also where TorchDynamo has run in the process."""
    if peer:
        torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2))
    ours, theirs = training(*OPTIMIZERS[name]), training(*OPTIMIZERS[name])
    step = flashpoint.compile(lambda: ours[1].step(), backend="eager")
    for i in range(10):
        if i == 4:
            before = flashpoint.counters()
        ours[2](i)
        theirs[2](i)
        step()
        theirs[1].step()
        same_state(ours, theirs)
    after = flashpoint.counters()
    assert after["hits"] - before["hits"] == 6, step.last_report()
    for counter in ("misses", "captures_started", "resume_hits", "eager_calls", "restarts"):
        assert after[counter] == before[counter], (counter, step.last_report())


def test_a_step_alone_follows_the_state_of_the_parameter() -> None:
    ours, theirs = training(torch.optim.Adam, {}), training(torch.optim.Adam, {})
    step = flashpoint.compile(lambda: ours[1].step(), backend="eager")
    for i in range(12):
        ours[2](i)
        theirs[2](i)
        if i in (6, 8):
            for world in (ours, theirs):
                world[1].state[next(world[0].parameters())] = {}
        step()
        theirs[1].step()
        same_state(ours, theirs)


def test_a_tensor_argument_as_a_key() -> None:
    table: dict = {}

    def fn(x: torch.Tensor) -> torch.Tensor:
        return x * table[x]

    compiled = flashpoint.compile(fn, backend="eager")
    for i in range(12):
        x = torch.randn(3)
        table[x] = i
        assert torch.equal(compiled(x), fn(x))


@pytest.mark.parametrize("kind", [torch.optim.RAdam, torch.optim.ASGD])
def test_a_step_that_compares_numbers_of_its_state(kind: type) -> None:
    ours, theirs = training(kind, {"foreach": False}), training(kind, {"foreach": False})

    def whole(world: tuple) -> Callable:
        model, optimizer, _ = world

        def step(x: torch.Tensor) -> torch.Tensor:
            optimizer.zero_grad()
            loss = model(x).pow(2).mean()
            loss.backward()
            optimizer.step()
            return loss

        return step

    compiled, eager = flashpoint.compile(whole(ours), backend="eager"), whole(theirs)
    for i in range(20):
        if i == 10:
            before = flashpoint.counters()
        torch.manual_seed(i)
        x = torch.randn(4, 8)
        assert torch.equal(compiled(x), eager(x))
        same_state(ours, theirs)
    after = flashpoint.counters()
    assert after["hits"] - before["hits"] == 10, compiled.last_report()
    for counter in ("captures_started", "resume_hits", "eager_calls", "restarts"):
        assert after[counter] == before[counter], (counter, compiled.last_report())


def test_a_scheduler_in_the_step() -> None:
    def world() -> tuple:
        model, optimizer, _ = training(torch.optim.SGD, {"momentum": 0.9})
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)

        def step(x: torch.Tensor) -> float:
            optimizer.zero_grad()
            model(x).pow(2).mean().backward()
            optimizer.step()
            scheduler.step()
            return optimizer.param_groups[0]["lr"]

        return model, optimizer, step

    ours, theirs = world(), world()
    compiled = flashpoint.compile(ours[2], backend="eager")
    for i in range(12):
        torch.manual_seed(i)
        x = torch.randn(4, 8)
        assert compiled(x) == theirs[2](x)
        same_state(ours, theirs)
    assert flashpoint.counters()["hits"] > 0
