"""Contexts and keys: for every schema the same as torch's own, and clear errors for what is no schema."""

from __future__ import annotations

import itertools
import json
import math
import random

import pytest
import torch
from torch._inductor import config as inductor_config
from torch._inductor.runtime import triton_compat
from torch._inductor.runtime.caching import context as peer

import flashpoint
from flashpoint import _C
from flashpoint.store import context
from flashpoint.store.context import CompileContext, HostContext, RuntimeContext

RUNTIME = RuntimeContext.forms_of_context()
COMPILE = CompileContext.forms_of_context()


def selections(forms) -> list:
    """True, False, and every dict of chosen forms, half of them without the forms that are not chosen."""
    found: list = [True, False]
    for index, chosen in enumerate(itertools.product([False, True], repeat=len(forms))):
        selected = dict(zip(forms, chosen, strict=True))
        found.append(selected if index % 2 else {form: True for form in forms if selected[form]})
    return found


SCHEMAS = [
    {"runtime_context": r, "compile_context": c}
    for r, c in itertools.product(selections(RUNTIME), selections(COMPILE))
]


def clear_caches() -> None:
    for form in COMPILE:
        getattr(CompileContext, form).cache_clear()
        getattr(peer._CompileContext, form).cache_clear()


@pytest.fixture
def fresh_caches():
    """For tests that change what forms find once per process. The hash over torch's sources stays."""
    hashed = CompileContext.torch_version_hash()
    assert peer._CompileContext.torch_version_hash() == hashed
    clear_caches()
    yield
    clear_caches()


def same(schema) -> str:
    assert flashpoint.store.isolation_context(schema) == peer._isolation_context(schema)
    key = flashpoint.store.isolation_key(schema)
    assert key == peer._isolation_key(schema)
    assert len(key) == 32 and set(key) <= set("0123456789abcdef")
    return key


def test_forms_are_torchs() -> None:
    assert RUNTIME == peer._RuntimeContext.forms_of_context()
    assert COMPILE == peer._CompileContext.forms_of_context()
    for ours, theirs in ((RuntimeContext, peer._RuntimeContext), (CompileContext, peer._CompileContext)):
        for form in ours.forms_of_context():
            assert getattr(ours, form)() == getattr(theirs, form)(), form


@pytest.mark.slow
def test_every_schema() -> None:
    keys = [same(schema) for schema in SCHEMAS]
    assert len(SCHEMAS) == 10 * 34
    # As many different keys as there are different contexts.
    contexts = {json.dumps(peer._isolation_context(s), sort_keys=True) for s in SCHEMAS}
    assert len(set(keys)) == len(contexts) >= 8 * 32


def test_default_schema() -> None:
    everything = {"runtime_context": True, "compile_context": True}
    assert flashpoint.store.isolation_key() == peer._isolation_key() == same(everything)
    assert flashpoint.store.isolation_context() == peer._isolation_context()


@pytest.mark.parametrize(
    "change",
    [
        inductor_config.patch(max_autotune=True, epilogue_fusion=False),
        inductor_config.patch({"cpp.threads": 7, "triton.cudagraphs": True}),
        inductor_config.patch(_profile_var='päth \u2028 \U0001f600 \x00\x7f"\\\n'),
        inductor_config.patch({"cpp.vec_isa_ok": None, "realize_opcount_threshold": -1}),
    ],
    ids=["bools", "nested", "text", "other"],
)
def test_after_changed_configs(change) -> None:
    before = flashpoint.store.isolation_key()
    with change:
        for schema in random.Random(0).sample(SCHEMAS, 40):
            same(schema)
        assert same({"runtime_context": True, "compile_context": True}) != before
    assert flashpoint.store.isolation_key() == before


def test_after_changed_determinism() -> None:
    before, keys = torch.utils.deterministic.fill_uninitialized_memory, set()
    schema = {"runtime_context": {"torch_determinism_configs": True}, "compile_context": False}
    try:
        for mode, fill in itertools.product((0, 1, 2), (True, False)):
            torch.set_deterministic_debug_mode(mode)
            torch.utils.deterministic.fill_uninitialized_memory = fill
            keys.add(same(schema))
    finally:
        torch.set_deterministic_debug_mode(0)
        torch.utils.deterministic.fill_uninitialized_memory = before
    assert len(keys) == 6


