"""How many recordings a compiled function makes, and what happens then."""

from __future__ import annotations

import logging

import pytest
import torch
import torch._dynamo
from torch._dynamo.exc import FailOnRecompileLimitHit

import flashpoint


def add(x):
    return x + 1


def call_with_sizes(compiled, sizes) -> None:
    for size in sizes:
        x = torch.randn(size)
        assert torch.equal(compiled(x), x + 1)


def kept() -> int:
    return flashpoint.counters()["captures_kept"]


@pytest.fixture(autouse=True)
def from_zero():
    flashpoint.reset_counters()


def test_one_warning_then_eager(caplog) -> None:
    compiled = flashpoint.compile(add, recompile_limit=2)
    with caplog.at_level(logging.WARNING, logger="flashpoint"):
        call_with_sizes(compiled, [1, 2, 3, 4, 1, 2])
    assert kept() == 2 and flashpoint.counters()["hits"] == 2
    assert [record.name for record in caplog.records] == ["flashpoint"]
    text = caplog.records[0].getMessage()
    assert "add has reached its recompile limit (2)" in text and "did not fit: " in text
    assert flashpoint.counters()["recompile_limits_reached"] == 1
    flashpoint.reset()
    call_with_sizes(compiled, [3, 4, 5])
    assert kept() == 4, "the limit is the function's own, also after a reset"


def test_fullgraph_raises_each_time() -> None:
    compiled = flashpoint.compile(add, fullgraph=True, recompile_limit=1)
    call_with_sizes(compiled, [1])
    for _ in range(2):
        with pytest.raises(FailOnRecompileLimitHit, match=r"\[flashpoint.compile\] add .*fullgraph"):
            compiled(torch.randn(2))
    call_with_sizes(compiled, [1])


def test_dynamos_settings_are_honoured() -> None:
    with torch._dynamo.config.patch(recompile_limit=3):
        call_with_sizes(flashpoint.compile(add), range(1, 8))
        assert kept() == 3
        with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
            with pytest.raises(FailOnRecompileLimitHit, match="fail_on_recompile_limit_hit"):
                call_with_sizes(flashpoint.compile(add), range(1, 8))
    with torch._dynamo.config.patch(recompile_limit=20):
        flashpoint.reset_counters()
        call_with_sizes(flashpoint.compile(add), range(1, 15))
        assert kept() == 14


def test_which_limit_counts() -> None:
    with torch._dynamo.config.patch(recompile_limit=3), flashpoint.config.patch(recompile_limit=4):
        call_with_sizes(flashpoint.compile(add), range(1, 8))
        assert kept() == 4
        call_with_sizes(flashpoint.compile(add, recompile_limit=1), range(1, 8))
        assert kept() == 5


def test_torch_compile_passes_its_arguments(caplog) -> None:
    with flashpoint.installed("eager"), caplog.at_level(logging.WARNING, logger="flashpoint"):
        compiled = torch.compile(
            add, name="adder", recompile_limit=1, isolate_recompiles=True, shapes_spec=None, dynamic=False
        )
        call_with_sizes(compiled, [1, 2])
    assert kept() == 1 and "adder has reached" in caplog.text


@pytest.mark.parametrize(
    "arguments, error",
    [
        ({"recompile_limit": 0}, ValueError),
        ({"recompile_limit": -1}, ValueError),
        ({"recompile_limit": True}, TypeError),
        ({"recompile_limit": "8"}, TypeError),
        ({"recompile_limit": 2**40}, ValueError),
        ({"name": 3}, TypeError),
        ({"isolate_recompiles": 1}, TypeError),
    ],
)
def test_wrong_arguments(arguments, error) -> None:
    with pytest.raises(error, match=rf"\[flashpoint.compile\] {next(iter(arguments))}"):
        flashpoint.compile(add, **arguments)


def test_a_long_text_in_another_script() -> None:
    compiled = flashpoint.compile(lambda x, text: x + len(text), recompile_limit=1)
    for n in range(36, 44):
        text = "é" * n + "x"
        assert torch.equal(compiled(torch.ones(2), text), torch.ones(2) + len(text))


