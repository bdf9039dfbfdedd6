"""Soundness beyond one program text: addresses reused, threads, fork, other compilers, re-entry."""

from __future__ import annotations

import copy
import gc
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tests.support import FAKE, Call, check_calls, flashpoint

x = torch.arange(6.0).reshape(2, 3)


def _compile(fn: Callable) -> Callable:
    return flashpoint.compile(fn, backend="eager")


# Objects that die between calls, so that their addresses come back.


def _lists() -> Iterator[tuple]:
    for i in range(60):
        yield (x, [i % 7, i % 3])


def _dicts() -> Iterator[tuple]:
    for i in range(60):
        yield (x, {"k": i % 5, "j": i % 2})


def _objects() -> Iterator[tuple]:
    for i in range(60):
        yield (x, SimpleNamespace(k=i % 5, j=i))


def _lambdas() -> Iterator[tuple]:
    for i in range(60):
        yield (x, lambda t, i=i: t * (i % 5))


def _closures() -> Iterator[tuple]:
    def make(k: int) -> Callable:
        return lambda t: t + k

    for i in range(60):
        yield (x, make(i % 5))


def _classes() -> Iterator[tuple]:
    for i in range(40):
        yield (x, type("K", (), {"k": i % 5, "j": 1})())


def _modules() -> Iterator[tuple]:
    for i in range(40):
        torch.manual_seed(i)
        yield (x, nn.Linear(3, 2) if i % 3 else nn.Tanh())


def _bound_methods() -> Iterator[tuple]:
    class A:
        def __init__(self, k: int) -> None:
            self.k = k

        def m(self, t: torch.Tensor) -> torch.Tensor:
            return t * self.k

    for i in range(40):
        yield (x, A(i % 5).m)


def _tensors() -> Iterator[tuple]:
    for i in range(60):
        t = torch.full((2, 3), float(i)) if i % 4 else torch.full((3, 2), float(i)).t()
        yield (x, t)


def _many_shapes() -> Iterator[tuple]:
    for i in range(30):
        yield (x, torch.ones(1 + i % 2, 3, dtype=(torch.float32, torch.float64)[i % 3 == 0]))


READS: dict[str, tuple[Callable, Callable[[], Iterator[tuple]]]] = {
    "lists": (lambda t, v: t * v[0] + len(v) + v[1], _lists),
    "dicts": (lambda t, v: t * v["k"] + v["j"], _dicts),
    "objects": (lambda t, v: t * v.k + v.j, _objects),
    "lambdas": (lambda t, v: v(t), _lambdas),
    "closures": (lambda t, v: v(t), _closures),
    "classes": (lambda t, v: t * v.k + type(v).j, _classes),
    "modules": (lambda t, v: v(t), _modules),
    "bound methods": (lambda t, v: v(t), _bound_methods),
    "tensors": (lambda t, v: t * v + v.stride(0), _tensors),
    "shapes and dtypes": (lambda t, v: t + v, _many_shapes),
}


@pytest.mark.parametrize("name", READS)
def test_addresses_come_back(name: str) -> None:
    read, inputs = READS[name]
    compiled = _compile(read)
    for index, (eager_args, args) in enumerate(zip(inputs(), inputs(), strict=True)):
        expected, found = read(*eager_args), compiled(*args)
        assert torch.equal(expected, found) and expected.dtype == found.dtype, index
        del eager_args, args, expected, found


def test_compiled_functions_come_and_go() -> None:
    for i in range(60):
        k = i % 5

        def fn(t: torch.Tensor, k: int = k) -> torch.Tensor:
            return t * k + i  # noqa: B023

        compiled = _compile(fn)
        for _ in range(2):
            assert torch.equal(compiled(x), x * k + i)


def test_one_code_object_many_closures() -> None:
    def make(k: float) -> Callable:
        return lambda t: t * k

    compiled = [_compile(make(k)) for k in range(6)]
    for _ in range(3):
        for k, fn in enumerate(compiled):
            assert torch.equal(fn(x), x * k)


def test_global_tensor_replaced_at_the_same_address() -> None:
    space: dict[str, Any] = {"torch": torch}
    exec("def fn(t): return t * W", space)
    compiled = _compile(space["fn"])
    for i in range(40):
        space["W"] = None
        space["W"] = torch.full((3,), float(i))
        assert torch.equal(compiled(x), x * i)


def test_results_of_earlier_calls_stay() -> None:
    compiled = _compile(lambda t: (t * 2, [t + 1]))
    results = [compiled(x + i) for i in range(20)]
    for i, (double, (plus,)) in enumerate(results):
        assert torch.equal(double, (x + i) * 2) and torch.equal(plus, x + i + 1)


# Threads.


