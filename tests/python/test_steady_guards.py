"""Guards after many calls that were alike: what changed since is noticed all the same."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import flashpoint
from flashpoint import code_state

X = torch.arange(6.0).reshape(2, 3)


class Block(nn.Module):
    factor = 2

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(3, 3)
        self.sizes = [1, 2]
        self.table = {"a": 1.5, "inner": {"b": 2}}
        self.pair = (torch.ones(3), 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.lin(x) * self.factor + self.sizes[0] + self.pair[0] * self.pair[1]
        return x * self.table["a"] + self.table["inner"]["b"]


class Other(Block):
    factor = 5


def set_class_factor(block: Block) -> None:
    Block.factor = 7


def restride(block: Block) -> None:
    block.lin.weight.data = block.lin.weight.data.t().contiguous().t()


def resize(block: Block) -> None:
    block.lin.weight.data = torch.ones(4, 3)
    block.lin.bias.data = torch.ones(4)
    block.pair = (torch.ones(4), 3)


CHANGES: dict[str, Callable[[Block], Any]] = {
    "parameter": lambda b: setattr(b.lin, "weight", nn.Parameter(torch.ones(3, 3))),
    "strides": restride,
    "sizes": resize,
    "grad": lambda b: b.lin.weight.requires_grad_(False),
    "hook": lambda b: b.lin.register_forward_hook(lambda m, a, r: r + 1),
    "class": lambda b: setattr(b, "__class__", Other),
    "class of a child": lambda b: setattr(
        b.lin, "__class__", type("L", (nn.Linear,), {"forward": lambda s, x: x})
    ),
    "class attribute": set_class_factor,
    "own attribute": lambda b: setattr(b, "factor", 9),
    "list": lambda b: b.sizes.__setitem__(0, 4),
    "dict": lambda b: b.table.__setitem__("a", 3.5),
    "inner dict": lambda b: b.table["inner"].__setitem__("b", 9),
    "another dict": lambda b: setattr(b, "table", {"a": 1.0, "inner": {"b": 1}}),
    "tuple": lambda b: setattr(b, "pair", (torch.zeros(3), 8)),
    "forward": lambda b: setattr(b.lin, "forward", types.MethodType(lambda self, x: x * 3, b.lin)),
    "dtype": lambda b: b.double(),
    "code": lambda b: setattr(Block.forward, "__code__", (lambda self, x: x + 41).__code__),
}


@pytest.fixture
def block() -> Any:
    code = Block.forward.__code__
    yield Block()
    Block.factor, Block.forward.__code__ = 2, code


def agree(compiled: Any, block: Block, x: torch.Tensor) -> None:
    def outcome(call: Callable[[], torch.Tensor]) -> Any:
        try:
            result = call()
        except RuntimeError as error:
            return str(error)
        return result.tolist(), result.dtype, result.requires_grad

    assert outcome(lambda: compiled(x)) == outcome(lambda: block(x))


@pytest.mark.parametrize("before", [1, 2, 7])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_after_calls_alike(block: Block, change: str, before: int) -> None:
    compiled = flashpoint.compile(block, backend="eager")
    flashpoint.reset_counters()
    for _ in range(before + 1):
        agree(compiled, block, X)
    assert flashpoint.counters()["hits"] == before
    CHANGES[change](block)
    for _ in range(4):
        agree(compiled, block, X if change != "dtype" else X.double())
    assert flashpoint.counters()["hits"] >= before + (2 if change not in ("hook", "code") else 0)


def test_changes_there_and_back(block: Block) -> None:
    compiled = flashpoint.compile(block, backend="eager", recompile_limit=20)
    for step in range(60):
        block.table["a"] = (1.5, 2.5)[step % 2]
        block.note = step  # the module's dict has another tag each time
        if step % 7 == 0:
            block.sizes = [step % 3, 2]
        agree(compiled, block, X)
    assert flashpoint.counters()["hits"] > 40


def test_instances_in_turn() -> None:
    """One entry answers for two instances of a class: what was seen of one says nothing about the other."""

    class Holder:
        def __init__(self, n: int) -> None:
            self.n, self.t = n, torch.full((3,), float(n))

    def fn(holder: Holder, x: torch.Tensor) -> torch.Tensor:
        return x * holder.t + (10 if holder.n > 0 else 20)

    compiled = flashpoint.compile(fn, backend="eager")
    holders = [Holder(n) for n in (1, 1, 1, -1, 1)]
    flashpoint.reset_counters()
    for step in range(80):
        holder = holders[step % 4 if step % 9 else 4]
        assert torch.equal(compiled(holder, X), fn(holder, X))
        if step == 50:
            holders[1].n = -1
            holders[3].n = 1
    assert flashpoint.counters()["hits"] >= 70


def test_a_dict_that_changes_each_time_is_walked_alone(block: Block) -> None:
    """The tags of the other dicts go on standing for their contents."""

    def fn(x: torch.Tensor, notes: dict[str, int]) -> torch.Tensor:
        return block(x) * notes["factor"]

    compiled, notes = flashpoint.compile(fn, backend="eager"), {"factor": 2}
    for step in range(20):
        notes[f"other {step % 3}"] = step
        assert torch.equal(compiled(X, notes), fn(X, notes))
    flashpoint.reset_counters()
    for step in range(20):
        notes[f"other {step % 3}"] = step
        assert torch.equal(compiled(X, notes), fn(X, notes))
    counters = flashpoint.counters()
    assert counters["hits"] == 20 and counters["guards_checked_slow"] == 0
    notes["factor"] = 3
    assert torch.equal(compiled(X, notes), fn(X, notes))


def test_a_dict_at_the_address_of_a_dead_one() -> None:
    """What was remembered of an object says nothing about the next one in its place."""

    def fn(options: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
        return x * (2 if options["a"] else 3) + options["t"]

    compiled = flashpoint.compile(fn, backend="eager")
    for step in range(50):
        options = {"a": step % 3 == 0, "t": torch.full((3,), float(step))}
        assert torch.equal(compiled(options, X), fn(options, X))
        del options
    (*_, entry) = code_state.entries(fn)
    assert flashpoint.counters()["hits"] >= 40 and entry.guards
