"""graph_break(), disable(), allow_in_graph(), the spellings of torch; what fullgraph makes of a break."""

from __future__ import annotations

import traceback

import pytest
import torch
from torch import nn

import flashpoint

X = torch.arange(3.0)


def counts(fn: object, *arguments: object, calls: int = 3) -> list[dict[str, int]]:
    result = []
    for _ in range(calls):
        flashpoint.reset_counters()
        fn(*arguments)
        result.append(flashpoint.counters())
    return result


@pytest.mark.parametrize("ask", [flashpoint.graph_break, torch._dynamo.graph_break])
def test_graph_break_splits_the_recording(ask: object) -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        ask()
        return y * 2

    compiled = flashpoint.compile(fn)
    first, second, third = counts(compiled, X)
    assert first["captures_kept"] == 2 and first["breaks_resumed"] == 1
    assert second == third and second["resume_hits"] == 1 and second["captures_started"] == 0
    assert torch.equal(compiled(X), fn(X))


def test_graph_break_outside_a_recording_does_nothing() -> None:
    assert flashpoint.graph_break("for the reader") is None


@pytest.mark.parametrize("disable", [flashpoint.disable, torch.compiler.disable, torch._dynamo.disable])
def test_a_disabled_function_runs_each_time(disable: object) -> None:
    seen = []

    @disable
    def note(x: torch.Tensor) -> torch.Tensor:
        seen.append(float(x.sum()))
        return x * 2

    @flashpoint.compile
    def fn(x: torch.Tensor) -> torch.Tensor:
        return note(x + 1) - 1

    first, second, _ = counts(fn, X)
    assert first["breaks_resumed"] == 1 and second["resume_hits"] == 1
    fn(X + 1)
    assert seen == [6.0, 6.0, 6.0, 9.0]


def test_disable_takes_arguments_and_keeps_the_name() -> None:
    @flashpoint.disable(reason="talks to a server")
    def fetch(x: int) -> int:
        "Fetches."
        return x + 1

    assert fetch(1) == 2 and fetch.__name__ == "fetch" and fetch.__doc__ == "Fetches."
    told = flashpoint.explain(lambda x: x + fetch(1))(X)
    assert "talks to a server" in str(told) and "disabled" in str(told)


def test_what_a_disabled_function_calls_is_not_compiled() -> None:
    inner = flashpoint.compile(lambda x: x + 1)
    inner(X)
    for recursive, hits, eager in ((True, 0, 1), (False, 1, 0)):
        outer = flashpoint.disable(lambda x: inner(x), recursive=recursive)  # noqa: PLW0108, B023
        flashpoint.reset_counters()
        outer(X)
        assert (flashpoint.counters()["hits"], flashpoint.counters()["eager_calls"]) == (hits, eager)


def test_disable_lets_go_when_the_function_raises() -> None:
    @flashpoint.disable
    def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        fail()
    compiled = flashpoint.compile(lambda x: x + 1)
    assert counts(compiled, X)[1]["hits"] == 1


def test_a_disabled_function_is_not_compiled_at_all() -> None:
    compiled = flashpoint.compile(flashpoint.disable(lambda x: x + 1))
    assert all(c["eager_calls"] == 1 and c["captures_started"] == 0 for c in counts(compiled, X))


def test_a_disabled_module_breaks_the_recording() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), flashpoint.disable(nn.Linear(3, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x)).relu()

    model = Model().eval()
    compiled = flashpoint.compile(model)
    with torch.no_grad():
        first, second, _ = counts(compiled, X)
        assert first["breaks_resumed"] == 1 and second["resume_hits"] == 1
        assert torch.equal(compiled(X), model(X))


@pytest.mark.parametrize("bad", [3, int, None.__class__])
def test_disable_refuses_what_it_cannot_wrap(bad: object) -> None:
    with pytest.raises(TypeError, match=r"\[flashpoint.disable\]"):
        flashpoint.disable(bad)