def _in_threads(work: Callable[[int], None], count: int = 4) -> None:
    errors: list[BaseException] = []

    def guarded(index: int) -> None:
        try:
            work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    if errors:
        raise errors[0]


def test_threads_share_one_compiled_function() -> None:
    compiled = _compile(lambda t, k: (t * k).sin() + k)

    def work(index: int) -> None:
        for i in range(40):
            k = (index + i) % 5
            assert torch.equal(compiled(x + index, k), ((x + index) * k).sin() + k)

    _in_threads(work)


def test_threads_compile_their_own() -> None:
    def work(index: int) -> None:
        for i in range(10):
            compiled = _compile(lambda t: t * index + i)  # noqa: B023
            for _ in range(3):
                assert torch.equal(compiled(x), x * index + i)

    _in_threads(work)


def test_grad_mode_is_each_threads_own() -> None:
    w = torch.ones(3, requires_grad=True)
    compiled = _compile(lambda t: t * w)

    def work(index: int) -> None:
        for _ in range(30):
            with torch.set_grad_enabled(index % 2 == 0):
                assert compiled(x).requires_grad == (index % 2 == 0)

    _in_threads(work)


def test_another_thread_changes_what_is_read() -> None:
    state = SimpleNamespace(k=2, items=[1, 2])
    compiled = _compile(lambda t: t * state.k + len(state.items))
    done = threading.Event()
    wanted = [x * k + n for k in (2, 3) for n in (1, 2)]

    def change(index: int) -> None:
        if index == 0:
            while not done.is_set():
                state.k = 5 - state.k
                state.items.pop() if len(state.items) == 2 else state.items.append(1)
            return
        try:
            for _ in range(150):
                result = compiled(x)
                assert any(torch.equal(result, value) for value in wanted)
        finally:
            done.set()

    _in_threads(change, 2)


def test_work_of_other_threads_is_not_recorded() -> None:
    done = threading.Event()
    log: list[int] = []

    def noise() -> None:
        while not done.is_set():
            log.append(1)
            torch.ones(3).add_(1)

    def many(t: torch.Tensor) -> torch.Tensor:
        for i in range(300):
            t = t * 0.99 + i
        return t

    compiled = _compile(many)
    thread = threading.Thread(target=noise)
    thread.start()
    try:
        first = compiled(x)
    finally:
        done.set()
        thread.join()
    size = len(log)
    assert torch.equal(first, many(x)) and torch.equal(compiled(x), many(x))
    assert len(log) == size


def test_a_call_in_a_thread_uses_the_main_threads_entry() -> None:
    compiled = _compile(lambda t: t * 2 + 1)
    compiled(x)
    results: list[torch.Tensor] = []
    thread = threading.Thread(target=lambda: results.append(compiled(x + 1)))
    thread.start()
    thread.join()
    assert torch.equal(results[0], (x + 1) * 2 + 1)


# Fork.