def test_after_changed_precision(monkeypatch) -> None:
    schema = {"runtime_context": {"cuda_matmul_precision_configs": True}, "compile_context": False}
    before = same(schema)
    old = torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
    try:
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = not old
        assert same(schema) != before
    finally:
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = old


@pytest.mark.parametrize("cuda", [None, "12.8"])
@pytest.mark.parametrize("hip", [None, "6.4"])
@pytest.mark.parametrize("available", [False, True])
@pytest.mark.parametrize("triton", [False, True])
def test_accelerators(monkeypatch, fresh_caches, cuda, hip, available, triton) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: ("device", 90, {"memory": 1 << 37}))
    monkeypatch.setattr(triton_compat, "HAS_TRITON", triton)
    monkeypatch.setattr(triton_compat, "triton_key", lambda: "key of triton", raising=False)
    for form in COMPILE:
        same({"runtime_context": False, "compile_context": {form: True}})
    found = flashpoint.store.isolation_context({"runtime_context": False, "compile_context": True})
    facts = found["compile_context"]
    assert facts["runtime"] == ("CUDA" if cuda else "HIP" if hip else None)
    assert facts["runtime_version"] == (cuda or hip)
    assert (facts["accelerator_properties"] is not None) == bool((cuda or hip) and available)
    assert facts["triton_version_hash"] == ("key of triton" if triton else None)


def test_compile_forms_are_found_once(monkeypatch, fresh_caches) -> None:
    monkeypatch.setattr(torch.version, "cuda", "1")
    assert CompileContext.runtime() == "CUDA"
    monkeypatch.setattr(torch.version, "cuda", None)
    assert CompileContext.runtime() == "CUDA"


def test_canonical_text_is_jsons() -> None:
    class Text(str): ...

    class Number(int):
        def __repr__(self) -> str:
            return "wrong"

    values = [
        None, True, False, 0, -1, 10**40, 0.1, -0.0, 1e16, 1e-7, 5e-324, math.inf, -math.inf, math.nan, 1.0,
        "", "plain", "".join(map(chr, range(0x120))), "\ud800 \udfff \U0010ffff \U00010000 \uffff",
        [], {}, (), [[]], [{}], {"b": 1, "a": [1, (2, {"z": None})]}, {"": 0}, {1: 2, 0: 1}, {None: 1},
        {True: 1, False: 2, 7: 3}, {1.5: 2, math.inf: 3, 0.5: 1},
        Text("x"), Number(5), {Text("k"): Number(6)},
    ]  # fmt: skip
    for value in [*values, values[:13] + values[14:]]:
        assert _C._store_canonical(value) == json.dumps(value, sort_keys=True), value


def test_canonical_text_of_random_values() -> None:
    rng = random.Random(1)

    def value(depth: int):
        kind = rng.randrange(8 if depth else 5)
        if kind == 0:
            return "".join(chr(rng.choice([rng.randrange(128), rng.randrange(0x110000)])) for _ in range(5))
        if kind == 1:
            return rng.getrandbits(rng.randrange(1, 200)) - rng.getrandbits(90)
        if kind == 2:
            return rng.uniform(-1, 1) * 10.0 ** rng.randrange(-320, 308)
        if kind in (3, 4):
            return rng.choice([None, True, False])
        if kind == 5:
            return tuple(value(depth - 1) for _ in range(rng.randrange(4)))
        if kind == 6:
            return [value(depth - 1) for _ in range(rng.randrange(4))]
        return {chr(rng.randrange(0x3000)) * rng.randrange(3): value(depth - 1) for _ in range(4)}

    for _ in range(3000):
        one = value(4)
        assert _C._store_canonical(one) == json.dumps(one, sort_keys=True)


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, b"bytes", [1, {"a": object()}], {(1, 2): 3}, {1: 2, "a": 3}, {None: 1, 2: 3}]
)
def test_what_json_refuses_is_refused(value) -> None:
    with pytest.raises(TypeError):
        json.dumps(value, sort_keys=True)
    with pytest.raises(TypeError):
        _C._store_canonical(value)


