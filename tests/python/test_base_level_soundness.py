"""What can change between calls of a region that runs the autograd engine: the outcome must be eager's."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

os.environ.setdefault("FLASHPOINT_STRICT", "1")

import flashpoint  # noqa: E402


@pytest.fixture(autouse=True)
def fresh() -> None:
    flashpoint.reset()


def world() -> SimpleNamespace:
    """Leaves, and a region that runs the engine over them; `fn` reads them from here at each call."""
    torch.manual_seed(0)
    w = SimpleNamespace(
        a=torch.nn.Parameter(torch.randn(3)),
        b=torch.nn.Parameter(torch.randn(3)),
        x=torch.randn(3),
        log=[],
    )

    def fn() -> torch.Tensor:
        loss = ((w.a * w.x).sin() * w.b).sum()
        loss.backward()
        return loss.detach()

    w.fn = fn
    return w


def outcome(fn: Callable[[], object]) -> object:
    try:
        return fn()
    except RuntimeError as error:
        return str(error).splitlines()[0]


def check(w: SimpleNamespace, call: Callable, reference: SimpleNamespace) -> None:
    got, want = outcome(call), outcome(reference.fn)
    if isinstance(want, torch.Tensor):
        assert isinstance(got, torch.Tensor), got
        assert torch.equal(got, want) and got.requires_grad == want.requires_grad
    else:
        assert got == want
    for name in ("a", "b", "x"):
        ours, theirs = getattr(w, name), getattr(reference, name)
        assert torch.equal(ours, theirs) and ours._version == theirs._version
        assert ours.requires_grad == theirs.requires_grad
        assert (ours.grad is None) == (theirs.grad is None), name
        assert ours.grad is None or torch.equal(ours.grad, theirs.grad), name
    assert w.log == reference.log
    assert (w.a.grad is w.b.grad) == (reference.a.grad is reference.b.grad)


def forget_gradients(w: SimpleNamespace) -> None:
    w.a.grad = w.b.grad = None


def one_gradient(w: SimpleNamespace) -> None:
    w.a.grad = None


def other_gradient(w: SimpleNamespace) -> None:
    w.a.grad = torch.ones(3)


def shared_gradient(w: SimpleNamespace) -> None:
    w.a.grad = w.b.grad = torch.ones(3)


def gradient_is_the_data(w: SimpleNamespace) -> None:
    w.a.grad = w.x


def strided_gradient(w: SimpleNamespace) -> None:
    w.a.grad = torch.ones(6)[::2]


def freeze(w: SimpleNamespace) -> None:
    w.a.requires_grad_(False)


def freeze_all(w: SimpleNamespace) -> None:
    w.a.requires_grad_(False)
    w.b.requires_grad_(False)


def data_requires_grad(w: SimpleNamespace) -> None:
    w.x.requires_grad_()


def data_has_history(w: SimpleNamespace) -> None:
    w.x = w.b * 2


def data_has_its_own_history(w: SimpleNamespace) -> None:
    leaf = torch.ones(3, requires_grad=True)
    leaf.register_hook(lambda g: w.log.append(g.tolist()))
    w.x = leaf * 2


def hook(w: SimpleNamespace) -> None:
    w.a.register_hook(lambda g: g * 10)


def hook_that_looks(w: SimpleNamespace) -> None:
    w.b.register_hook(lambda g: w.log.append(g.tolist()))


def hook_after_accumulation(w: SimpleNamespace) -> None:
    w.a.register_post_accumulate_grad_hook(lambda p: w.log.append(p.grad.tolist()))


def hook_on_the_accumulator(w: SimpleNamespace) -> None:
    node = w.a.view_as(w.a).grad_fn.next_functions[0][0]
    node.register_hook(lambda *_: w.log.append("accumulated"))
    w.keep = node


def replace(w: SimpleNamespace) -> None:
    w.a = torch.nn.Parameter(torch.ones(3))


def tie(w: SimpleNamespace) -> None:
    w.a = w.b


def tie_memory(w: SimpleNamespace) -> None:
    w.a = torch.nn.Parameter(w.b.detach())


def other_dtype(w: SimpleNamespace) -> None:
    w.a = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))


def write_to_leaf(w: SimpleNamespace) -> None:
    with torch.no_grad():
        w.a.mul_(2)


def set_leaf_data(w: SimpleNamespace) -> None:
    w.a.data = torch.full((3,), 0.5)


def zeros(w: SimpleNamespace) -> None:
    for p in (w.a, w.b):
        if p.grad is not None:
            p.grad.zero_()


CHANGES = [
    forget_gradients,
    one_gradient,
    other_gradient,
    shared_gradient,
    gradient_is_the_data,
    strided_gradient,
    freeze,
    freeze_all,
    data_requires_grad,
    data_has_history,
    data_has_its_own_history,
    hook,
    hook_that_looks,
    hook_after_accumulation,
    hook_on_the_accumulator,
    replace,
    tie,
    tie_memory,
    other_dtype,
    write_to_leaf,
    set_leaf_data,
    zeros,
]


@pytest.mark.parametrize("gradients", ["kept", "none"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
def test_a_change_between_calls(change: Callable, gradients: str) -> None:
    w, reference = world(), world()
    compiled = flashpoint.compile(w.fn, backend="eager")
    before = flashpoint.counters()["hits"]
    for _ in range(5):
        if gradients == "none":
            forget_gradients(w)
            forget_gradients(reference)
        check(w, compiled, reference)
    assert flashpoint.counters()["hits"] - before >= 2, compiled.last_report()
    change(w)
    change(reference)
    for _ in range(3):
        check(w, compiled, reference)


@pytest.mark.parametrize("gradients", ["kept", "none"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
def test_a_change_back(change: Callable, gradients: str) -> None:
    """Recorded after the change; called again with what was before."""
    w, reference = world(), world()
    saved = [(v.a, v.b, v.x) for v in (w, reference)]
    change(w)
    change(reference)
    compiled = flashpoint.compile(w.fn, backend="eager")
    for _ in range(4):
        if gradients == "none":
            forget_gradients(w)
            forget_gradients(reference)
        check(w, compiled, reference)
    for v, (a, b, x) in zip((w, reference), saved, strict=True):
        v.a, v.b, v.x = a, b, x
        if x.is_leaf:
            x.requires_grad_(False)
        a.requires_grad_()
        b.requires_grad_()
        forget_gradients(v)
    for _ in range(3):
        check(w, compiled, reference)


def test_grad_mode() -> None:
    w, reference = world(), world()
    compiled = flashpoint.compile(w.fn, backend="eager")
    for i in range(6):
        with torch.set_grad_enabled(i != 4):
            check(w, compiled, reference)


def test_a_gradient_that_somebody_holds_is_added_to_in_place() -> None:
    w, reference = world(), world()
    compiled = flashpoint.compile(w.fn, backend="eager")
    for _ in range(5):
        check(w, compiled, reference)
    held, expected = w.a.grad, reference.a.grad
    check(w, compiled, reference)
    assert w.a.grad is held and reference.a.grad is expected
    assert torch.equal(held, expected) and held._version == expected._version


def test_gradients_of_different_calls_are_different_tensors() -> None:
    w = world()
    compiled = flashpoint.compile(w.fn, backend="eager")
    held = []
    for _ in range(5):
        forget_gradients(w)
        compiled()
        held.append(w.a.grad)
    assert len({t.data_ptr() for t in held}) == 5


def test_history_from_outside_stays_outside() -> None:
    """The region runs the engine over a graph that was made before it: that is no constant of the graph."""
    x = torch.randn(3, requires_grad=True)
    y = x.detach().clone().requires_grad_()

    def fn(loss: torch.Tensor) -> None:
        (loss * 2).backward()

    compiled = flashpoint.compile(fn, backend="eager")
    for i in range(5):
        compiled((x * i).exp().sum())
        fn((y * i).exp().sum())
        assert torch.equal(x.grad, y.grad)


def test_gradient_at_an_input_with_history() -> None:
    """The engine stops at the input; what is behind it is not run."""
    weight = torch.randn(3, requires_grad=True)

    def fn(hidden: torch.Tensor) -> torch.Tensor:
        (gradient,) = torch.autograd.grad((hidden.sin() * hidden).sum(), hidden)
        return gradient

    compiled = flashpoint.compile(fn, backend="eager")
    before = flashpoint.counters()["hits"]
    for i in range(5):
        hidden = weight * i
        assert torch.equal(compiled(hidden), fn(hidden.detach().requires_grad_()))
    assert flashpoint.counters()["hits"] - before == 3


def test_saved_tensors_of_a_freed_graph_raise_as_in_eager() -> None:
    x = torch.randn(3, requires_grad=True)

    def fn() -> None:
        loss = x.exp().sum()
        loss.backward()
        loss.backward()

    compiled = flashpoint.compile(fn, backend="eager")
    for _ in range(4):
        with pytest.raises(RuntimeError, match="second time"):
            compiled()


def test_views_of_results_are_results() -> None:
    def fn(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad((y * y).sum(), y)
        return gradient, gradient.view(-1)

    compiled = flashpoint.compile(fn, backend="eager")
    for _ in range(4):
        gradient, view = compiled(torch.ones(3))
        view.add_(1)
        assert torch.equal(gradient, torch.full((3,), 3.0))


def test_an_alias_without_history_is_another_tensor() -> None:
    def fn(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = x * 2
        return y, torch.func.grad(lambda t: t.sum())(x) * y.detach(), y.detach()

    compiled = flashpoint.compile(fn, backend="eager")
    for _ in range(4):
        y, _, alias = compiled(torch.ones(3))
        assert y is not alias and y.data_ptr() == alias.data_ptr()


def test_an_input_that_got_history() -> None:
    w = torch.ones(3, requires_grad=True)

    def fn(x: torch.Tensor) -> torch.Tensor:
        torch.func.grad(lambda t: t.sum())(x.detach())
        x.mul_(w)
        return x.detach() * 1

    compiled = flashpoint.compile(fn, backend="eager")
    for _ in range(4):
        x = torch.full((3,), 2.0)
        compiled(x)
        assert x.requires_grad
        x.sum().backward()


def test_a_module_that_is_frozen_half_way() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    torch.manual_seed(0)
    reference = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))

    def step(m: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        loss = m(x).square().mean()
        loss.backward()
        return loss

    compiled = flashpoint.compile(step, backend="eager")
    x = torch.randn(3, 4)
    for i in range(10):
        if i == 5:
            for m in (model, reference):
                m[0].weight.requires_grad_(False)
        assert torch.equal(compiled(model, x), step(reference, x))
        for a, b in zip(model.parameters(), reference.parameters(), strict=True):
            assert (a.grad is None) == (b.grad is None)
            assert a.grad is None or torch.equal(a.grad, b.grad)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x.exp())
        return x * 2

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
        (saved,) = ctx.saved_tensors
        return gradient * saved


def test_a_backward_of_the_program() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        loss = (Doubled.apply(x) * x).sum()
        loss.backward()
        return loss.detach()

    compiled = flashpoint.compile(fn, backend="eager")
    for i in range(5):
        torch.manual_seed(i)
        x = torch.randn(3, requires_grad=True)
        y = x.detach().clone().requires_grad_()
        assert torch.equal(compiled(x), fn(y)) and torch.equal(x.grad, y.grad)


def test_a_gradient_that_is_given_to_a_new_tensor() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        y = torch.func.grad(lambda t: (t * t).sum())(x)
        y.grad = x * 3
        return y

    compiled = flashpoint.compile(fn, backend="eager")
    for i in range(4):
        x = torch.full((3,), float(i))
        y = compiled(x)
        assert torch.equal(y, 2 * x) and torch.equal(y.grad, 3 * x)


def test_a_number_that_a_backward_uses_again() -> None:
    def fn(x: torch.Tensor, factor: float) -> torch.Tensor:
        loss = (x * factor).sin().sum()
        loss.backward()
        return loss.detach()

    compiled = flashpoint.compile(fn, backend="eager")
    for factor in (2.0, 2.0, 2.0, 3.0, 4.0, 5.0, 2.0, 6.0):
        x = torch.ones(3, requires_grad=True)
        y = torch.ones(3, requires_grad=True)
        assert torch.equal(compiled(x, factor), fn(y, factor)) and torch.equal(x.grad, y.grad)


def test_a_learning_rate_that_changes() -> None:
    def world_of() -> tuple[torch.nn.Parameter, Callable, torch.optim.Optimizer]:
        p = torch.nn.Parameter(torch.ones(3))
        optimizer = torch.optim.SGD([p], lr=0.5)

        def step() -> None:
            optimizer.zero_grad()
            (p * p).sum().backward()
            optimizer.step()

        return p, step, optimizer

    p, step, optimizer = world_of()
    q, eager_step, reference = world_of()
    compiled = flashpoint.compile(step, backend="eager")
    for i in range(10):
        for o in (optimizer, reference):
            o.param_groups[0]["lr"] = 0.5 / (i + 1)
        compiled()
        eager_step()
        assert torch.equal(p, q) and torch.equal(p.grad, q.grad)


def test_history_that_another_call_finds_alive() -> None:
    """What leaves was used up outside the region; the next call brings a graph that was not."""

    def fn(x: torch.Tensor) -> torch.Tensor:
        torch.func.grad(lambda t: t.sum())(x.detach())
        return x * 1

    compiled = flashpoint.compile(fn, backend="eager")
    leaf = torch.ones(3, requires_grad=True)
    for i in range(5):
        x = leaf.exp()
        if i < 3:
            x.sum().backward()
        result = outcome(lambda: compiled(x).sum().backward())  # noqa: B023
        assert result == outcome(lambda: fn(leaf.exp() if i >= 3 else x).sum().backward())  # noqa: B023
