"""flashpoint.code_state: what hangs on code objects, and what it does to calls."""

from __future__ import annotations

import gc
import re
import sys
import weakref
from pathlib import Path

import pytest
import torch

import flashpoint
from flashpoint import _C, code_state
from flashpoint.code_state import FrameAction, FrameExecStrategy

SKIP, RUN_ONLY = FrameAction.SKIP, FrameAction.RUN_ONLY


def double(x):
    return x * 2


class Scale(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = torch.nn.Linear(3, 3)

    def forward(self, x):
        return self.lin(x) + 1


@pytest.fixture(autouse=True)
def clean():
    flashpoint.reset_counters()
    yield
    for code in (double, Scale.forward):
        code_state.set_strategy(code, FrameExecStrategy())
        code_state.reset_precompile_entries(code)
        code_state.reset_code(code)


def count(name: str) -> int:
    return flashpoint.counters()[name]


@pytest.mark.parametrize("backend", ["eager", "native"])
def test_entries_of_a_function(backend: str) -> None:
    compiled, x = flashpoint.compile(double, backend=backend), torch.ones(3)
    before = len(code_state.entries(double))
    for _ in range(3):
        compiled(x)
    compiled(torch.ones(4))
    entries = code_state.entries(double.__code__)[before:]
    assert [entry.hits for entry in entries] == [0, 2], "most recently used first"
    first, second = entries[1], entries[0]
    assert first.backend == backend and first.nodes == 1 and "aten.mul" in first.graph
    assert first.guards and not first.behind_a_break
    code, number = first.compile_id.split("/")
    assert second.compile_id == f"{code}/{int(number) + 1}"
    assert first.trace_annotation == f"Torch-Compiled Region: {first.compile_id}"
    assert code_state.entries(compiled) == code_state.entries(double)


def test_entries_of_modules_of_one_class() -> None:
    compiled = [flashpoint.compile(Scale()) for _ in range(2)]
    for module in compiled:
        module(torch.ones(2, 3))
    assert len(code_state.entries(compiled[0])) == len(code_state.entries(Scale.forward)) == 2
    del compiled, module
    gc.collect()
    assert code_state.entries(Scale.forward) == [], "entries belong to the callable that made them"


def test_entries_behind_a_break() -> None:
    def fn(x):
        x = x + 1
        flashpoint.graph_break()
        return x * 2

    compiled = flashpoint.compile(fn)
    compiled(torch.ones(2))
    entries = code_state.entries(fn)
    assert sorted(entry.behind_a_break for entry in entries) == [False, True]
    assert len({entry.compile_id for entry in entries}) == 2 and all(e.compile_id for e in entries)
    with pytest.raises(ValueError, match="behind a graph break"):
        code_state.load_precompile_entry(fn, next(e for e in entries if e.behind_a_break))


def test_skip() -> None:
    compiled, x = flashpoint.compile(double), torch.ones(3)
    compiled(x)
    code_state.set_strategy(double, FrameExecStrategy(cur_action=SKIP))
    assert code_state.strategy(compiled) == FrameExecStrategy(SKIP)
    assert torch.equal(compiled(x), x * 2) and torch.equal(compiled(torch.ones(5)), torch.ones(5) * 2)
    assert (count("hits"), count("captures_kept"), count("eager_calls")) == (0, 1, 2)
    code_state.set_strategy(double, FrameExecStrategy())
    compiled(x)
    assert count("hits") == 1


def test_run_only() -> None:
    compiled, x = flashpoint.compile(double), torch.ones(3)
    compiled(x)
    code_state.set_strategy(double, FrameExecStrategy(cur_action=RUN_ONLY))
    compiled(x), compiled(torch.ones(5)), compiled(torch.ones(5))
    assert (count("hits"), count("captures_kept"), count("eager_calls")) == (1, 1, 2)


@pytest.mark.parametrize("action", [SKIP, RUN_ONLY])
def test_frames_below(action: FrameAction) -> None:
    inner, x = flashpoint.compile(double), torch.ones(3)
    inner(x)

    def fn(x):
        flashpoint.graph_break()
        return inner(x), inner(torch.ones(7))

    code_state.set_strategy(fn, FrameExecStrategy(SKIP, action))
    outer = flashpoint.compile(fn)
    flashpoint.reset_counters()
    assert torch.equal(outer(x)[0], x * 2)
    assert count("captures_started") == 0 and count("hits") == (0 if action is SKIP else 1)
    inner(x), inner(torch.ones(7))
    assert count("captures_kept") == 1, "outside of the frame nothing has changed"
    # An action of its own goes before the one that is inherited.
    code_state.set_strategy(double, FrameExecStrategy(RUN_ONLY))
    flashpoint.reset_counters()
    outer(x)
    assert count("hits") == 2


def test_loaded_entries_come_first() -> None:
    maker, x = flashpoint.compile(double), torch.ones(3)
    maker(x)
    (entry,) = [e for e in code_state.entries(double) if e.hits == 0][:1]
    code_state.load_precompile_entry(double, entry)
    assert [e.compile_id for e in code_state.precompile_entries(double)] == [entry.compile_id]
    del maker, entry
    gc.collect()
    flashpoint.reset_counters()
    compiled = flashpoint.compile(double)
    assert torch.equal(compiled(x), x * 2)
    assert (count("precompile_hits"), count("captures_started")) == (1, 0)
    assert torch.equal(compiled(torch.ones(4)), torch.ones(4) * 2)
    assert (count("precompile_hits"), count("captures_kept")) == (1, 1)
    flashpoint.reset()
    compiled(x)
    assert count("precompile_hits") == 2
    code_state.reset_precompile_entries(double)
    compiled(x)
    assert count("precompile_hits") == 2 and code_state.precompile_entries(double) == []


def test_a_loaded_entry_is_its_functions_own() -> None:
    def make(k):
        return lambda x: x * k

    two, three, x = make(2), make(3), torch.ones(3)
    compiled = flashpoint.compile(two)
    compiled(x)
    (entry,) = code_state.entries(two)
    code_state.load_precompile_entry(two, entry)
    assert torch.equal(flashpoint.compile(three)(x), x * 3) and count("precompile_hits") == 0
    assert torch.equal(flashpoint.compile(two)(x), x * 2) and count("precompile_hits") == 1


def test_order_of_lookup() -> None:
    compiled = flashpoint.compile(double)
    for size in (3, 4, 5):
        compiled(torch.ones(size))
    ids = [entry.compile_id for entry in code_state.entries(compiled)]
    with code_state.lru_cache(False):
        compiled(torch.ones(3))
        assert [entry.compile_id for entry in code_state.entries(compiled)] == ids
    compiled(torch.ones(3))
    assert [entry.compile_id for entry in code_state.entries(compiled)] == [ids[2], ids[0], ids[1]]


def test_reset_of_one_code_object() -> None:
    one, other, x = flashpoint.compile(double), flashpoint.compile(lambda x: x + 1), torch.ones(3)
    one(x), other(x)
    code_state.reset_code(double)
    assert code_state.entries(double) == []
    flashpoint.reset_counters()
    one(x), other(x)
    assert (count("captures_kept"), count("hits")) == (1, 1)


def test_everything_goes_with_its_owner() -> None:
    def make():
        def fn(x):
            return x + 1

        return fn

    fn = make()
    compiled, model = flashpoint.compile(fn), Scale()
    compiled(torch.ones(2))
    wrapped = flashpoint.compile(model)
    wrapped(torch.ones(2, 3))
    gone = [weakref.ref(fn), weakref.ref(model)]
    del fn, compiled, model, wrapped
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


@pytest.mark.parametrize("name", ["entries", "precompile_entries", "strategy", "reset_code"])
def test_what_has_no_code(name: str) -> None:
    with pytest.raises(TypeError, match=rf"\[flashpoint.code_state.{name}\] takes a code object"):
        getattr(code_state, name)(3)


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match="takes a FrameExecStrategy"):
        code_state.set_strategy(double, SKIP)
    with pytest.raises(TypeError, match="takes a CacheEntry"):
        code_state.load_precompile_entry(double, None)
    with pytest.raises(TypeError, match="takes True or False"):
        code_state.set_lru_cache(1)