def test_endless_values_are_refused() -> None:
    value: list = []
    value.append(value)
    with pytest.raises(RecursionError):
        _C._store_canonical(value)


def test_a_setting_that_is_no_data(monkeypatch) -> None:
    monkeypatch.setattr(RuntimeContext, "inductor_configs", staticmethod(lambda: {"x": object()}))
    with pytest.raises(TypeError, match=r"\[flashpoint.store.isolation_key\] .*object.*leave the form out"):
        flashpoint.store.isolation_key()


@pytest.mark.parametrize(
    ("schema", "error", "text"),
    [
        (None, TypeError, "a schema is a dict with the keys 'runtime_context', 'compile_context', not None"),
        ([], TypeError, "a schema is a dict"),
        ({}, ValueError, "the schema lacks 'runtime_context', 'compile_context': set it to True, False"),
        ({"runtime_context": True}, ValueError, "the schema lacks 'compile_context'"),
        (
            {"runtime_context": True, "compile_context": True, "host_context": True},
            ValueError,
            "unknown context 'host_context'; .* part of key_parts",
        ),
        (
            {"runtime_context": {"inductor": True}, "compile_context": True},
            ValueError,
            "runtime_context has no form 'inductor'; there are 'inductor_configs', 'torch_determinism",
        ),
        (
            {"runtime_context": True, "compile_context": {"inductor_configs": False}},
            ValueError,
            "compile_context has no form 'inductor_configs'; there are 'torch_version_hash'",
        ),
        (
            {"runtime_context": None, "compile_context": True},
            TypeError,
            "runtime_context must be True, False",
        ),
        (
            {"runtime_context": 1, "compile_context": True},
            TypeError,
            "or a dict .* not int",
        ),
        (
            {"runtime_context": True, "compile_context": ["runtime"]},
            TypeError,
            "compile_context must be True, False or a dict from forms to bools, not list",
        ),
        (
            {"runtime_context": True, "compile_context": {"runtime": 1}},
            TypeError,
            r"compile_context\['runtime'\] must be True or False, not int",
        ),
    ],
)
def test_malformed_schemas(schema, error, text) -> None:
    for name in ("isolation_context", "isolation_key", "key_parts"):
        with pytest.raises(error, match=rf"^\[flashpoint.store.{name}\] .*{text}"):
            getattr(context, name)(schema)


def test_host_is_part_of_own_keys_only() -> None:
    parts = context.key_parts()
    assert {f"host_context.{form}" for form in HostContext.forms_of_context()} <= set(parts)
    assert all(isinstance(value, str) for value in parts.values())
    assert "host_context" not in flashpoint.store.isolation_context()
    assert "runtime_context.inductor_configs" not in parts
    whole = context.key_parts({"runtime_context": True, "compile_context": True})
    assert set(parts) < set(whole) and len(whole) == 3 + 5 + len(HostContext.forms_of_context())
    assert json.loads(whole["runtime_context.inductor_configs"]) == json.loads(
        json.dumps(RuntimeContext.inductor_configs())
    )


def test_host_facts() -> None:
    host = _C._store_host()
    assert len(host["build_id"]) == 40 and int(host["build_id"], 16)
    names = host["cpu_features"].split()
    assert names == sorted(names)
    with open("/proc/cpuinfo") as info:
        flags = next((line for line in info if line.startswith("flags")), "").split()
    known = {
        "avx",
        "avx2",
        "avx512f",
        "avx512bw",
        "avx512vl",
        "bmi1",
        "bmi2",
        "f16c",
        "fma",
        "popcnt",
        "ssse3",
    }
    assert set(names) <= {flag.replace("avx512_", "avx512").replace("avx_", "avx") for flag in flags}
    assert known & set(names) == known & set(flags)


@pytest.mark.slow
def test_keys_of_another_process_are_the_same(run_python) -> None:
    # Without the settings, which other tests of this process may have changed.
    schema = {"runtime_context": False, "compile_context": True}
    program = f"import flashpoint.store.context as c; print(c.key_parts({schema}), c.isolation_key({schema}))"
    done = run_python("-c", program, PYTHONHASHSEED="7")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{context.key_parts(schema)} {context.isolation_key(schema)}"
