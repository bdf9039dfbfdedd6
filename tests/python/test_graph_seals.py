"""Seals: what may change a tensor without breaking, and what must break. And what recording keeps alive."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from flashpoint import _C
from tests.python.graph_harness import check, record

X = torch.randn(4, 6)
W = torch.randn(4, 6, requires_grad=True)


def reason(fn, *inputs):
    return record(fn, *inputs)[0].break_reason


EXPLAINED = {
    "inplace": lambda x: (x * 1).add_(1) * 2,
    "view_after_base_changed": lambda x: (lambda y: (lambda v: (y.add_(1), v * 2)[1])(y[0]))(x * 1),
    "base_after_view_changed": lambda x: (lambda y: (y[0].mul_(3), y * 2)[1])(x * 1),
    "two_views": lambda x: (lambda y: (lambda a, b: (a.exp_(), b.sin_(), a + b[:4], y)[2:])(y[:, 0], y[0]))(
        x * 1
    ),
    "view_of_view": lambda x: (lambda y: (y.view(-1)[2:5].zero_(), y.t() + 1)[1])(x * 1),
    "detached_alias": lambda x: (lambda y: (lambda d: (d.add_(1), y * 2)[1])(y.detach()))(x.sin()),
    "resize": lambda x: (lambda y: (y.resize_(2, 3).fill_(1), y * 2)[1])(x * 1),
    "transpose_": lambda x: (lambda y: (y.t_(), y * 2)[1])(x * 1),
    "swapped_metadata": lambda x: (x * 1).unsqueeze_(0).squeeze_(0) + 1,
    "out_into_view": lambda x: (lambda y: (torch.sin(x[0], out=y[1]), y * 2)[1])(x * 1),
    "detach_": lambda x: (x * 2).detach_() + 1,
    "foreach": lambda x: (lambda y: (torch._foreach_add_([y, y[0]], 1.0), y * 2)[1])(x * 1),
}


@pytest.mark.parametrize("name", EXPLAINED)
@pytest.mark.parametrize("mode", ["plain", "grad", "no_grad", "inference"])
def test_changes_by_operators_are_explained(name, mode):
    fn = EXPLAINED[name]
    if mode == "grad" and name in ("resize", "out_into_view", "swapped_metadata", "detached_alias"):
        fn = lambda x, inner=fn: inner(x.detach())  # noqa: E731  (not defined with gradients)
    guard = {"no_grad": torch.no_grad, "inference": torch.inference_mode}.get(mode)
    if guard is None:
        check(fn, W if mode == "grad" else X)
        return

    def guarded(x):
        with guard():
            return fn(x)

    check(guarded, X)


def test_view_gets_history_from_its_base():
    """The view's autograd node is rebuilt lazily: not an unexplained change."""

    def run(x, w):
        y = x * 1
        v = y[0]
        y.mul_(w)
        return v * 2, v.exp()

    check(run, X, W)


def test_input_mutated_through_another_input():
    base = torch.zeros(4, 6)

    def run(a, b):
        c = a + 1
        b.add_(1)
        return a * 2 + c

    assert reason(run, base, base[0]) is None


CHANGED = {
    "data_of_value": lambda x: (lambda y: (setattr(y, "data", y.data + 1), y * 2)[1])(x * 1),
    "data_of_input": lambda x: (setattr(x, "data", torch.zeros(4, 6)), x * 2)[1],
    "requires_grad": lambda x: (lambda y: (y.requires_grad_(), y * 2)[1])(x * 1),
    "input_requires_grad_at_the_end": lambda x: (x * 2, x.requires_grad_())[0],
    "version_bump": lambda x: (lambda y: (hidden_add(y), y * 2)[1])(x * 1),
    "version_bump_of_output": lambda x: (lambda y: (hidden_add(y), y)[1])(x * 1),
    "version_bump_of_input_at_the_end": lambda x: (x * 2, hidden_add(x))[0],
    "retain_grad": lambda x: (lambda y: (y.retain_grad(), y * 2)[1])(x * 1 if x.requires_grad else W * x),
}


def hidden_add(tensor):
    with torch.no_grad():
        _C._graph_hidden(lambda: tensor.add_(1))


@pytest.mark.parametrize("name", CHANGED)
def test_unexplained_changes_break(name):
    assert reason(CHANGED[name], X.clone()) in ("seal_broken", "unknown_tensor")


def test_hook_breaks():
    def run(w):
        y = w * 2
        y.register_hook(lambda g: g * 10)
        return y

    assert reason(run, W) == "seal_broken"


def test_intermediates_die_as_in_eager():
    alive = []

    def run(x):
        refs = []
        for _ in range(20):
            x = x + 1
            refs.append(weakref.ref(x))
            alive.append(sum(r() is not None for r in refs))
        return x

    gc.disable()
    try:
        graph, _ = record(run, X)
    finally:
        gc.enable()
    assert max(alive) <= 2
    assert graph.break_reason is None


def test_storage_is_freed_while_recording():
    """Not only the Python objects go: the memory does, with the last tensor on it."""
    storages = []
    alive = []

    def run(x):
        for _ in range(100):
            x = x + 1
            x.view(-1)[0].mul_(2)
            storages.append(StorageWeakRef(x.untyped_storage()))
            alive.append(sum(not s.expired() for s in storages))
        return x

    graph, _ = record(run, X)
    assert max(alive) <= 2
    assert graph.node_count == 400


def test_recording_keeps_no_tensor_alive():
    x = torch.randn(3)
    graph, result = record(lambda t: t + 1, x)
    refs = [weakref.ref(x), weakref.ref(result)]
    del x, result
    assert [r() for r in refs] == [None, None]
    assert graph.run(torch.zeros(3))[0].tolist() == [1, 1, 1]


def test_addresses_are_not_confused():
    """Tensors that die and are born at the same address while recording are told apart."""

    def run(x):
        total = torch.zeros(4, 6)
        for i in range(200):
            total = total + (x * i).sin().view(6, 4).t().contiguous().mul_(0.5)
        return total

    check(run, X)
