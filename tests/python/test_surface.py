"""torch.compiler's functions in compiled programs, stances, and torch.compile routed to Flashpoint."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import flashpoint
from flashpoint.compiling import _C


def counts(*names: str) -> tuple[int, ...]:
    found = flashpoint.counters()
    return tuple(found[name] for name in names)


def check(fn, *args, calls: int = 3, breaks: int = 0):
    """One recording without a break; every later call is a hit with eager's result."""
    compiled = flashpoint.compile(fn)
    for _ in range(calls):
        result = compiled(*args)
    assert counts("captures_kept", "breaks_resumed", "hits") == (1 + breaks, breaks, calls - 1)
    return result


X = torch.ones(2)


def test_tracing_state_queries() -> None:
    def f(x):
        return x + 1, torch.compiler.is_compiling(), torch.compiler.is_dynamo_compiling()

    assert check(f, X)[1:] == (True, True)
    assert f(X)[1:] == (False, False)


# Functions that torch.compile has wrapped.


def double(x):
    return x * 2


def test_torch_compiled_functions_are_recorded_as_what_they_wrap() -> None:
    torch._dynamo.utils.counters.clear()
    inner = torch.compile(double, backend="eager")
    torch.testing.assert_close(check(lambda x: inner(x) + 1, X), X * 2 + 1)
    flashpoint.reset_counters()
    torch.testing.assert_close(check(lambda x: inner(x=x) + 1, X), X * 2 + 1)
    assert not torch._dynamo.utils.counters["frames"]


def test_torch_compiled_modules_and_module_compile() -> None:
    net, other = nn.Linear(2, 2), nn.Linear(2, 2)
    inner = torch.compile(net, backend="eager")
    other.compile(backend="eager")

    def f(x):
        return other(inner(x))

    torch.testing.assert_close(check(f, X), nn.functional.linear(net(X), other.weight, other.bias))


def test_a_break_inside_a_torch_compiled_function() -> None:
    @torch.compile(backend="eager")
    def inner(x):
        x = x * 2
        flashpoint.graph_break()
        return x + 1

    torch.testing.assert_close(check(lambda x: inner(x) + 1, X, breaks=1), X * 2 + 2)


def test_another_compiled_function_under_the_same_name() -> None:
    functions = {"inner": torch.compile(double, backend="eager")}
    compiled = flashpoint.compile(lambda x: functions["inner"](x) + 1)
    for factor in (2, 3, 3):
        if factor == 3:
            functions["inner"] = torch.compile(lambda x: x * 3, backend="eager")
        torch.testing.assert_close(compiled(X), X * factor + 1)


def test_torch_compile_inside() -> None:
    torch.testing.assert_close(check(lambda x: torch.compile(double)(x) + 1, X), X * 2 + 1)


def test_nested_compile_region() -> None:
    @torch.compiler.nested_compile_region
    def region(x):
        return x.sin()

    torch.testing.assert_close(check(lambda x: region(x) + region(x * 2), X), X.sin() + (X * 2).sin())


# assume_constant_result


@pytest.mark.parametrize(
    "mark",
    [flashpoint.assume_constant_result, torch.compiler.assume_constant_result],
    ids=["ours", "torch's"],
)
def test_assume_constant_result(mark) -> None:
    calls = []

    @mark
    def scale():
        calls.append(open("/dev/null").close())  # nothing that could be recorded
        return len(calls) + 1

    torch.testing.assert_close(check(lambda x: x * scale(), X), X * 2)
    assert len(calls) == 1


def test_a_constant_tensor() -> None:
    @flashpoint.assume_constant_result
    def table():
        return torch.arange(2.0)

    torch.testing.assert_close(check(lambda x: x * table(), X), X * torch.arange(2.0))


def test_a_constant_that_raises() -> None:
    calls = []

    @flashpoint.assume_constant_result
    def fails():
        calls.append(1)
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        flashpoint.compile(lambda x: x * fails())(X)
    assert len(calls) == 1


def test_assume_constant_result_takes_callables() -> None:
    with pytest.raises(TypeError, match=r"^\[flashpoint.assume_constant_result\]"):
        flashpoint.assume_constant_result(3)


