"""Nothing outlives what it belongs to: inputs, models, compiled callables; and a loop of calls stays flat.

What is counted is exact (weak references, live objects). Resident memory is only looked at over many rounds
and against a bound far above its noise and far below a leak of one small object per call.
"""

from __future__ import annotations

import gc
import os
import resource
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from tests.support import flashpoint


class Tracked(torch.Tensor):
    """A tensor that can be watched by a weak reference to its Python object."""


def tracked(*shape: int) -> torch.Tensor:
    return torch.ones(*shape).as_subclass(Tracked)


class Config:
    def __init__(self, scale: float) -> None:
        self.scale = scale


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 4)
        self.config = Config(2.0)
        self.steps = 0

    def forward(self, t: torch.Tensor) -> dict[str, Any]:
        self.steps += 1
        hidden = self.first(t).relu() * self.config.scale
        return {"out": self.second(hidden), "hidden": [hidden]}


def compile(fn: Callable) -> Any:
    return flashpoint.compile(fn, backend="eager")


@pytest.fixture(autouse=True, scope="module")
def _only_what_is_new() -> Iterator[None]:
    """What was alive before these tests is left out of every collection and count."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def grown(work: Callable[[], None], rounds: int = 30) -> int:
    """How many live objects one round leaves behind, over many rounds after a warm-up."""
    for _ in range(5):
        work()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(rounds):
        work()
    gc.collect()
    return round((len(gc.get_objects()) - before) / rounds)


def test_the_measure_finds_a_leak() -> None:
    kept: list = []
    assert grown(lambda: kept.append([])) == 1


# What a call was given dies with the caller's last reference.

INPUTS: dict[str, tuple[Callable, Callable[[], tuple]]] = {
    "tensor": (lambda t: t * 2 + 1, lambda: (tracked(2, 3),)),
    "tensors in a list": (lambda ts: torch.cat(ts), lambda: ([tracked(2, 3)],)),
    "tensor returned": (lambda t: (t, t + 1), lambda: (tracked(2, 3),)),
    "tensor mutated": (lambda t: t.add_(1), lambda: (tracked(2, 3),)),
    "view returned": (lambda t: t[0], lambda: (tracked(2, 3),)),
    "object": (lambda o, t: t * o.scale, lambda: (Config(3.0), torch.ones(3))),
    "object mutated": (lambda o, t: setattr(o, "last", t * o.scale), lambda: (Config(3.0), torch.ones(3))),
    "function": (lambda f, t: f(t), lambda: ((lambda t: t * 2), torch.ones(3))),
    "module": (lambda m, t: m(t), lambda: (nn.Linear(3, 3), torch.ones(3))),
    "break": (lambda o, t: t * o.scale * t.sum().item(), lambda: (Config(3.0), torch.ones(3))),
}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("calls", [1, 3])
def test_inputs_die(name: str, calls: int) -> None:
    fn, make = INPUTS[name]
    compiled = compile(fn)
    watched = []
    for _ in range(calls):
        args = make()
        first = args[0][0] if isinstance(args[0], list) else args[0]
        watched.append(weakref.ref(first))
        compiled(*args)
        del args, first
    gc.collect()
    # An entry may hold what its guards compare by identity (functions, modules): dropping it must let go.
    if name not in ("function", "module", "object", "object mutated", "break"):
        assert not any(ref() is not None for ref in watched)
    flashpoint.reset()
    gc.collect()
    assert not any(ref() is not None for ref in watched)


def test_input_of_a_raising_call_dies() -> None:
    def fn(t: torch.Tensor) -> torch.Tensor:
        raise ValueError(t.shape)

    compiled = compile(fn)
    for _ in range(3):
        value = tracked(2, 3)
        watched = weakref.ref(value)
        with pytest.raises(ValueError):
            compiled(value)
        del value
        gc.collect()
        assert watched() is None


@pytest.mark.parametrize("calls", [0, 1, 3])
def test_compiled_function_and_what_it_closes_over_die(calls: int) -> None:
    config = Config(2.0)
    weight = tracked(3)

    def fn(t: torch.Tensor) -> torch.Tensor:
        return t * config.scale + weight  # noqa: F821 (they are deleted below)

    compiled = compile(fn)
    for _ in range(calls):
        compiled(torch.ones(3))
    watched = [weakref.ref(thing) for thing in (compiled, fn, config, weight)]
    del compiled, fn, config, weight
    gc.collect()
    assert [ref() for ref in watched] == [None] * 4


@pytest.mark.parametrize("calls", [0, 1, 3])
def test_compiled_module_dies(calls: int) -> None:
    model = Model()
    compiled = compile(model)
    for _ in range(calls):
        compiled(torch.ones(2, 8))
    watched = [
        weakref.ref(thing) for thing in (model, model.first, model.first.weight, model.config, compiled)
    ]
    del model, compiled
    gc.collect()
    assert [ref() for ref in watched] == [None] * 5


def test_results_die() -> None:
    compiled = compile(lambda t: Config((t * 2).as_subclass(Tracked)))
    for _ in range(3):
        result = compiled(torch.ones(3))
        watched = [weakref.ref(result), weakref.ref(result.scale)]
        del result
        gc.collect()
        assert [ref() for ref in watched] == [None, None]


def test_intermediates_die_during_the_first_call() -> None:
    alive: list[weakref.ref] = []

    def fn(t: torch.Tensor) -> torch.Tensor:
        for _ in range(5):
            t = (t * 2).as_subclass(Tracked)
            alive.append(weakref.ref(t))
        return t

    result = compile(fn)(torch.ones(3))
    gc.collect()
    assert [ref() is not None for ref in alive] == [False] * 4 + [True]
    del result


def test_replaced_globals_die() -> None:
    space: dict[str, Any] = {"W": tracked(3)}
    exec("def fn(t): return t * W", space)
    compiled = compile(space["fn"])
    compiled(torch.ones(3))
    watched = weakref.ref(space["W"])
    space["W"] = tracked(3)
    compiled(torch.ones(3))
    flashpoint.reset()
    gc.collect()
    assert watched() is None


# Loops stay flat.


def _capture_function() -> None:
    k = Config(3.0)
    compiled = compile(lambda t: {"r": [t * k.scale, t.sum()], "s": "text"})
    compiled(torch.ones(2, 3))
    compiled(torch.ones(2, 3))


def _capture_model() -> None:
    compiled = compile(Model())
    compiled(torch.ones(2, 8))
    compiled(torch.ones(2, 8))


def _capture_with_break() -> None:
    compiled = compile(lambda t: t * t.sum().item() + len(str(t)))
    compiled(torch.ones(2, 3))
    compiled(torch.ones(2, 3))


def _capture_raises() -> None:
    compiled = compile(lambda t: t @ t)
    for _ in range(2):
        try:
            compiled(torch.ones(2, 3))
        except RuntimeError:
            pass


def _capture_effects() -> None:
    state = Config(1.0)
    items: list = []

    def fn(t: torch.Tensor) -> Config:
        state.scale += 1
        items.append(t * 2)
        return Config(t * state.scale)

    compiled = compile(fn)
    for _ in range(3):
        compiled(torch.ones(2, 3))


def _capture_generators() -> None:
    def numbers(n: int) -> Any:
        yield from range(n)

    compiled = compile(lambda t: sum((t * i for i in numbers(3)), t))
    compiled(torch.ones(3))
    compiled(torch.ones(3))


def _training() -> None:
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step(t: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(t).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    compiled = compile(step)
    for _ in range(3):
        compiled(torch.ones(2, 4))


CAPTURES = [_capture_function, _capture_model, _capture_with_break, _capture_raises, _capture_effects,
            _capture_generators, _training]  # fmt: skip


@pytest.mark.parametrize("work", CAPTURES, ids=lambda work: work.__name__.strip("_"))
def test_captures_leave_no_objects(work: Callable[[], None]) -> None:
    assert grown(work, 20) <= 0


def test_recompiles_leave_no_objects() -> None:
    compiled = compile(lambda t, s: (t * 2, s))
    count = iter(range(10**9))
    assert grown(lambda: compiled(torch.ones(3), f"s{next(count)}")) <= 0


def test_resets_leave_no_objects() -> None:
    compiled = compile(lambda t: t * 2)

    def work() -> None:
        compiled(torch.ones(3))
        flashpoint.reset()

    assert grown(work) <= 0


HITS: dict[str, tuple[Callable, Callable[[], tuple]]] = {
    "function": (lambda t: t * 2 + 1, lambda: (torch.ones(3),)),
    "containers": (
        lambda t, ks, d: {"r": [t * ks[0], (t, d["k"])]},
        lambda: (torch.ones(3), [2, 3], {"k": 1}),
    ),
    "objects": (lambda t, o: Config(t * o.scale), lambda: (torch.ones(3), Config(2.0))),
    "store": (lambda t, o: setattr(o, "last", t * 2), lambda: (torch.ones(3), Config(2.0))),
    "in place": (lambda t: t.add_(1), lambda: (torch.ones(3),)),
    "closure": (lambda t: lambda k: t * k, lambda: (torch.ones(3),)),
}


@pytest.mark.parametrize("name", HITS)
def test_hits_leave_no_objects(name: str) -> None:
    fn, make = HITS[name]
    compiled = compile(fn)
    assert grown(lambda: compiled(*make()), 200) <= 0


def _resident() -> int:
    """Resident bytes of this process now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def rises(work: Callable[[], None], count: int) -> int:
    """Bytes by which resident memory rose over the second half of `count` rounds."""
    for _ in range(count // 2):
        work()
    gc.collect()
    before = _resident()
    for _ in range(count - count // 2):
        work()
    gc.collect()
    return _resident() - before


def _hits_of(name: str) -> Callable[[], None]:
    fn, make = HITS[name]
    compiled = compile(fn)
    return lambda: compiled(*make())


BOUND = 3 << 20  # a leak of a 100-byte object per hit is 5 MB over the full count
measured = pytest.mark.skipif(
    "libasan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer keeps freed memory for a while"
)


@measured
def test_memory_is_flat_over_captures() -> None:
    assert rises(_capture_function, 200) < BOUND


@measured
def test_memory_is_flat_over_hits() -> None:
    assert rises(_hits_of("containers"), 10_000) < BOUND


@measured
@pytest.mark.sweep
@pytest.mark.parametrize("work", CAPTURES, ids=lambda work: work.__name__.strip("_"))
def test_memory_is_flat_over_1000_captures(work: Callable[[], None]) -> None:
    assert rises(work, 1000) < BOUND


@measured
@pytest.mark.sweep
@pytest.mark.parametrize("name", HITS)
def test_memory_is_flat_over_100000_hits(name: str) -> None:
    assert rises(_hits_of(name), 100_000) < BOUND


@pytest.mark.sweep
def test_memory_of_a_leak_is_seen() -> None:
    kept: list = []
    assert rises(lambda: kept.append(bytearray(100)), 100_000) > BOUND
