"""Code of the program that the engine calls: hooks, custom backwards, recomputation, in one graph."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from torch.utils.checkpoint import checkpoint

os.environ.setdefault("FLASHPOINT_STRICT", "1")

import flashpoint  # noqa: E402
from tests.python.test_base_level import fresh, leaf, replays, same, scalar_of  # noqa: E402, F401


def test_a_hook_of_a_fresh_tensor() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        y.register_hook(lambda gradient: gradient * 3)
        loss = (y * x).sum()
        loss.backward()
        return loss.detach()

    replays(fn, leaf)


def test_a_hook_that_gives_nothing_and_is_removed() -> None:
    def fn(x: torch.Tensor) -> object:
        y = x * 2
        seen = []
        handle = y.register_hook(lambda gradient: seen.append(gradient * 5))
        (y * x).sum().backward()
        handle.remove()
        return seen

    replays(fn, leaf)


def test_hooks_in_their_order() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        y = x.sin()
        y.register_hook(lambda gradient: gradient + 1)
        y.register_hook(lambda gradient: gradient * 2)
        (gradient,) = torch.autograd.grad((y * y).sum(), x)
        return gradient

    replays(fn, leaf)


SCALE = 2.0


def scaled(gradient: torch.Tensor) -> torch.Tensor:
    return gradient * SCALE


def test_what_a_hook_reads_is_guarded() -> None:
    global SCALE

    def fn(x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        y.register_hook(scaled)
        (gradient,) = torch.autograd.grad((y * x).sum(), x)
        return gradient

    compiled = flashpoint.compile(fn, backend="eager")
    try:
        for scale in (2.0, 2.0, 2.0, 5.0, 5.0, 2.0):
            SCALE = scale
            x = torch.randn(3, requires_grad=True)
            same(compiled(x), fn(x))
    finally:
        SCALE = 2.0
    assert flashpoint.counters()["hits"] > 0


def test_a_hook_of_an_input_is_a_break() -> None:
    calls: list[int] = []

    def fn(x: torch.Tensor) -> torch.Tensor:
        x.register_hook(lambda gradient: calls.append(1))
        loss = (x * x).sum()
        loss.backward()
        return loss.detach()

    compiled = flashpoint.compile(fn, backend="eager")
    for i in range(4):
        x = torch.randn(3, requires_grad=True)
        compiled(x)
        assert len(calls) == i + 1
        x.grad = None
        (x * 2).sum().backward()
        assert len(calls) == i + 2
        calls.pop()


def test_a_post_accumulate_hook_of_a_fresh_leaf() -> None:
    def fn(x: torch.Tensor) -> object:
        y = (x * 2).detach().requires_grad_()
        seen = []
        y.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad * 1))
        (y * x).sum().backward()
        return seen

    replays(fn, leaf)


def test_retain_grad() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        y = x.exp()
        y.retain_grad()
        (y * y).sum().backward()
        return y.grad * 2

    replays(fn, leaf)


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.save_for_backward(x, x.exp())
        ctx.factor = factor
        return x * factor

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> tuple:
        x, saved = ctx.saved_tensors
        assert ctx.needs_input_grad[0]
        return gradient * saved * ctx.factor + x, None


class Split(torch.autograd.Function):
    @staticmethod
    def forward(x: torch.Tensor) -> tuple:
        return x.sin(), x.cos(), x * 1

    @staticmethod
    def setup_context(ctx: object, inputs: tuple, output: tuple) -> None:
        ctx.save_for_backward(*inputs)
        ctx.mark_non_differentiable(output[2])

    @staticmethod
    def backward(ctx: object, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return a * x.cos() - b * x.sin()


def test_a_custom_backward() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        loss = (Twice.apply(x, 3.0) * x).sum()
        loss.backward()
        return loss.detach()

    replays(fn, leaf)


def test_a_custom_backward_of_several_results() -> None:
    def fn(x: torch.Tensor) -> object:
        a, b, c = Split.apply(x)
        (gradient,) = torch.autograd.grad((a * b).sum(), x)
        return gradient, c

    replays(fn, leaf)


def test_a_loss_behind_a_custom_backward() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        loss = (Twice.apply(x, 3.0).exp() * x).sum()
        loss.backward()
        return loss

    compiled = flashpoint.compile(fn, backend="eager")
    for _ in range(5):
        x = torch.randn(3, requires_grad=True)
        y = x.detach().clone().requires_grad_()
        got, want = compiled(x), fn(y)
        assert torch.equal(got, want) and torch.equal(x.grad, y.grad)
        assert got.requires_grad
        for loss in (got, want):
            with pytest.raises(RuntimeError, match="second time"):
                loss.backward()
    assert flashpoint.counters()["hits"] == 3


def block(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(x @ w).sin()


def two() -> tuple:
    return torch.randn(4, 3), torch.randn(3, 3, requires_grad=True)


def right(fn: Callable, inputs: Callable, calls: int = 5) -> flashpoint.CompiledFunction:
    compiled = flashpoint.compile(fn, backend="eager")
    for i in range(calls):
        torch.manual_seed(i)
        ours = inputs()
        torch.manual_seed(i)
        theirs = inputs()
        torch.manual_seed(100 + i)
        got = compiled(*ours)
        torch.manual_seed(100 + i)
        same(got, fn(*theirs))
        for a, b in zip(ours, theirs, strict=True):
            assert (a.grad is None) == (b.grad is None)
            assert a.grad is None or torch.equal(a.grad, b.grad)
    return compiled


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint_is_a_break(reentrant: bool) -> None:
    def fn(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        y = checkpoint(block, x, w, use_reentrant=reentrant)
        loss = (y * y).sum()
        loss.backward()
        return loss.detach()

    right(fn, two)


def test_checkpoint_with_dropout() -> None:
    def dropped(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(x @ w, 0.5).exp()

    def fn(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        loss = checkpoint(dropped, x, w, use_reentrant=False).sum()
        loss.backward()
        return loss.detach()

    right(fn, two)


def test_hessian() -> None:
    replays(lambda x: torch.func.hessian(scalar_of)(x), lambda: (torch.randn(3),))


def test_forward_mode_over_reverse_mode() -> None:
    replays(lambda x: torch.func.jacfwd(torch.func.grad(scalar_of))(x), lambda: (torch.randn(3),))


def test_reverse_mode_over_forward_mode() -> None:
    replays(lambda x: torch.func.jacrev(torch.func.jacfwd(torch.sin))(x), lambda: (torch.randn(3),))


def test_hessian_of_a_layer() -> None:
    def fn(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.func.hessian(lambda t: torch.tanh(w @ t).pow(2).sum())(x)

    replays(fn, lambda: (torch.randn(3), torch.randn(4, 3)))