def test_substitute_in_graph() -> None:
    import operator

    def original(x, factor):
        open("/dev/null").close()  # cannot be recorded
        return x * factor

    @flashpoint.substitute_in_graph(original)
    def replacement(x, factor):
        return torch.mul(x, factor)

    torch.testing.assert_close(check(lambda x: original(x, factor=3) + 1, X), X * 3 + 1)
    assert operator.length_hint([1]) == 1
    flashpoint.reset_counters()

    @flashpoint.substitute_in_graph(operator.length_hint)
    def length_hint(object, default=0):
        return len(object)

    torch.testing.assert_close(check(lambda x: x * operator.length_hint([1, 2]), X), X * 2)
    with pytest.raises(TypeError, match=r"^\[flashpoint.substitute_in_graph\]"):
        flashpoint.substitute_in_graph(int)


def test_error_on_graph_break() -> None:
    def f(x, fail):
        y = x + 1
        with torch._dynamo.error_on_graph_break(fail):
            flashpoint.graph_break()
        return y * 2

    compiled = flashpoint.compile(f)
    with pytest.raises(RuntimeError, match=r"^\[flashpoint.compile\] error_on_graph_break\(True\)"):
        compiled(X, True)
    torch.testing.assert_close(compiled(X, False), (X + 1) * 2)


# Stances


@pytest.mark.parametrize(
    "set_stance", [flashpoint.set_stance, torch.compiler.set_stance], ids=["ours", "torch's"]
)
class TestStance:
    def test_force_eager(self, set_stance) -> None:
        compiled = flashpoint.compile(double)
        compiled(X)
        with set_stance("force_eager"):
            compiled(X)
            compiled(torch.ones(3))
        assert counts("hits", "captures_started", "eager_calls") == (0, 1, 2)
        compiled(X)
        assert counts("hits") == (1,)

    def test_eager_on_recompile(self, set_stance) -> None:
        compiled = flashpoint.compile(double)
        compiled(X)
        with set_stance("eager_on_recompile"):
            compiled(X)
            compiled(torch.ones(3))
        assert counts("hits", "captures_started", "eager_calls") == (1, 1, 1)

    def test_fail_on_recompile(self, set_stance) -> None:
        compiled = flashpoint.compile(double)
        compiled(X)
        with set_stance("fail_on_recompile"):
            compiled(X)
            with pytest.raises(RuntimeError, match="double would be recorded.*fail_on_recompile.*arg0"):
                compiled(torch.ones(3))
        compiled(torch.ones(3))
        assert counts("hits", "captures_started") == (1, 2)

    def test_behind_a_break(self, set_stance) -> None:
        taken = []

        def f(x):
            y = x * 2
            flashpoint.graph_break()
            return y + (1 if taken else 2)

        compiled = flashpoint.compile(f)
        torch.testing.assert_close(compiled(X), X * 2 + 2)
        taken.append(1)
        with set_stance("eager_on_recompile"):
            torch.testing.assert_close(compiled(X), X * 2 + 1)
        with set_stance("fail_on_recompile"), pytest.raises(RuntimeError, match="fail_on_recompile"):
            compiled(X)
        torch.testing.assert_close(compiled(X), X * 2 + 1)

    def test_eager_then_compile(self, set_stance) -> None:
        compiled, other = flashpoint.compile(double), flashpoint.compile(lambda x: x + 1)
        with set_stance("eager_then_compile"):
            for call in range(3):
                assert torch.equal(compiled(X), X * 2)
                assert torch.equal(other(X), X + 1)
                assert counts("eager_calls", "captures_started") == (2, 2 * (call > 0))
        assert counts("hits") == (2,)

    def test_as_a_decorator(self, set_stance) -> None:
        compiled = flashpoint.compile(double)

        @set_stance("force_eager")
        def run():
            return compiled(X)

        run()
        compiled(X)
        assert counts("eager_calls", "captures_started") == (1, 1)


def test_set_stance_without_a_block() -> None:
    compiled = flashpoint.compile(double)
    flashpoint.set_stance("force_eager")
    try:
        compiled(X)
    finally:
        flashpoint.set_stance("default")
    compiled(X)
    assert counts("eager_calls", "captures_started") == (1, 1)