def _in_child(check: Callable[[], bool]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if check() else 2
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def test_a_child_process_hits_and_captures() -> None:
    compiled = _compile(lambda t, k: t * k + 1)
    compiled(x, 2)

    def check() -> bool:
        fresh = _compile(lambda t: t - 3)
        return (
            torch.equal(compiled(x, 2), x * 2 + 1)
            and torch.equal(compiled(x, "a" and 3), x * 3 + 1)
            and torch.equal(fresh(x), x - 3)
            and torch.equal(fresh(x + 1), x - 2)
        )

    assert _in_child(check) == 0
    assert torch.equal(compiled(x, 2), x * 2 + 1)


def test_fork_inside_a_call() -> None:
    def fn(t: torch.Tensor) -> torch.Tensor:
        t = t * 2
        pid = os.fork()
        if pid == 0:
            os._exit(0 if torch.equal(t + 1, x * 2 + 1) else 3)
        status = os.waitpid(pid, 0)[1]
        return t + status

    compiled = _compile(fn)
    for _ in range(3):
        assert torch.equal(compiled(x), x * 2)


# Re-entry and the life of compiled functions.


def test_a_compiled_function_that_calls_itself_compiled() -> None:
    space: dict[str, Any] = {}
    exec("def fn(t, n): return t if n == 0 else again(t * 2, n - 1) + 1", space)
    plain = dict(space)
    exec("def fn(t, n): return t if n == 0 else fn(t * 2, n - 1) + 1", plain)
    space["again"] = compiled = _compile(space["fn"])
    for n in (3, 3, 4, 0, 3):
        assert torch.equal(compiled(x, n), plain["fn"](x, n))


def test_reset_inside_a_call() -> None:
    calls: list[int] = []

    def fn(t: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        t = t * 2
        flashpoint.reset()
        return t + 1

    compiled = _compile(fn)
    for _ in range(4):
        assert torch.equal(compiled(x), x * 2 + 1)
    assert len(calls) == 4


def test_a_compiled_function_that_dies_in_its_own_call() -> None:
    holder: dict[str, Any] = {}

    def fn(t: torch.Tensor) -> torch.Tensor:
        t = t * 2
        holder.clear()
        return t + 1

    holder["f"] = _compile(fn)
    alive = weakref.ref(holder["f"])
    assert torch.equal(holder["f"](x), x * 2 + 1)
    gc.collect()
    assert alive() is None or FAKE


def test_entries_beyond_the_limit_run_eagerly() -> None:
    compiled = _compile(lambda t, s: (t * 2, s))
    for _ in range(2):
        for i in range(12):
            result, text = compiled(x, f"s{i}")
            assert torch.equal(result, x * 2) and text == f"s{i}"


def test_exceptions_leave_nothing_behind() -> None:
    def fn(t: torch.Tensor, k: int) -> torch.Tensor:
        t = t + 1
        if k:
            raise ValueError(k)
        return t

    compiled = _compile(fn)
    marker = weakref.WeakSet()

    class T(torch.Tensor):
        pass

    for k in (1, 0, 1, 0):
        held = x.clone().as_subclass(T)
        marker.add(held)
        try:
            compiled(held, k)
        except ValueError as error:
            assert error.args == (k,)
        del held
    flashpoint.reset()
    gc.collect()
    assert not marker


def test_trace_and_profile_functions_are_kept() -> None:
    events: list[str] = []

    def profile(frame: Any, event: str, arg: Any) -> None:
        if frame.f_code.co_name == "traced":
            events.append(event)

    def traced(t: torch.Tensor) -> torch.Tensor:
        return t * 2

    compiled = _compile(traced)
    sys.setprofile(profile)
    try:
        results = [compiled(x), compiled(x)]
    finally:
        sys.setprofile(None)
    assert all(torch.equal(result, x * 2) for result in results)


def test_a_copied_module_is_its_own() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    compiled = flashpoint.compile(module)
    compiled(x)
    twin = copy.deepcopy(module)
    with torch.no_grad():
        twin[0].weight.zero_()
    other = flashpoint.compile(twin)
    for _ in range(2):
        assert torch.equal(other(x), twin(x))
        assert torch.equal(compiled(x), module(x))


# Other compilers inside the region.

COMPILERS = {
    "torch.compile inside": (
        "h = torch.compile(lambda t, k: t * k + 1, backend='eager')\ndef fn(x, k): return h(x, k) * 2",
        ["x, 2", "x, 2", "y, 2", "x, 3"],
    ),
    "torch.compile warmed outside": (
        "h = torch.compile(lambda t: t.sin() + 1, backend='eager')\nh(x)\ndef fn(x): return h(x) * 2",
        ["x", "x", Call("y", post="h(x)"), "x"],
    ),
    "torch.compile counts its compilations": (
        "from torch._dynamo.testing import CompileCounter\nc = CompileCounter()\n"
        "h = torch.compile(lambda t: t.sin() + 1, backend=c)\nh(x)\ndef fn(x): return h(x) * 2",
        [Call("x", post="c.frame_count"), Call("y", post="(h(x), c.frame_count)"), "x"],
    ),
    "cond": (
        "def fn(x): return torch.cond(x.sum() > 13, lambda t: t + 1, lambda t: t - 1, (x,))",
        ["x", "x", "y", "x"],
    ),
    "scripted function": (
        "@torch.jit.script\ndef h(t, k: int):\n  if k > 2: t = t + 1\n  return t * k\n"
        "def fn(x, k): return h(x, k) * 2",
        ["x, 2", "x, 2", "y, 3", "x, 3"],
    ),
    "traced function": (
        "h = torch.jit.trace(lambda t: t.sin() + 1, x)\ndef fn(x): return h(x) * 2",
        ["x", "x", "y", "x"],
    ),
    "disabled for dynamo": (
        "import torch._dynamo\n@torch._dynamo.disable\ndef h(t): return t.sin() + 1\n"
        "def fn(x): return h(x) * 2",
        ["x", "x", "y", "x"],
    ),
    "make_fx inside": (
        "from torch.fx.experimental.proxy_tensor import make_fx\n"
        "def fn(x):\n  g = make_fx(lambda t: t * 2 + 1)(x)\n  return g(x), len(g.graph.nodes)",
        ["x", "x", "y"],
    ),
}


@pytest.mark.parametrize("name", COMPILERS)
def test_other_compilers_inside(name: str) -> None:
    source, calls = COMPILERS[name]
    torch._dynamo.reset()
    check_calls(source, calls)
