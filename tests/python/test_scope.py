"""Scopes and the tracer's switch do what torch's own do, on every thread and whatever is raised."""

from __future__ import annotations

import contextlib
import random
import threading

import pytest
import torch
from torch._dynamo import current_scope_id as peer_scope

import flashpoint
from flashpoint import _C, tracer
from tests.python.graph_harness import record

KEY = "Tracer"


class Ours:
    current_scope_id = staticmethod(flashpoint.current_scope_id)
    enter_new_scope = staticmethod(flashpoint.enter_new_scope)


def both(check) -> None:
    """Runs a check on torch's functions and on ours, and compares what it gives."""
    assert check(Ours) == check(peer_scope)


def on_thread(body):
    found = []

    def run() -> None:
        try:
            found.append(body())
        except BaseException as error:  # handed to the caller below
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def test_scopes_nest() -> None:
    def check(api):
        seen = [api.current_scope_id()]
        with api.enter_new_scope() as got:
            seen += [got, api.current_scope_id()]
            with api.enter_new_scope(), api.enter_new_scope():
                seen.append(api.current_scope_id())
            seen.append(api.current_scope_id())
        return [*seen, api.current_scope_id()]

    both(check)
    assert check(Ours) == [1, None, 2, 4, 2, 1]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, StopIteration, GeneratorExit])
def test_scopes_end_with_exceptions(error) -> None:
    def check(api):
        inside = []
        with pytest.raises(error), api.enter_new_scope(), api.enter_new_scope():
            inside.append(api.current_scope_id())
            raise error
        return inside, api.current_scope_id()

    both(check)


def test_scopes_end_with_return_break_and_generators() -> None:
    def check(api):
        seen = []

        def returns():
            with api.enter_new_scope():
                return api.current_scope_id()

        def yields():
            with api.enter_new_scope():
                yield api.current_scope_id()
                yield api.current_scope_id()

        seen += [returns(), api.current_scope_id()]
        for _ in range(2):
            with api.enter_new_scope():
                seen.append(api.current_scope_id())
                continue
        seen += list(yields())
        stopped = yields()
        seen += [next(stopped), api.current_scope_id()]
        stopped.close()
        seen.append(api.current_scope_id())
        dropped = yields()
        next(dropped)
        del dropped
        return [*seen, api.current_scope_id()]

    both(check)


def test_scopes_that_end_out_of_order() -> None:
    def check(api):
        one, two = api.enter_new_scope(), api.enter_new_scope()
        seen = [api.current_scope_id()]
        one.__enter__()
        two.__enter__()
        one.__exit__(None, None, None)
        seen.append(api.current_scope_id())
        two.__exit__(None, None, None)
        return [*seen, api.current_scope_id()]

    both(check)
    assert check(Ours) == [1, 2, 1]


def test_scope_as_decorator() -> None:
    def check(api):
        @api.enter_new_scope()
        def deeper(n):
            return [api.current_scope_id(), *(deeper(n - 1) if n else [])]

        return deeper(3), deeper(1), api.current_scope_id(), deeper.__name__

    both(check)
    assert check(Ours)[0] == [2, 3, 4, 5]


def test_making_a_scope_does_nothing_and_dropping_it_ends_it() -> None:
    def check(api):
        made = api.enter_new_scope()
        seen = [api.current_scope_id()]
        made.__enter__()
        seen.append(api.current_scope_id())
        del made
        return [*seen, api.current_scope_id()]

    both(check)


def test_scope_left_twice() -> None:
    def check(api):
        scope = api.enter_new_scope()
        scope.__enter__()
        answers = [scope.__exit__(None, None, None), scope.__exit__(None, None, None)]
        return answers, api.current_scope_id()

    both(check)


def test_each_thread_has_its_own_scope() -> None:
    def check(api):
        with api.enter_new_scope():
            inside = on_thread(api.current_scope_id)

            def deeper():
                with api.enter_new_scope():
                    return api.current_scope_id()

            return inside, on_thread(deeper), api.current_scope_id()

    both(check)
    assert check(Ours) == (1, 2, 2)


def test_scope_left_on_another_thread() -> None:
    def check(api):
        def run():
            scope = api.enter_new_scope()
            scope.__enter__()

            def leave():
                scope.__exit__(None, None, None)
                return api.current_scope_id()

            return on_thread(leave), api.current_scope_id()

        return on_thread(run)

    both(check)