@pytest.mark.parametrize("moves", [True, False], ids=["recent first", "as made"])
def test_many_entries(moves: bool) -> None:
    """Which one is tried first may be a guess; which one answers is for its guards to say."""
    compiled = flashpoint.compile(lambda x, n, *rest: x * n + len(rest), recompile_limit=100)
    calls = [
        (torch.randn(size), n, *rest) for size in range(1, 5) for n in (1, 2.5) for rest in ((), (None,))
    ]
    calls += [(torch.randn(3, requires_grad=True), True), (torch.randn(3).double(), 3)]
    with flashpoint.code_state.lru_cache(moves):
        for _ in range(3):
            for args in [*calls, *reversed(calls)]:
                x, n, *rest = args
                assert torch.equal(compiled(*args), x * n + len(rest))
    counters = flashpoint.counters()
    assert counters["captures_kept"] <= 30
    assert counters["hits"] >= 6 * len(calls) - 30


@pytest.mark.parametrize("settings", [flashpoint.config, torch._dynamo.config], ids=["own", "torch's"])
def test_accumulated_limit(caplog, settings) -> None:
    """All compiled functions of a code object together; those of another code are not counted."""
    with settings.patch(accumulated_recompile_limit=3), caplog.at_level(logging.WARNING, logger="flashpoint"):
        one, two, other = (
            flashpoint.compile(add),
            flashpoint.compile(add),
            flashpoint.compile(lambda x: x + 1),
        )
        call_with_sizes(one, [1, 2])
        call_with_sizes(two, [1, 2, 3, 1])
        call_with_sizes(other, [1, 2, 3])
        assert kept() == 6 and flashpoint.counters()["hits"] == 1
        (record,) = caplog.records
        assert "the accumulated recompile limit of its code (3)" in record.getMessage()
        assert "flashpoint.config.accumulated_recompile_limit" in record.getMessage()
        del one
        call_with_sizes(two, [2, 2])
        assert kept() == 7 and flashpoint.counters()["hits"] == 2


@pytest.mark.parametrize("argument", ["holder", "Holder()"], ids=["one instance", "another each time"])
def test_hundreds_of_entries_are_not_tried_in_turn(run_python, argument: str) -> None:
    """A call like an earlier one goes straight to the entry that answered that one."""
    program = f"""
import sys, torch, flashpoint
class Holder:
    pass
holder = Holder()
compiled = flashpoint.compile(lambda x, holder: x + 1, backend="eager", recompile_limit=300)
shapes = [torch.ones(n) for n in range(1, 201)]
for x in shapes:
    compiled(x, {argument})
for x in shapes:
    compiled(x, {argument})
flashpoint.reset_counters()
print("from here", file=sys.stderr, flush=True)
for x in [*shapes, *reversed(shapes)]:
    assert torch.equal(compiled(x, {argument}), x + 1)
assert flashpoint.counters()["hits"] == 400
"""
    done = run_python("-c", program, FLASHPOINT_LOG="miss")
    assert done.returncode == 0, done.stderr[-2000:]
    before, after = done.stderr.split("from here")
    assert before.count("miss in") > 10_000 and after.count("miss in") <= 20


def test_instances_of_a_class_share_entries() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = torch.nn.Linear(3, 3)

        @flashpoint.compile
        def forward(self, x):
            return self.lin(x).relu()

    nets, x = [Net() for _ in range(5)], torch.randn(2, 3)
    flashpoint.reset_counters()
    for _ in range(3):
        for net in nets:
            assert torch.allclose(
                net(x), torch.relu(torch.nn.functional.linear(x, net.lin.weight, net.lin.bias))
            )
    counters = flashpoint.counters()
    assert (counters["captures_started"], counters["hits"]) == (1, 14)
    nets[3].lin = torch.nn.Linear(3, 3, bias=False)
    for _ in range(2):
        assert torch.allclose(nets[3](x), torch.relu(x @ nets[3].lin.weight.t()))
        assert torch.allclose(nets[4](x), torch.relu(nets[4].lin(x)))
    assert flashpoint.counters()["captures_started"] == 2