def test_guard_error_hook(monkeypatch) -> None:
    """An error in guards costs the entry its turn, never the call."""
    told: list[tuple[object, str, str]] = []
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)

    def fn(x):
        return x + 1

    def failing(code, compile_id, error):
        raise ValueError("a hook of no use")

    compiled, x = flashpoint.compile(fn), torch.ones(2)
    compiled(x)
    before = code_state.set_guard_error_hook(lambda *args: told.append(args))
    try:
        flashpoint.reset_counters()
        for hook_now in (None, failing):
            _C.set_config("fail_at_guards", 1)
            if hook_now is not None:
                assert callable(code_state.set_guard_error_hook(hook_now))
            assert torch.equal(compiled(x), fn(x))
            assert torch.equal(compiled(x), fn(x))
    finally:
        _C.set_config("fail_at_guards", 0)
        code_state.set_guard_error_hook(before)
    (entry,) = [e for e in code_state.entries(fn) if e.compile_id.endswith("/0")]
    assert told == [(fn.__code__, entry.compile_id, "injected")]
    assert len(unraisable) == 1
    counters = flashpoint.counters()
    assert counters["guard_errors"] == 2 and counters["hits"] >= 2
    with pytest.raises(TypeError, match="set_guard_error_hook.*callable or None"):
        code_state.set_guard_error_hook(3)


