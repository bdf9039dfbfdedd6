"""Operators that take indices behind a write to an input: static caches, tables that are updated in place.

Out of bounds they raise, and eager mode then keeps what was written before: so does a compiled call.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

import flashpoint


class Layer:
    def __init__(self) -> None:
        self.keys = torch.zeros(1, 2, 8, 4)
        self.values = torch.zeros(1, 2, 8, 4)
        self.length = torch.zeros((), dtype=torch.long)

    def update(self, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        position = torch.arange(key.shape[2]) + self.length
        self.length.add_(key.shape[2])
        self.keys.index_copy_(2, position, key)
        self.values.index_copy_(2, position, value)
        return self.keys, self.values


class Caches:
    def __init__(self) -> None:
        self.layers = [Layer() for _ in range(3)]
        self.calls = 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        for layer in self.layers:
            keys, values = layer.update(x * 2, x * 3)
            x = x + keys.sum(2, keepdim=True) + values.mean()
        return x

    def state(self) -> list[torch.Tensor]:
        return [t for layer in self.layers for t in (layer.keys, layer.values, layer.length)]


def step(fn: Any, *args: Any) -> Any:
    try:
        return fn(*args)
    except (IndexError, RuntimeError) as error:
        return str(error)


@pytest.mark.parametrize("backend", ["eager", "native"])
def test_static_cache(backend: str) -> None:
    eager, other = Caches(), Caches()
    compiled = flashpoint.compile(Caches.__call__, backend=backend, fullgraph=True)
    tolerance = {"rtol": 0, "atol": 0} if backend == "eager" else {}
    before = flashpoint.counters()
    for i in range(11):  # the eighth is the last that fits
        x = torch.randn(1, 2, 1, 4, generator=torch.Generator().manual_seed(i))
        want, got = step(eager, x), step(compiled, other, x)
        if i < 8:
            torch.testing.assert_close(got, want, **tolerance)
        else:
            assert got == want and isinstance(got, str)
        assert other.calls == eager.calls
        for a, b in zip(eager.state(), other.state(), strict=True):
            torch.testing.assert_close(a, b, **tolerance)
    after = flashpoint.counters()
    assert after["hits"] - before["hits"] >= 5
    assert after["restarts"] - before["restarts"] >= 1


def gathered(t: torch.Tensor, i: torch.Tensor) -> Any:
    t.add_(1)
    return t.gather(1, i)


def indexed(t: torch.Tensor, i: torch.Tensor) -> Any:
    t.add_(1)
    return t[:, i[0]], t[i[:, 0], 2]


def stored(t: torch.Tensor, i: torch.Tensor) -> Any:
    t.add_(1)
    t[i[0]] = 7
    t[:, i[0]] += 1
    return t * 2


def embedded(t: torch.Tensor, i: torch.Tensor) -> Any:
    t.mul_(2)
    return torch.nn.functional.embedding(i, t)


def scattered(t: torch.Tensor, i: torch.Tensor) -> Any:
    t.scatter_(1, i, 5.0)
    return t.scatter_add(0, i, torch.ones(3, 3)), t.index_select(0, i[0])


def index_changed_between(t: torch.Tensor, i: torch.Tensor) -> Any:
    t.index_fill_(0, i[0].contiguous(), 1.0)
    i.add_(1)
    u = t.gather(0, i)
    i.sub_(2)
    return u, t.gather(0, i)


def index_by_writing(t: torch.Tensor, i: torch.Tensor) -> Any:
    t.add_(1)
    j = torch.zeros(3, dtype=torch.long)
    j.copy_(i[0])
    j += 1
    return t.index_select(1, j)


def index_from_written_data(t: torch.Tensor, i: torch.Tensor) -> Any:
    t.add_(1)
    return t.gather(1, t.long().clamp(0) % 9)


FUNCTIONS = [gathered, indexed, stored, embedded, scattered]
FUNCTIONS += [index_changed_between, index_by_writing, index_from_written_data]


@pytest.mark.parametrize("backend", ["eager", "native"])
@pytest.mark.parametrize("fn", FUNCTIONS)
def test_indices(fn: Any, backend: str) -> None:
    compiled = flashpoint.compile(fn, backend=backend)
    good, low, high = torch.full((3, 3), 1), torch.full((3, 3), -1), torch.full((3, 3), 8)
    for call, index in enumerate([good, good * 2, good, high, good, low, good * 3, -high, good]):
        worlds = [(torch.arange(20.0).view(5, 4) + call, index.clone()) for _ in range(2)]
        want, got = step(fn, *worlds[0]), step(compiled, *worlds[1])
        assert isinstance(want, str) == isinstance(got, str) and (not isinstance(want, str) or want == got)
        if not isinstance(want, str):
            torch.testing.assert_close(got, want)
        torch.testing.assert_close(worlds[1], worlds[0])


@pytest.mark.parametrize("fn", [gathered, embedded, scattered])
def test_what_is_checked_early_is_compiled(fn: Any) -> None:
    compiled = flashpoint.compile(fn, backend="eager", fullgraph=True)
    before = flashpoint.counters()["hits"]
    for _ in range(3):
        compiled(torch.zeros(5, 4), torch.ones(3, 3, dtype=torch.long))
    assert flashpoint.counters()["hits"] - before == 2


def permuted(model, x, y, order):
    return F.cross_entropy(model(x), y[order])


# What follows the statistics that batch norm writes: (program of model, inputs and labels; graphs of a call).
BEHIND_A_WRITE = {
    "cross_entropy": (lambda m, x, y: F.cross_entropy(m(x), y, ignore_index=1), 1),
    "probabilities": (lambda m, x, y: F.cross_entropy(m(x), F.one_hot(y, 3).float()), 1),
    "labels by index": (lambda m, x, y: permuted(m, x, y, torch.randperm(5)), 1),
    "nll_loss": (lambda m, x, y: F.nll_loss(m(x).log_softmax(-1), y), 1),
    "with_logits": (lambda m, x, y: F.binary_cross_entropy_with_logits(m(x)[:, 0], (y > 0).float()), 1),
    "bernoulli": (lambda m, x, y: m(x) * torch.empty(5, 1).bernoulli_(0.7), 1),
    "normal": (lambda m, x, y: m(x) + torch.empty(5, 1).normal_(0, 0.7) + torch.normal(m(x), 1.0), 1),
    "take_along_dim": (lambda m, x, y: torch.take_along_dim(m(x), y[:, None], 1), 1),
    "det": (lambda m, x, y: torch.linalg.det(m(x).t() @ m(x)), 1),
    "binary_cross_entropy": (
        lambda m, x, y: F.binary_cross_entropy(m(x).sigmoid()[:, 0], y.ne(0).float()),
        2,
    ),
    "cholesky": (lambda m, x, y: torch.linalg.cholesky(m(x).t() @ m(x) + torch.eye(3)), 2),
    "multinomial": (lambda m, x, y: torch.multinomial(m(x).softmax(-1), 1), 2),
    "own index": (lambda m, x, y: x.gather(1, m(x).argmax(-1)[:, None]), 2),
}


def batch_norm_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).train()


@pytest.mark.parametrize("name", BEHIND_A_WRITE)
def test_behind_a_write(name: str) -> None:
    """One graph where nothing raises, as is known before the write; else a break before what may raise."""
    program, graphs = BEHIND_A_WRITE[name]
    model, theirs = batch_norm_net(), batch_norm_net()
    compiled = flashpoint.compile(lambda x, y: program(model, x, y), backend="eager")
    flashpoint.reset_counters()
    for turn in range(5):
        x, y = torch.randn(5, 4), torch.randint(0, 3, (5,))
        torch.manual_seed(turn)
        got = compiled(x, y)
        torch.manual_seed(turn)
        assert torch.equal(got, program(theirs, x, y))
        for ours, other in zip(model.buffers(), theirs.buffers(), strict=True):
            assert torch.equal(ours, other)
    counters = flashpoint.counters()
    assert counters["captures_kept"] == graphs
    assert counters["captures_dropped"] == graphs - 1
    assert counters["hits"] == 5 - graphs


@pytest.mark.parametrize("label", [3, -1, 100])
def test_a_label_out_of_range(label: int) -> None:
    """It raises where eager does, after the statistics were written once; -100 is ignored."""
    model, theirs = batch_norm_net(), batch_norm_net()
    compiled = flashpoint.compile(lambda x, y: F.cross_entropy(model(x), y), backend="eager")
    x, good = torch.randn(5, 4), torch.tensor([0, 1, 2, -100, 0])
    flashpoint.reset_counters()
    for _ in range(3):
        assert torch.equal(compiled(x, good), F.cross_entropy(theirs(x), good))
    assert flashpoint.counters()["hits"] == 2
    bad = torch.tensor([0, 1, label, 2, 0])
    for call in (lambda: compiled(x, bad), lambda: F.cross_entropy(theirs(x), bad)):
        with pytest.raises(IndexError):
            call()
    for ours, other in zip(model.buffers(), theirs.buffers(), strict=True):
        assert torch.equal(ours, other)
    assert torch.equal(compiled(x, good), F.cross_entropy(theirs(x), good))


def test_a_training_step_with_batch_norm_is_one_graph() -> None:
    def step(model, optimizer, x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    runs = []
    for wrap in (lambda f: f, lambda f: flashpoint.compile(f, backend="eager", fullgraph=True)):
        model = batch_norm_net()
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        torch.optim.lr_scheduler.StepLR(optimizer, 100)  # it puts a wrapper around optimizer.step
        step_of = wrap(step)
        torch.manual_seed(1)
        flashpoint.reset_counters()
        losses = [step_of(model, optimizer, torch.randn(5, 4), torch.randint(0, 3, (5,))) for _ in range(6)]
        runs.append([*losses, *model.state_dict().values()])
    assert flashpoint.counters()["hits"] >= 4
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
