"""Tensors made in the call with a class, a gradient, attributes or hooks: parameters above all."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from torch import nn

os.environ.setdefault("FLASHPOINT_STRICT", "1")

import flashpoint  # noqa: E402
from tests.python.test_base_level import fresh, leaf, plain, replays  # noqa: E402, F401


def in_one_graph(fn: Callable, inputs: Callable[[], tuple], backend: str = "eager") -> list[tuple]:
    """What compiled calls and eager ones gave; from the third call on one graph answers."""
    compiled = flashpoint.compile(fn, backend=backend)
    pairs = []
    for i in range(5):
        if i == 2:
            before = flashpoint.counters()
        torch.manual_seed(i)
        got = compiled(*inputs())
        torch.manual_seed(i)
        pairs.append((got, fn(*inputs())))
    after = flashpoint.counters()
    assert after["hits"] - before["hits"] == 3, compiled.last_report()
    for counter in ("captures_started", "resume_hits", "eager_calls", "restarts", "breaks_resumed"):
        assert after[counter] == before[counter], (counter, compiled.last_report())
    return pairs


def with_history(x: torch.Tensor) -> tuple:
    p = nn.Parameter(x * 2)
    return p, (p * x).sum()


@pytest.mark.parametrize("backend", ["eager", "native"])
def test_a_parameter_with_history(backend: str) -> None:
    for (p, loss), (q, want) in in_one_graph(with_history, plain, backend):
        assert type(p) is nn.Parameter and p.is_leaf and p.requires_grad and p.grad is None
        assert loss.grad_fn.next_functions[0][0].next_functions[0][0].variable is p
        loss.backward()
        want.backward()
        assert torch.equal(p, q) and torch.equal(p.grad, q.grad)


def test_a_parameter_shares_memory() -> None:
    def fn(x: torch.Tensor) -> tuple:
        y = x + 1
        return nn.Parameter(y), y

    for (p, y), _ in in_one_graph(fn, plain):
        assert p.data_ptr() == y.data_ptr() and type(y) is torch.Tensor
        with torch.no_grad():
            p.zero_()
        assert y.tolist() == [0.0, 0.0, 0.0]


def test_a_parameter_of_an_argument() -> None:
    kept = []

    def fn(x: torch.Tensor) -> torch.Tensor:
        return nn.Parameter(x, requires_grad=False)

    def inputs() -> tuple:
        kept.append(torch.randn(3))
        return (kept[-1],)

    for p, q in in_one_graph(fn, inputs):
        assert type(p) is nn.Parameter and not p.requires_grad and type(q) is nn.Parameter
        assert any(p.data_ptr() == x.data_ptr() for x in kept)


@pytest.mark.parametrize("grad", [True, False])
def test_a_module_made_in_the_call(grad: bool) -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        with torch.set_grad_enabled(grad):
            return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))(x)

    for got, want in in_one_graph(fn, plain):
        assert torch.equal(got, want) and got.requires_grad == grad


def test_a_module_is_given_a_parameter() -> None:
    class Holder(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.weight = nn.Parameter(x + 1)
            return self.weight * 2

    module = Holder()
    for got, want in in_one_graph(module, plain):
        assert torch.equal(got, want)
    assert isinstance(module._parameters["weight"], nn.Parameter)


def test_a_parameter_that_is_trained_in_the_call() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        p = nn.Parameter(x.clone())
        (p * p).sum().backward()
        return p

    for p, q in in_one_graph(fn, plain):
        assert (
            type(p) is nn.Parameter and p.requires_grad and torch.equal(p, q) and torch.equal(p.grad, q.grad)
        )
        (p * 3).sum().backward()
        assert torch.equal(p.grad, q.grad + 3)


def test_a_parameter_behind_a_write_is_a_break() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        x.add_(1)
        return nn.Parameter(x * 2) * 3

    compiled = flashpoint.compile(fn, backend="eager")
    for i in range(4):
        x = torch.full((3,), float(i))
        assert compiled(x).tolist() == [6.0 * (i + 1)] * 3 and x.tolist() == [i + 1.0] * 3
    assert flashpoint.counters()["hits"] > 0


def test_a_subclass_of_parameter_is_a_break() -> None:
    class Mine(nn.Parameter):
        pass

    def fn(x: torch.Tensor) -> torch.Tensor:
        return Mine(x + 1).detach() * 2

    compiled = flashpoint.compile(fn, backend="eager")
    for _ in range(4):
        x = torch.randn(3)
        got, want = compiled(x), fn(x)
        assert type(got) is type(want) and torch.equal(
            got.as_subclass(torch.Tensor), want.as_subclass(torch.Tensor)
        )


def test_lazy_modules_are_compiled_from_the_second_call_on() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.LazyLinear(3), nn.ReLU())
    compiled = flashpoint.compile(module, backend="eager")
    x = torch.randn(2, 4)
    compiled(x)
    compiled(x)
    before = flashpoint.counters()
    for _ in range(3):
        x = torch.randn(2, 4)
        assert torch.equal(compiled(x), module(x))
    after = flashpoint.counters()
    assert after["hits"] == before["hits"] + 3 and after["captures_started"] == before["captures_started"]


def test_a_gradient_that_is_stored() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        t = torch.zeros_like(x)
        t.grad = x * 2
        return t.grad + 1

    replays(fn, plain)


def test_a_tensor_leaves_with_its_gradient() -> None:
    def fn(x: torch.Tensor) -> tuple:
        t = torch.zeros_like(x)
        t.grad = x * 2
        return t, t.grad

    for (t, grad), (_, want) in in_one_graph(fn, plain):
        assert t.grad is grad and torch.equal(grad, want)


def test_a_tensor_leaves_with_its_attributes() -> None:
    def fn(x: torch.Tensor) -> tuple:
        t = x + 1
        t.called, t.size_of_it = "t", 3
        return t, [t]

    for (t, (again,)), _ in in_one_graph(fn, plain):
        assert t is again and t.called == "t" and t.size_of_it == 3


def test_a_buffer() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return nn.Buffer(x + 1)

    for got, want in in_one_graph(fn, plain):
        assert isinstance(got, nn.Buffer) and got.persistent and torch.equal(got, want)


def test_a_hook_that_stays() -> None:
    seen: list = []

    def fn(x: torch.Tensor) -> tuple:
        t = x * 2
        t.register_hook(lambda gradient: gradient * 3)
        t.register_hook(lambda gradient: seen.append(gradient.sum().item()))
        return t, (t * t).sum()

    inputs: list[torch.Tensor] = []

    def make() -> tuple:
        inputs.append(torch.randn(3, requires_grad=True))
        return (inputs[-1],)

    for (t, loss), (_, want) in in_one_graph(fn, make):
        assert not t.is_leaf
        ours, theirs = inputs[0], inputs[1]
        del inputs[:2]
        loss.backward()
        want.backward()
        assert torch.equal(ours.grad, theirs.grad) and len(seen) == 2 and seen[0] == seen[1]
        seen.clear()


def triple(gradient: torch.Tensor) -> torch.Tensor:
    return gradient * 3


def test_another_hook() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        t = x * 2
        t.register_hook(triple)
        return t.sum()

    global triple
    compiled = flashpoint.compile(fn, backend="eager")
    first = triple
    try:
        for factor in (3, 3, 3, 5, 5):
            if factor == 5:

                def triple(gradient: torch.Tensor) -> torch.Tensor:
                    return gradient * 5

            (x,) = leaf()
            compiled(x).backward()
            assert x.grad.tolist() == [2.0 * factor] * 3
    finally:
        triple = first


def test_a_hook_over_a_value_of_the_call() -> None:
    def fn(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        t = x * 2
        factor = scale + 1
        t.register_hook(lambda gradient: gradient * factor)
        return t.sum()

    compiled = flashpoint.compile(fn, backend="eager")
    for i in range(5):
        (x,) = leaf()
        compiled(x, torch.tensor(float(i))).backward()
        assert x.grad.tolist() == [2.0 * (i + 1)] * 3


def test_a_hook_that_is_removed() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        t = x * 2
        handle = t.register_hook(triple)
        y = t.sum()
        handle.remove()
        return y

    compiled = flashpoint.compile(fn, backend="eager")
    for _ in range(5):
        (x,) = leaf()
        compiled(x).backward()
        assert x.grad.tolist() == [2.0] * 3