def test_allow_in_graph() -> None:
    def twice(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    assert flashpoint.allow_in_graph(twice) is twice
    with pytest.raises(TypeError, match=r"\[flashpoint.allow_in_graph\]"):
        flashpoint.allow_in_graph(3)
    torch.compiler.allow_in_graph(twice)
    first, second, _ = counts(flashpoint.compile(lambda x: twice(x) + 1), X)
    assert first["captures_kept"] == 1 and second["hits"] == 1 and second["ops_replayed"] == 2


def test_fullgraph_raises_before_the_break() -> None:
    done = []

    def fn(x: torch.Tensor) -> torch.Tensor:
        done.append("before")
        y = x + 1
        print(done.append("at"))  # the argument comes first
        done.append("behind")
        return y

    with pytest.raises(RuntimeError, match=r"fullgraph=True.*unknown|fullgraph=True.*rule") as raised:
        flashpoint.compile(fn, fullgraph=True)(X)
    assert done == ["before", "at"]
    frames = [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]
    assert frames[-1] == "fn"
    assert f"{__file__}:" in str(raised.value) and "Hint" in str(raised.value)


def test_fullgraph_runs_the_clean_up() -> None:
    cleaned = []

    def fn(x: torch.Tensor) -> float:
        with torch.no_grad():
            try:
                return x.sum().tolist()
            finally:
                cleaned.append(torch.is_grad_enabled())

    with pytest.raises(RuntimeError, match="fullgraph"):
        flashpoint.compile(fn, fullgraph=True)(X)
    assert cleaned == [False] and torch.is_grad_enabled()


def test_fullgraph_raises_though_the_program_catches() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        try:
            return x * x.sum().tolist()
        except RuntimeError:
            return x

    with pytest.raises(RuntimeError, match="fullgraph"):
        flashpoint.compile(fn, fullgraph=True)(X)


def test_fullgraph_leaves_an_exception_of_the_program_alone() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        raise KeyError("own")

    with pytest.raises(KeyError, match="own"):
        flashpoint.compile(fn, fullgraph=True)(X)


def test_fullgraph_with_graph_break() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        flashpoint.graph_break()
        return x

    with pytest.raises(RuntimeError, match="asked for a graph break"):
        flashpoint.compile(fn, fullgraph=True)(X)


@pytest.mark.parametrize(
    "allow", [flashpoint.allow_in_graph, torch._dynamo.allow_in_graph, torch.compiler.allow_in_graph]
)
def test_graph_break_below_what_is_allowed_in_graph_does_nothing(allow: object) -> None:
    def inner(x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return x * 2

    @allow
    def outer(x: torch.Tensor) -> torch.Tensor:
        flashpoint.graph_break()
        return inner(x) + 1

    def fn(x: torch.Tensor) -> torch.Tensor:
        return outer(x.sin()).cos()

    compiled = flashpoint.compile(fn, backend="eager", fullgraph=True)
    first, second, _ = counts(compiled, X)
    assert first["captures_kept"] == 1 and second["hits"] == 1 and second["ops_replayed"] == 4
    assert torch.equal(compiled(X), fn(X))
    # Elsewhere it does what it is for.
    assert counts(flashpoint.compile(inner, backend="eager"), X)[0]["breaks_resumed"] == 1


@pytest.mark.parametrize("ask", [flashpoint.graph_break, torch._dynamo.graph_break])
def test_the_message_of_a_graph_break_is_shown(ask: object) -> None:
    def by_position(x: torch.Tensor) -> torch.Tensor:
        ask("the reason why")
        return x + 1

    def by_name(x: torch.Tensor) -> torch.Tensor:
        ask(msg="the reason why")
        return x + 1

    for fn in (by_position, by_name):
        with pytest.raises(RuntimeError, match="the reason why"):
            flashpoint.compile(fn, backend="eager", fullgraph=True)(X)


def test_disallow_in_graph() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return torch.add(torch.sub(torch.add(x, 1), 2), 3)

    torch._dynamo.disallow_in_graph(torch.sub)
    try:
        compiled = flashpoint.compile(fn, backend="eager")
        first, second, third = counts(compiled, X)
        assert first["breaks_resumed"] == 1 and second["hits"] == third["hits"] == 1
        assert second["ops_replayed"] == 2  # it runs by itself, between two graphs
        assert torch.equal(compiled(X), fn(X))
        with pytest.raises(RuntimeError, match=r"torch\._VariableFunctionsClass\.sub|sub"):
            flashpoint.compile(fn, backend="eager", fullgraph=True)(X)
    finally:
        torch._dynamo.allow_in_graph(torch.sub)
    assert counts(flashpoint.compile(fn, backend="eager"), X)[0]["breaks_resumed"] == 0


def test_substitutions_of_torch_compile_hold() -> None:
    def original(x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("not this one")

    @torch.compiler.substitute_in_graph(original)
    def instead(x: torch.Tensor) -> torch.Tensor:
        return x + 3

    compiled = flashpoint.compile(lambda x: original(x) * 2, backend="eager", fullgraph=True)
    for _ in range(3):
        assert torch.equal(compiled(X), (X + 3) * 2)
    with pytest.raises(AssertionError):
        original(X)
