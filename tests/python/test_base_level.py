"""Regions in which autograd's engine or functorch is at work: recorded below them, as one graph."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from torch.utils._pytree import tree_leaves

os.environ.setdefault("FLASHPOINT_STRICT", "1")

import flashpoint  # noqa: E402

functional = torch.nn.functional


@pytest.fixture(autouse=True)
def fresh() -> None:
    flashpoint.reset()
    torch.manual_seed(0)


def same(got: object, want: object) -> None:
    """Bitwise equal tensors with the same history to be seen from outside."""
    left, right = tree_leaves(got), tree_leaves(want)
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        if not isinstance(a, torch.Tensor):
            assert a == b
            continue
        assert a.dtype == b.dtype and a.shape == b.shape and a.stride() == b.stride()
        assert a.requires_grad == b.requires_grad and a.is_leaf == b.is_leaf
        assert torch.equal(a.detach(), b.detach())


def same_leaves(got: list[torch.Tensor], want: list[torch.Tensor]) -> None:
    """The same data, versions and gradients."""
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a.detach(), b.detach()) and a._version == b._version
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None:
            assert torch.equal(a.grad, b.grad) and a.grad.requires_grad == b.grad.requires_grad
            assert a.grad.stride() == b.grad.stride()


def replays(fn: Callable, inputs: Callable[[], tuple], calls: int = 5) -> flashpoint.CompiledFunction:
    """Eager's results on new inputs; from the third call on one graph answers, without any break."""
    compiled = flashpoint.compile(fn, backend="eager")
    before = flashpoint.counters()
    for i in range(calls):
        if i == 2:
            before = flashpoint.counters()
        torch.manual_seed(i)
        ours = inputs()
        torch.manual_seed(i)
        theirs = inputs()
        torch.manual_seed(100 + i)
        got = compiled(*ours)
        torch.manual_seed(100 + i)
        same(got, fn(*theirs))
        tensors = [
            [t for t in tree_leaves(args) if isinstance(t, torch.Tensor) and t.is_leaf]
            for args in (ours, theirs)
        ]
        same_leaves(*tensors)
    after = flashpoint.counters()
    assert after["hits"] - before["hits"] == calls - 2, compiled.last_report()
    for counter in ("misses", "captures_started", "resume_hits", "eager_calls", "restarts"):
        assert after[counter] == before[counter], (counter, compiled.last_report())
    assert after["ops_replayed"] > before["ops_replayed"]
    assert compiled.last_report()["breaks"] == []
    return compiled


def plain() -> tuple[torch.Tensor]:
    return (torch.randn(3),)


def leaf() -> tuple[torch.Tensor]:
    return (torch.randn(3, requires_grad=True),)


def scalar_of(x: torch.Tensor) -> torch.Tensor:
    return (x.exp() * x).sum()


def test_func_grad() -> None:
    replays(lambda x: torch.func.grad(scalar_of)(x), plain)


def test_func_grad_and_value_with_argnums() -> None:
    def fn(x: torch.Tensor) -> object:
        return torch.func.grad_and_value(lambda a, b: (a * b.sin()).sum(), argnums=(0, 1))(x, x * 2)

    replays(fn, plain)


def test_vmap() -> None:
    replays(lambda x: torch.vmap(lambda row: row.sin() * row.sum())(x), lambda: (torch.randn(4, 3),))


def test_vmap_of_grad() -> None:
    replays(lambda x: torch.vmap(torch.func.grad(scalar_of))(x), lambda: (torch.randn(4, 3),))


def test_jvp() -> None:
    replays(lambda x: torch.func.jvp(torch.sin, (x,), (torch.ones_like(x),)), plain)


def test_vjp() -> None:
    def fn(x: torch.Tensor) -> object:
        out, pull = torch.func.vjp(lambda t: t.sin() * t, x)
        return out, pull(torch.ones_like(out))

    replays(fn, plain)


def test_jacrev_and_jacfwd() -> None:
    def fn(x: torch.Tensor) -> object:
        return torch.func.jacrev(lambda t: t.sin() * t.sum())(x), torch.func.jacfwd(torch.sin)(x)

    replays(fn, plain)


def test_hessian_by_reverse_mode() -> None:
    replays(lambda x: torch.func.jacrev(torch.func.jacrev(scalar_of))(x), plain)


def test_autograd_grad() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        (gradient,) = torch.autograd.grad(scalar_of(x), x)
        return gradient

    compiled = replays(fn, leaf)
    assert "base=on" in compiled.entries()[-1]["graph"]


def test_autograd_grad_of_a_detached_input() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad((x.softmax(0) * x).sum(), x)
        return gradient

    replays(fn, leaf)


def test_double_backward() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        (first,) = torch.autograd.grad(scalar_of(x), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x)
        return second

    replays(fn, leaf)


def test_backward_sets_the_gradient() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        loss = scalar_of(x)
        loss.backward()
        return loss.detach()

    replays(fn, leaf)


def test_backward_with_dropout_draws_as_eager_does() -> None:
    def fn(x: torch.Tensor) -> None:
        functional.dropout(x * 2, 0.5).sum().backward()

    replays(fn, leaf)


def test_a_returned_loss_has_history_that_is_used_up() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        loss = scalar_of(x)
        loss.backward()
        return loss

    compiled = replays(fn, leaf)
    x = leaf()[0]
    loss = compiled(x)
    y = x.detach().clone().requires_grad_()
    expected = fn(y)
    assert loss.grad_fn.name() == expected.grad_fn.name()
    assert "grad_fn=<SumBackward0>" in repr(loss)
    for tensor in (loss, expected, loss + 1, expected + 1):
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            tensor.backward()
    same_leaves([x], [y])