def test_entries_of_one_callable() -> None:
    one, two = flashpoint.compile(double), flashpoint.compile(double)
    one(torch.ones(2)), two(torch.ones(3)), two(torch.ones(4))
    assert (len(code_state.entries_of(one)), len(code_state.entries_of(two))) == (1, 2)
    assert code_state.entry_count(double) == 3
    module = flashpoint.compile(Scale())
    module(torch.ones(2, 3))
    assert len(code_state.entries_of(module)) == 1
    with pytest.raises(TypeError, match=r"entries_of\] takes what flashpoint.compile returned, not function"):
        code_state.entries_of(double)


def test_invalidate() -> None:
    compiled, x = flashpoint.compile(double, backend="eager"), torch.ones(3)
    for _ in range(2):
        compiled(x), compiled(torch.ones(4))
    first, second = code_state.entries_of(compiled)
    code_state.load_precompile_entry(double, second)
    assert code_state.invalidate(double, second)
    assert not code_state.invalidate(double, second) and code_state.precompile_entries(double) == []
    assert [e.compile_id for e in code_state.entries_of(compiled)] == [first.compile_id]
    flashpoint.reset_counters()
    for _ in range(2):
        assert torch.equal(compiled(x), x * 2) and compiled(torch.ones(4)).sum() == 8
    assert (count("captures_kept"), count("hits")) == (1, 3)
    with pytest.raises(TypeError, match=r"invalidate\] takes a CacheEntry"):
        code_state.invalidate(double, "entry")


def test_why_not() -> None:
    def fn(x, options, *, flag=True):
        return x * 2 if flag and options["n"] > 1 else x * 3

    compiled, x = flashpoint.compile(fn, backend="eager"), torch.ones(3)
    for _ in range(3):
        compiled(x, {"n": 2}, flag=True)
    (entry,) = code_state.entries_of(compiled)
    assert code_state.why_not(entry, x, {"n": 2}, flag=True) is None
    name = f"{__file__}:{fn.__code__.co_firstlineno}"
    said = code_state.why_not(entry, torch.ones(4), {"n": 2}, flag=True)
    assert (
        "expected tensor Float[3] strides (1) cpu, found tensor Float[4]" in said and f"(x of {name})" in said
    )
    said = code_state.why_not(entry, x, {"n": 1.5}, flag=True)
    assert said == f"arg1: expected item == ('n', 2), found 1.5 (options of {name})"
    assert "found a NoneType (options of" in code_state.why_not(entry, x, None, flag=True)
    said = code_state.why_not(entry, x, {"n": 2}, flag=False)
    assert said == f"arg2: expected == True, found False (flag of {name})"
    assert "keyword arguments" in code_state.why_not(entry, x, {"n": 2})
    assert entry.hits == code_state.entries_of(compiled)[0].hits == 2
    assert 0 < code_state.time_guards(entry, x, {"n": 2}, flag=True, times=10) < 1
    with pytest.raises(ValueError, match="does not fit: arg1: expected item"):
        code_state.time_guards(entry, x, {"n": 3}, flag=True)
    with pytest.raises(ValueError, match="times of at least 1"):
        code_state.time_guards(entry, x, {"n": 2}, flag=True, times=0)


def test_recompiles_say_what_was_met() -> None:
    def fn(x, mode):
        return x * 2 if mode == "sum" else x

    compiled = flashpoint.compile(fn, backend="eager")
    compiled(torch.ones(2), "sum"), compiled(torch.ones(2), "mean")
    compiled(torch.ones(3), "mean")
    decision, shape = compiled.last_report()["recompiles"]
    where = f"of {__file__}:{fn.__code__.co_firstlineno})"
    assert decision == f"a decision by a number: arg1 == 'sum' was True, found 'mean' (mode {where}"
    assert "expected tensor Float[2] strides (1) cpu, found tensor Float[3]" in shape and shape.endswith(
        where
    )


def test_every_function_of_the_header_has_an_equivalent() -> None:
    """torch/csrc/dynamo/extra_state.h: what it offers for looking at the cache of a code object."""
    equivalents = {
        "_debug_get_cache_entry_list": "entries",
        "_get_cache_entries_for_region": "entries_of",
        "_get_total_cache_entry_count": "entry_count",
        "_reset_precompile_entries": "reset_precompile_entries",
        "_load_precompile_entry": "load_precompile_entry",
        "_debug_get_precompile_entries": "precompile_entries",
        "_set_lru_cache": "set_lru_cache",
    }
    header = Path(torch.__file__).parent / "include/torch/csrc/dynamo/extra_state.h"
    declared = re.findall(r"^\S.*?\b(_\w+)\(\n?", header.read_text().split('} // extern "C"')[-1], re.M)
    assert set(declared) == set(equivalents)
    assert all(callable(getattr(code_state, name)) for name in equivalents.values())
