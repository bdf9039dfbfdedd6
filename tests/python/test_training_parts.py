"""Training steps that are one graph, or break inside of an optimizer's step and go on behind the break."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

import flashpoint

STEPS, LAST = 14, 4


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))


def with_optimizer(kind: type, **options: object) -> Callable:
    def make() -> tuple[torch.nn.Module, Callable]:
        net = model()
        optimizer = kind(net.parameters(), lr=0.01, **options)

        def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            optimizer.zero_grad()
            loss = F.mse_loss(net(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return net, step

    return make


def with_scaler(autocast: bool) -> Callable:
    def make() -> tuple[torch.nn.Module, Callable]:
        net = model()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=3)

        def step(x: torch.Tensor, y: torch.Tensor) -> tuple:
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                loss = F.mse_loss(net(x), y)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            return loss, norm, scaler.get_scale()

        return net, step

    return make


WHOLE = {
    "Rprop": with_optimizer(torch.optim.Rprop),
    "Rprop, foreach": with_optimizer(torch.optim.Rprop, foreach=True),
}
PARTS = {
    "scaler": with_scaler(False),
    "scaler and autocast": with_scaler(True),
}


# Whose steps take other ways with time, or read numbers that are not followed: the rest may run eagerly.
LEARNING = {
    "Adafactor": with_optimizer(torch.optim.Adafactor),
    "Adafactor, foreach": with_optimizer(torch.optim.Adafactor, foreach=True),
    "RAdam, foreach": with_optimizer(torch.optim.RAdam, foreach=True),
    "NAdam, foreach": with_optimizer(torch.optim.NAdam, foreach=True),
}


def train(make: Callable, compiled: bool) -> tuple[list, dict]:
    net, step = make()
    run = flashpoint.compile(step, backend="eager") if compiled else step
    torch.manual_seed(1)
    results: list = []
    before = flashpoint.counters()
    for i in range(STEPS):
        if i == STEPS - LAST:
            before = flashpoint.counters()
        results.append(run(torch.randn(4, 6), torch.randn(4, 3)))
    after = flashpoint.counters()
    results.extend(p.detach().clone() for p in net.parameters())
    return results, {name: after[name] - before[name] for name in after}


def check(make: Callable) -> dict:
    expected, _ = train(make, False)
    flashpoint.reset()
    found, last = train(make, True)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert last["hits"] == LAST and last["eager_calls"] == 0
    return last


@pytest.mark.parametrize("name", WHOLE)
def test_one_graph(name: str) -> None:
    last = check(WHOLE[name])
    assert last["resume_hits"] == 0 and last["captures_started"] == 0 and last["recordings_skipped"] == 0


@pytest.mark.parametrize("name", PARTS)
def test_breaks_inside_the_step_are_resumed(name: str) -> None:
    last = check(PARTS[name])
    assert last["resume_hits"] >= LAST and last["captures_started"] == 0 and last["recordings_skipped"] == 0


@pytest.mark.parametrize("name", LEARNING)
def test_steps_of_which_parts_run_compiled(name: str) -> None:
    check(LEARNING[name])


def test_a_mask_that_is_filled_in_place_raises_nothing() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        x.add_(1)
        x[x.gt(2)] = 5.0
        return x * 2

    compiled = flashpoint.compile(fn, backend="eager")
    for i in range(4):
        ours, theirs = torch.arange(4.0) - i, torch.arange(4.0) - i
        assert torch.equal(compiled(ours), fn(theirs)) and torch.equal(ours, theirs)
    assert flashpoint.counters()["captures_started"] == 1


def test_a_mask_of_values_may_still_raise() -> None:
    values = torch.ones(2)

    def fn(x: torch.Tensor) -> torch.Tensor:
        x.add_(1)
        x[x.gt(2)] = values
        return x * 2

    compiled = flashpoint.compile(fn, backend="eager")
    for start in (0.0, 0.0, 0.0):
        ours, theirs = torch.arange(4.0) + start, torch.arange(4.0) + start
        assert torch.equal(compiled(ours), fn(theirs)) and torch.equal(ours, theirs)
    ours = torch.arange(4.0) + 1
    with pytest.raises((IndexError, RuntimeError)):
        compiled(ours)
    assert torch.equal(ours, torch.arange(4.0) + 2)


def test_ranges_of_the_profiler_go_on_behind_a_break() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        with torch.profiler.record_function("outer"):
            y = x * 2
            print(end="")
            y = y + 1
        return y * 3

    compiled = flashpoint.compile(fn, backend="eager")
    x = torch.arange(3.0)
    for _ in range(4):
        assert torch.equal(compiled(x), fn(x))
    counters = flashpoint.counters()
    assert counters["hits"] == 3 and counters["resume_hits"] == 3, compiled.last_report()
    with torch.autograd.profiler.profile() as events:
        compiled(x)
    assert sum(event.name == "outer" for event in events.function_events) == 1