def test_history_that_is_alive_must_not_leave() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        loss = scalar_of(x)
        loss.backward(retain_graph=True)
        return loss

    compiled = flashpoint.compile(fn, backend="eager")
    for _ in range(4):
        (x,) = leaf()
        y = x.detach().clone().requires_grad_()
        compiled(x).backward()
        fn(y).backward()
        same_leaves([x], [y])


def test_history_without_saved_tensors_must_not_leave() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        loss = (x + 1).sum()
        loss.backward()
        return loss

    compiled = flashpoint.compile(fn, backend="eager")
    for _ in range(4):
        (x,) = leaf()
        compiled(x).backward()  # nothing was freed
        assert torch.equal(x.grad, torch.full((3,), 2.0))


def test_history_that_accumulates_before_it_raises_must_not_leave() -> None:
    def fn(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        loss = (bias + x.exp()).sum()
        loss.backward()
        return loss

    compiled = flashpoint.compile(fn, backend="eager")
    for _ in range(4):
        ours = [leaf()[0], torch.zeros(3, requires_grad=True)]
        theirs = [t.detach().clone().requires_grad_() for t in ours]
        for function, leaves in ((compiled, ours), (fn, theirs)):
            with pytest.raises(RuntimeError, match="second time"):
                function(*leaves).backward()
        same_leaves(ours, theirs)


def test_gradients_of_leaves_made_in_the_call() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        weight = torch.full((3,), 2.0, requires_grad=True)
        (x * weight * weight).sum().backward()
        return weight.grad * 2

    replays(fn, plain)


def test_grad_set_to_none_in_the_region() -> None:
    def fn(x: torch.Tensor) -> None:
        scalar_of(x).backward()
        x.grad = None
        (x * 2).sum().backward()

    def inputs() -> tuple[torch.Tensor]:
        (x,) = leaf()
        x.grad = torch.ones(3)
        return (x,)

    replays(fn, inputs)


def test_checkpoint_without_reentry() -> None:
    def fn(x: torch.Tensor) -> None:
        hidden = torch.utils.checkpoint.checkpoint(lambda t: t.sin().exp(), x, use_reentrant=False)
        (hidden * x).sum().backward()

    compiled = flashpoint.compile(fn, backend="eager")
    for i in range(4):
        torch.manual_seed(i)
        (x,) = leaf()
        y = x.detach().clone().requires_grad_()
        compiled(x)
        fn(y)
        same_leaves([x], [y])


def mlp() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1000 + step)
    return torch.randn(5, 8), torch.randint(0, 4, (5,))


def training(optimizer: Callable, zero: str) -> tuple[torch.nn.Module, Callable]:
    model = mlp()
    opt = optimizer(model.parameters())

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor | None:
        if zero == "start":
            opt.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        if zero == "zeros":
            opt.zero_grad(set_to_none=False)
        return loss

    return model, step


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "foreach": lambda p: torch.optim.SGD(p, lr=0.1, foreach=True),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, foreach=True),
}


@pytest.mark.parametrize("zero", ["start", "zeros", "never"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training(name: str, zero: str) -> None:
    """Losses, parameters, gradients and versions are eager's, from one graph without a break."""
    model, step = training(OPTIMIZERS[name], zero)
    reference, eager_step = training(OPTIMIZERS[name], zero)
    compiled = flashpoint.compile(step, backend="eager")
    before = flashpoint.counters()
    for i in range(20):
        if i == 3:
            before = flashpoint.counters()
        same(compiled(*batch(i)), eager_step(*batch(i)))
        same_leaves(list(model.parameters()), list(reference.parameters()))
    after = flashpoint.counters()
    assert after["hits"] - before["hits"] == 17, compiled.last_report()
    for counter in ("misses", "captures_started", "resume_hits", "eager_calls", "restarts"):
        assert after[counter] == before[counter], (counter, compiled.last_report())
    assert compiled.last_report()["breaks"] == []
    assert after["ops_replayed"] - before["ops_replayed"] >= 17 * 25


def test_other_shapes_are_recorded_anew() -> None:
    model, step = training(OPTIMIZERS["sgd"], "start")
    reference, eager_step = training(OPTIMIZERS["sgd"], "start")
    compiled = flashpoint.compile(step, backend="eager")
    for i in range(12):
        x, y = batch(i)
        rows = 3 if i % 3 == 2 else 5
        same(compiled(x[:rows], y[:rows]), eager_step(x[:rows], y[:rows]))
        same_leaves(list(model.parameters()), list(reference.parameters()))


def test_adamw_is_right_whether_it_breaks_or_not() -> None:
    def optimizer(p: object) -> torch.optim.Optimizer:
        return torch.optim.AdamW(p, lr=0.01)

    model, step = training(optimizer, "start")
    reference, eager_step = training(optimizer, "start")
    compiled = flashpoint.compile(step, backend="eager")
    for i in range(8):
        same(compiled(*batch(i)), eager_step(*batch(i)))
        same_leaves(list(model.parameters()), list(reference.parameters()))


def test_fullgraph_waits_for_the_level_to_be_learned() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return torch.func.grad(scalar_of)(x)

    compiled = flashpoint.compile(fn, backend="eager", fullgraph=True)
    for i in range(4):
        torch.manual_seed(i)
        (x,) = plain()
        same(compiled(x), fn(x))
    assert len(compiled.entries()) == 1


def test_the_native_backend_runs_base_graphs() -> None:
    model, step = training(OPTIMIZERS["momentum"], "start")
    reference, eager_step = training(OPTIMIZERS["momentum"], "start")
    compiled = flashpoint.compile(step, backend="native")
    for i in range(8):
        got, want = compiled(*batch(i)), eager_step(*batch(i))
        assert torch.allclose(got, want, rtol=1e-5, atol=1e-6)
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
        assert a._version == b._version
