"""Backends that compile in a thread, while calls run the recorded operators."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import flashpoint

BACKGROUND = {"background": True}


class Slow:
    """A backend that waits for `go`; what it has seen of the thread it ran in."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.graphs: list[torch.fx.GraphModule] = []
        self.runs = 0
        self.modes: list[tuple[bool, bool, bool]] = []
        self.thread: threading.Thread | None = None
        self.fails: Exception | None = None

    def __call__(self, module: torch.fx.GraphModule, examples: list[Any]) -> Callable[..., Any]:
        self.thread = threading.current_thread()
        self.modes.append(
            (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"))
        )
        assert self.go.wait(60)
        if self.fails is not None:
            raise self.fails
        self.graphs.append(module)

        def run(*inputs: torch.Tensor) -> Any:
            self.runs += 1
            return module(*inputs)

        return run


@pytest.fixture
def slow() -> Iterator[Slow]:
    backend = Slow()
    yield backend
    backend.go.set()
    assert flashpoint.wait_for_backends(60)


def compiled_with(backend: Any, model: Any, **more: Any) -> Any:
    return flashpoint.compile(model, backend=backend, options=dict(BACKGROUND), **more)


def test_calls_run_meanwhile(slow: Slow) -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2)).eval()
    compiled = compiled_with(slow, net)
    x = torch.randn(3, 4)
    want = net(x)
    flashpoint.reset_counters()
    for _ in range(4):
        assert torch.equal(compiled(x), want)
    assert (slow.runs, flashpoint.counters()["hits"]) == (0, 3)
    assert not flashpoint.wait_for_backends(0.01)
    slow.go.set()
    assert flashpoint.wait_for_backends(60)
    for _ in range(3):
        assert torch.equal(compiled(x), want)
    assert (slow.runs, flashpoint.counters()["hits"]) == (3, 6)
    assert slow.thread is not threading.current_thread()


def test_gradients_meanwhile_and_after(slow: Slow) -> None:
    net = nn.Linear(4, 2)
    compiled = compiled_with(slow, net)
    x = torch.randn(3, 4)

    def gradient(model: Any) -> torch.Tensor:
        net.zero_grad()
        model(x).square().sum().backward()
        return net.weight.grad.clone()

    want = gradient(net)
    for _ in range(3):
        assert torch.equal(gradient(compiled), want)
    slow.go.set()
    assert flashpoint.wait_for_backends(60)
    assert torch.equal(gradient(compiled), want)
    assert slow.runs == 1 and slow.modes == [(True, False, False)]


@pytest.mark.parametrize("name", ["no_grad", "inference", "autocast"])
def test_modes_reach_the_thread(slow: Slow, name: str) -> None:
    mode = {
        "no_grad": torch.no_grad,
        "inference": torch.inference_mode,
        "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    }[name]
    slow.go.set()
    net = nn.Linear(4, 2)
    compiled = compiled_with(slow, net)
    with mode():
        compiled(torch.ones(1, 4))
    assert flashpoint.wait_for_backends(60)
    assert slow.modes == [(name == "autocast", name == "inference", name == "autocast")]


def test_mutations_and_random_numbers_meanwhile(slow: Slow) -> None:
    def fn(x: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        state.add_(1)
        return nn.functional.dropout(x, 0.5) * state

    compiled = compiled_with(slow, fn)
    x, ours, theirs = torch.ones(64), torch.zeros(()), torch.zeros(())
    for call in range(6):
        if call == 3:
            slow.go.set()
            assert flashpoint.wait_for_backends(60)
        torch.manual_seed(call)
        want, after = fn(x, theirs), torch.rand(1)
        torch.manual_seed(call)
        assert torch.equal(compiled(x, ours), want)
        assert torch.equal(torch.rand(1), after)
        assert torch.equal(ours, theirs)
    assert slow.runs == 3


def test_numbers_and_breaks_meanwhile(slow: Slow) -> None:
    def fn(x: torch.Tensor, k: float) -> torch.Tensor:
        y = x * k
        flashpoint.graph_break()
        return y + 1

    compiled = compiled_with(slow, fn)
    x = torch.arange(4.0)
    for call in range(8):
        if call == 5:
            slow.go.set()
            assert flashpoint.wait_for_backends(60)
        assert torch.equal(compiled(x, 0.5 + call), fn(x, 0.5 + call))
    assert slow.runs > 0


@pytest.mark.parametrize("result", [ValueError("nothing to compile"), "not callable"])
def test_errors_are_reported(slow: Slow, result: Any, caplog: pytest.LogCaptureFixture) -> None:
    backend: Any = slow if isinstance(result, Exception) else lambda module, examples: result
    slow.fails = result if isinstance(result, Exception) else None
    slow.go.set()
    compiled = compiled_with(backend, lambda x: x.sin() + 1)
    x = torch.arange(4.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3):
            assert torch.equal(compiled(x), x.sin() + 1)
        assert flashpoint.wait_for_backends(60)
    assert torch.equal(compiled(x), x.sin() + 1)
    assert "failed in the background" in caplog.text
    assert ("nothing to compile" if backend is slow else "must return a callable") in caplog.text


@pytest.mark.parametrize("backend", ["aot_eager", "aot_eager_decomp_partition"])
def test_backends_by_name(backend: str) -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2))
    compiled = compiled_with(backend, net)
    x = torch.randn(3, 4)
    for call in range(4):
        if call == 2:
            assert flashpoint.wait_for_backends(120)
        net.zero_grad()
        net(x).sum().backward()
        want = [p.grad.clone() for p in net.parameters()]
        net.zero_grad()
        compiled(x).sum().backward()
        torch.testing.assert_close([p.grad for p in net.parameters()], want)


def test_in_the_child_of_a_fork(slow: Slow) -> None:
    compiled = compiled_with(slow, lambda x: x * 3)
    x = torch.arange(4.0)
    compiled(x)
    child = os.fork()
    if child == 0:
        try:
            ok = torch.equal(compiled(x), x * 3) and flashpoint.wait_for_backends(1) and slow.runs == 0
            other = compiled_with(lambda module, examples: module.forward, lambda x: x * 5)
            ok = ok and torch.equal(other(x), x * 5) and flashpoint.wait_for_backends(60)
            os._exit(0 if ok and torch.equal(other(x), x * 5) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match=r'^\[flashpoint.compile\] options\["background"\] must be True'):
        flashpoint.compile(lambda x: x, backend="aot_eager", options={"background": 1})
    with pytest.raises(ValueError, match="unknown options: background"):
        flashpoint.compile(lambda x: x, backend="native", options=dict(BACKGROUND))
    with pytest.raises(TypeError, match=r"^\[flashpoint.wait_for_backends\] timeout must be seconds"):
        flashpoint.wait_for_backends("1")  # type: ignore[arg-type]