def test_random_scopes_on_many_threads() -> None:
    def check(api):
        def walk(seed):
            rng, seen = random.Random(seed), []
            with contextlib.suppress(ValueError), contextlib.ExitStack() as stack:
                for _ in range(200):
                    if rng.random() < 0.6:
                        stack.enter_context(api.enter_new_scope())
                    else:
                        stack.pop_all().close()
                    seen.append(api.current_scope_id())
                raise ValueError
            return [*seen, api.current_scope_id()]

        results: dict[int, list] = {}
        threads = [threading.Thread(target=lambda s=s: results.update({s: walk(s)})) for s in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    both(check)


def test_misused_scopes() -> None:
    scope = flashpoint.enter_new_scope()
    with pytest.raises(RuntimeError, match=r"\[flashpoint.enter_new_scope\] left, but never entered"):
        scope.__exit__(None, None, None)
    with scope, pytest.raises(RuntimeError, match=r"\[flashpoint.enter_new_scope\] .* call .* for each"):
        scope.__enter__()
    assert flashpoint.current_scope_id() == 1
    with pytest.raises(TypeError):
        flashpoint.enter_new_scope(1)


# The switch. torch's own is reached through the dispatcher's bindings, as ATen/TracerMode.h uses them.


class Header:
    """ATen/TracerMode.h, for torch's key."""

    class NoTracerDispatchMode:
        def __enter__(self):
            self.guard = torch._C._ExcludeDispatchKeyGuard(
                torch._C.DispatchKeySet(torch._C._dispatch_key_parse(KEY))
            )
            self.guard.__enter__()

        def __exit__(self, *exc):
            self.guard.__exit__(*exc)

    @staticmethod
    def is_dispatch_enabled() -> bool:
        included = torch._C._dispatch_tls_is_dispatch_key_included(KEY)
        return included and not torch._C._dispatch_tls_is_dispatch_key_excluded(KEY)

    @staticmethod
    def set_dispatch_enabled(enabled: bool) -> None:
        if torch._C._dispatch_tls_is_dispatch_key_excluded(KEY):
            raise RuntimeError("Cannot enable tracing within the scope of NoTracerDispatchMode!")
        torch._C._dispatch_tls_set_dispatch_key_included(KEY, enabled)


@pytest.fixture(autouse=True)
def switch_off():
    assert not tracer.is_dispatch_enabled()
    yield
    assert not _C._graph_enabled()
    tracer.set_dispatch_enabled(False)  # raises if a guard is left


def walk(api, seed: int) -> list:
    """A random program on the switch: what it shows at each step, and which steps raised."""
    rng, seen, depth = random.Random(seed), [], 0
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            action = rng.randrange(5)
            try:
                if action < 2:
                    api.set_dispatch_enabled(rng.random() < 0.7)
                elif action == 2:
                    stack.enter_context(api.NoTracerDispatchMode())
                    depth += 1
                elif action == 3:
                    stack.pop_all().close()
                    depth = 0
                else:
                    with contextlib.suppress(ZeroDivisionError), api.NoTracerDispatchMode():
                        seen.append(api.is_dispatch_enabled())
                        _ = 1 // 0
            except RuntimeError as error:
                seen.append("within the scope of NoTracerDispatchMode" in str(error))
            seen.append((api.is_dispatch_enabled(), depth))
    api.set_dispatch_enabled(False)
    return seen


def test_switch_does_what_the_header_says() -> None:
    for seed in range(40):
        assert walk(tracer, seed) == walk(Header, seed), seed


def test_switch_on_other_threads() -> None:
    tracer.set_dispatch_enabled(True)
    try:
        assert not on_thread(tracer.is_dispatch_enabled)
        with tracer.NoTracerDispatchMode():
            on_thread(lambda: tracer.set_dispatch_enabled(True))
            assert on_thread(lambda: walk(tracer, 3)) == walk_header(3)
            assert not tracer.is_dispatch_enabled()
        assert tracer.is_dispatch_enabled()
    finally:
        tracer.set_dispatch_enabled(False)


def walk_header(seed: int) -> list:
    return on_thread(lambda: walk(Header, seed))


def test_switch_has_the_headers_message() -> None:
    for enabled in (True, False):
        with tracer.NoTracerDispatchMode(), pytest.raises(RuntimeError) as caught:
            tracer.set_dispatch_enabled(enabled)
        assert str(caught.value) == (
            "[flashpoint.tracer.set_dispatch_enabled] Cannot enable tracing within the scope of "
            "NoTracerDispatchMode!"
        )


@pytest.mark.parametrize("value", [1, 0, None, "yes"])
def test_switch_takes_bools(value) -> None:
    with pytest.raises(TypeError, match=r"\[flashpoint.tracer.set_dispatch_enabled\] takes True or False"):
        tracer.set_dispatch_enabled(value)


def hidden() -> bool:
    return torch._C._dispatch_tls_is_dispatch_key_excluded("TESTING_ONLY_GenericMode")


def test_guards_that_end_out_of_order() -> None:
    one, two = tracer.NoTracerDispatchMode(), tracer.NoTracerDispatchMode()
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert hidden()
    two.__exit__(None, None, None)
    assert not hidden()


def test_guard_entered_again_and_as_decorator() -> None:
    guard = tracer.NoTracerDispatchMode()
    with guard:
        with guard:
            assert hidden()
        assert hidden()
    assert not hidden()
    with guard:
        assert hidden()

    @tracer.NoTracerDispatchMode()
    def inside():
        return hidden()

    assert inside() and not hidden()


def test_dropped_guard_ends() -> None:
    guard = tracer.NoTracerDispatchMode()
    assert not hidden()
    guard.__enter__()
    guard.__enter__()
    assert hidden()
    del guard
    assert not hidden()


def test_guard_leaves_alone_what_was_excluded_before() -> None:
    key = torch._C.DispatchKeySet(torch._C._dispatch_key_parse("TESTING_ONLY_GenericMode"))
    with torch._C._ExcludeDispatchKeyGuard(key):
        with tracer.NoTracerDispatchMode():
            assert hidden()
        assert hidden()
    assert not hidden()


def test_misused_guards() -> None:
    guard = tracer.NoTracerDispatchMode()
    with pytest.raises(RuntimeError, match="NoTracerDispatchMode. left, but not entered"):
        guard.__exit__(None, None, None)
    with guard:
        for action in (guard.__enter__, lambda: guard.__exit__(None, None, None)):
            with pytest.raises(RuntimeError, match="belongs to the thread that entered it"):
                on_thread(action)
        assert hidden()
    assert not hidden()
    with pytest.raises(TypeError, match="takes no arguments"):
        tracer.NoTracerDispatchMode(1)


def test_guard_dropped_on_another_thread_changes_nothing_there() -> None:
    holder = []

    def enter() -> None:
        holder.append(tracer.NoTracerDispatchMode())
        holder[0].__enter__()

    on_thread(enter)
    holder.clear()
    assert not hidden()
    tracer.set_dispatch_enabled(True)
    assert tracer.is_dispatch_enabled()
    tracer.set_dispatch_enabled(False)


# What recordings see of it.


def test_recording_runs_with_the_switch_on() -> None:
    seen = []

    def run(x):
        seen.append(tracer.is_dispatch_enabled())
        with tracer.NoTracerDispatchMode():
            seen.append(tracer.is_dispatch_enabled())
            torch.ones(3) * 2
        return x + 1

    graph, _ = record(run, torch.ones(2))
    assert seen == [True, False] and not tracer.is_dispatch_enabled()
    assert graph.node_count == 1


def test_a_switch_that_is_on_without_a_recording_changes_no_result() -> None:
    tracer.set_dispatch_enabled(True)
    try:
        x = torch.ones(3, requires_grad=True)
        (x * x).sum().backward()
        assert x.grad.tolist() == [2.0, 2.0, 2.0]
    finally:
        tracer.set_dispatch_enabled(False)


def test_compiled_call_inside_the_guard_runs_eagerly() -> None:
    compiled = flashpoint.compile(lambda x: x * 2 + 1)
    x = torch.ones(2)
    for _ in range(2):
        with tracer.NoTracerDispatchMode():
            assert compiled(x).tolist() == [3.0, 3.0]
    counters = flashpoint.counters()
    assert counters["eager_calls"] == 2 and counters["captures_started"] == 0
    assert [compiled(x).tolist() for _ in range(2)] == [[3.0, 3.0]] * 2
    with tracer.NoTracerDispatchMode():
        assert compiled(x).tolist() == [3.0, 3.0]
    counters = flashpoint.counters()
    assert counters["captures_kept"] == 1 and counters["hits"] == 2


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_a_compiled_function_leaves_the_switch_as_it_set_it(before, after) -> None:
    seen = []

    def fn(x):
        y = x + 1
        seen.append(tracer.is_dispatch_enabled())
        tracer.set_dispatch_enabled(after)
        return y * 2

    compiled = flashpoint.compile(fn)
    for _ in range(5):
        tracer.set_dispatch_enabled(before)
        assert compiled(torch.ones(2)).tolist() == [4.0, 4.0]
        assert tracer.is_dispatch_enabled() == after and seen.pop() == before
    tracer.set_dispatch_enabled(False)
    assert flashpoint.counters()["captures_started"] > 0


def test_guards_that_a_compiled_function_leaves_open() -> None:
    held = []

    def fn(x):
        held.append(tracer.NoTracerDispatchMode())
        held[-1].__enter__()
        return x * 3

    compiled = flashpoint.compile(fn)
    for _ in range(3):
        assert compiled(torch.ones(2)).tolist() == [3.0, 3.0]
        assert hidden()
    while held:
        assert hidden()
        held.pop().__exit__(None, None, None)
    assert not hidden()


@pytest.mark.parametrize("name", ["hides", "switches", "scopes"])
def test_compiled_functions_that_use_these(name) -> None:
    def hides(x):
        y = x + 1
        with tracer.NoTracerDispatchMode():
            z = y * 2
        return z + 1

    def switches(x):
        y = x + 1
        tracer.set_dispatch_enabled(False)
        return y * 2

    def scopes(x):
        with flashpoint.enter_new_scope():
            return x * flashpoint.current_scope_id()

    fn = {"hides": hides, "switches": switches, "scopes": scopes}[name]
    compiled = flashpoint.compile(fn)
    for n in range(1, 5):
        x = torch.full((2,), float(n))
        assert torch.equal(compiled(x), fn(x))
        assert flashpoint.current_scope_id() == 1 and not tracer.is_dispatch_enabled() and not hidden()