def test_dynamos_counters() -> None:
    from torch._dynamo.utils import counters

    def with_breaks(x):
        y = x + 1
        flashpoint.graph_break()
        y = y * 2
        torch._dynamo.graph_break()
        return y - 1

    counters.clear()
    with flashpoint.installed():
        compiled, plain = torch.compile(with_breaks), torch.compile(double, fullgraph=True)
        for _ in range(3):
            compiled(X), plain(X)
        plain(torch.ones(3))
    assert dict(counters["frames"]) == {"total": 5, "ok": 5}
    assert dict(counters["stats"]) == {"unique_graphs": 5, "calls_captured": 5}
    assert sum(counters["graph_break"].values()) == 2
    counters.clear()
    flashpoint.compile(double)(X)
    assert not counters["frames"]


def test_inside_dynamos_run() -> None:
    compiled = flashpoint.compile(double)
    broken = flashpoint.compile(lambda x: (x + 1, flashpoint.graph_break(), x - 1))
    compiled(X)
    broken(torch.ones(3))
    started = counts("captures_started")

    @torch._dynamo.run
    def run(x):
        assert torch.equal(compiled(x), x * 2)
        assert torch.equal(broken(x)[2], x - 1)

    run(X)
    run(torch.ones(5))
    assert counts("captures_started") == started
    assert counts("hits") == (1,)
    compiled(torch.ones(5))
    assert counts("captures_started") == (started[0] + 1,)


def test_unknown_stance() -> None:
    with pytest.raises(ValueError, match=r"^\[flashpoint.set_stance\] stance must be one of"):
        flashpoint.set_stance("lazy")


# install


def test_install_routes_torch_compile() -> None:
    original = torch.compile
    with flashpoint.installed():
        compiled = torch.compile(double)
        compiled(X), compiled(X)
        net = nn.Linear(2, 2)
        net.compile(fullgraph=True)
        net(X), net(X)

        @torch.compile(backend="eager", mode="default")
        def decorated(x):
            return x + 1

        decorated(X), decorated(X)
    assert torch.compile is original
    assert isinstance(compiled, _C.CompiledFunction) and isinstance(decorated, _C.CompiledFunction)
    assert counts("captures_kept", "hits") == (3, 3)


def test_install_routes_the_older_spelling() -> None:
    """Also where TorchDynamo is imported after the first recording: its graph_break is known all the same."""
    seen = []

    def backend(module, examples):
        seen.append(module)
        return module

    import torch._dynamo

    with flashpoint.installed():
        by_call = torch._dynamo.optimize(backend, nopython=True)(double)
        by_call(X), by_call(X)

        @torch._dynamo.optimize_assert("eager")
        def breaks(x):
            torch._dynamo.graph_break()
            return x + 1

        with pytest.raises(RuntimeError):
            breaks(X)
        assert torch._dynamo.optimize("eager", disable=True)(double) is double
    assert len(seen) == 1 and isinstance(by_call, _C.CompiledFunction)
    assert not isinstance(torch._dynamo.optimize("eager")(double), _C.CompiledFunction)


def test_install_leaves_operators_their_compilations() -> None:
    """torch.cond behind a break compiles its call, with a backend that traced operators are made for."""

    def inner(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x[0] > 0, lambda y: y + 2, lambda y: y - 2, [x])

    def fn(p: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(p, lambda y: y * 2, inner, [x])

    expected = [fn(torch.tensor(p), X) for p in (False, True)]
    with flashpoint.installed():
        compiled = torch.compile(fn, backend="eager")
        for _ in range(3):
            for p, value in zip((False, True), expected, strict=True):
                assert torch.equal(compiled(torch.tensor(p), X), value)


def test_install_with_a_backend_and_reset() -> None:
    seen = []

    def backend(module, examples):
        seen.append(module)
        return module

    flashpoint.install(backend=backend)
    try:
        compiled = torch.compile(double)
        compiled(X), compiled(X)
        torch.compiler.reset()
        compiled(X)
        assert torch.compile(double, disable=True) is double
        with pytest.raises(TypeError, match="unexpected keyword argument 'recompile_limits'"):
            torch.compile(double, recompile_limits=3)
    finally:
        flashpoint.uninstall()
    flashpoint.uninstall()
    assert len(seen) == 2
    assert torch.compile.__module__ == "torch" and not hasattr(torch.compile, "__wrapped__")
