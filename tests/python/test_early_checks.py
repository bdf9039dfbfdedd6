"""Operators that take indices behind a write to an input: static caches, tables that are updated in place.

Out of bounds they raise, and eager mode then keeps what was written before: so does a compiled call.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

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
