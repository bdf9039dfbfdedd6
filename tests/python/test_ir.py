"""The textual form of graphs: golden files, constants read back exactly, the verifier's objections."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from flashpoint import _C
from tests.python.graph_harness import record

GOLDEN = sorted((Path(__file__).parents[1] / "text" / "ir").glob("*.ir"))


def roundtrip(text: str) -> str:
    graph = _C._graph_parse(text)
    printed = graph.text()
    again = _C._graph_parse(printed)
    assert again == graph
    assert again.text() == printed
    return printed


def body(line: str, inputs: str = "%0: f32[4,6] cpu", result: str = "%1") -> str:
    return f"graph f({inputs}) {{\n  {line}\n  return {result}\n}}\n"


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_golden(path):
    """Each file is in printed form; lines that start with # are its claim."""
    source = path.read_text()
    claim = "".join(line + "\n" for line in source.splitlines() if line.startswith("#"))
    printed = claim + roundtrip(source)
    if os.environ.get("BLESS") == "1":
        path.write_text(printed)
    assert printed == source, "BLESS=1 rewrites the file"


def test_golden_files_exist():
    assert len(GOLDEN) >= 5


NUMBERS = [
    "0",
    "-1",
    "9223372036854775807",
    "-9223372036854775808",
    "0.0",
    "-0.0",
    "1.0",
    "0.1",
    "1e+300",
    "5e-324",
    "1.7976931348623157e+308",
    "inf",
    "-inf",
    "nan",
    "true",
    "false",
    "complex(1.0, -0.0)",
    "complex(inf, nan)",
]


@pytest.mark.parametrize("number", NUMBERS)
def test_scalars_are_exact(number):
    line = f"%1 = aten.mul.Scalar(%0, {number}) : f32[4,6] cpu"
    assert f"(%0, {number})" in roundtrip(body(line))
    wrapped = f"%1 = aten.add.Tensor(%0, wrap({number}), alpha=1) : f32[4,6] cpu"
    assert f"wrap({number})" in roundtrip(body(wrapped))


def test_numbers_differ_by_bits():
    def graph(number):
        return _C._graph_parse(body(f"%1 = aten.mul.Scalar(%0, {number}) : f32[4,6] cpu"))

    assert graph("0.0") != graph("-0.0")
    assert graph("1") != graph("1.0")
    assert graph("1") != graph("true")
    assert graph("nan") == graph("nan")
    assert graph("1e0") == graph("1.0")


CONSTANTS = [
    "%1 = aten.to.dtype(%0, bf16, false, false, None) : bf16[4,6] cpu",
    "%1 = aten.clone(%0, memory_format=channels_last) : f32[4,6] cpu",
    "%1 = aten.clone(%0, memory_format=preserve_format) : f32[4,6] cpu",
    "%1 = aten.empty.memory_format([2, 3], dtype=f64, layout=strided, device=cuda:1, pin_memory=false, "
    "memory_format=contiguous_format) : f64[2,3] cuda:1",
    "%1 = aten.empty.memory_format([], dtype=None, layout=sparse_coo, device=meta, pin_memory=None, "
    "memory_format=None) : f32[] meta",
    '%1 = aten.div.Tensor_mode(%0, %0, rounding_mode="floor") : f32[4,6] cpu',
    r'%1 = aten.einsum("\x0a\"\\ä,b#}->c", [%0, %0], path=[0, 1]) : f32[4,6] cpu',
    "%1 = aten.index.Tensor(%0, [None, %0]) : f32[4,6] cpu",
    "%1 = aten.index.Tensor(%0, []) : f32[4,6] cpu",
    "%1 = aten.upsample_bilinear2d.vec(%0, None, true, [2.0, inf]) : f32[4,6] cpu",
    "%1 = aten.sum.dim_IntList(%0, [0, -1], false, dtype=None) : f32[] cpu",
    "%1 = aten.rand.generator([2], generator=default_generator, dtype=None, layout=None, device=None, "
    "pin_memory=None) : f32[2] cpu",
    "[%1, %2] = aten._foreach_add.ScalarList([%0, %0], [1, 2.5]) : [f32[4,6] cpu, f32[4,6] cpu]",
    "%1, %2, %3 = aten.native_layer_norm(%0, [6], None, None, 1e-05) : f32[4,6] cpu, f32[4,1] cpu, undef",
    "%1 = aten.convolution(%0, %0, undef, [1], [0], [1], false, [0], 1) : f32[4,6] cpu",
    "%1 = aten.mul.Tensor(%0, wrap(0.5)) : f32[4,6]:[1,4] cpu grad conj neg",
    "%1 = aten.relu(%0) : f32[4,6] cpu {grad=off, inference=on, autocast=cuda:f16+cpu:bf16, cache=off}",
    "%1 = aten.relu_(%0) : f32[4,6] cpu {mutates=[%0]} @torch.relu_  # model.py:12",
    "%1 = aten.to_sparse.sparse_dim(%0, 2) : f32[4,6] cpu sparse_coo",
]


@pytest.mark.parametrize("line", CONSTANTS)
def test_constants_print_as_written(line):
    assert f"  {line}\n" in roundtrip(body(line))


@pytest.mark.parametrize(
    "dtype",
    "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 uint16 uint32 uint64".split()
    + "bool complex64 complex128".split(),
)
def test_tensor_literals(dtype):
    dtype = getattr(torch, dtype)
    if dtype.is_floating_point:
        values = [0.1, -0.0, math.inf, -math.inf, math.nan, 65504.0]
    elif dtype.is_complex:
        values = [complex(0.1, -0.0), complex(math.inf, math.nan), 0j, 1j, 2 + 0j, -1j]
    elif dtype == torch.bool:
        values = [True, False, True, True, False, False]
    else:
        info = torch.iinfo(dtype)
        values = [info.min, info.max, 0, 1, 2, 3]
    literal = torch.tensor(values, dtype=dtype).view(2, 3)
    graph, _ = record(lambda x: (_C._graph_constant(lambda: literal), x + 1)[0], torch.zeros(1))
    got = _C._graph_parse(graph.text()).run(torch.zeros(1))[0]
    assert got.dtype == dtype and got.shape == (2, 3)
    kept = got.view(torch.uint8) if not dtype == torch.bool else got
    want = literal.view(torch.uint8) if not dtype == torch.bool else literal
    assert torch.equal(kept, want) or dtype.is_floating_point or dtype.is_complex
    assert torch.equal(
        torch.nan_to_num(got) if got.is_floating_point() else got.isnan() if dtype.is_complex else got,
        torch.nan_to_num(literal)
        if got.is_floating_point()
        else literal.isnan()
        if dtype.is_complex
        else literal,
    )


def test_empty_literal():
    graph, _ = record(lambda x: x + _C._graph_constant(lambda: torch.zeros(0, 3)), torch.zeros(1, 3))
    assert "tensor(f32[0,3] cpu, [])" in graph.text()


def test_defaults_may_be_left_out():
    printed = roundtrip(body("%1 = aten.add.Tensor(%0, %0) : f32[4,6] cpu"))
    assert "aten.add.Tensor(%0, %0, alpha=1)" in printed


def test_numbers_are_renumbered():
    text = "graph f(%7: f32[2] cpu) {\n  %3 = aten.relu(%7) : f32[2] cpu\n  return %3\n}\n"
    assert "%1 = aten.relu(%0)" in roundtrip(text)


WRONG = {
    "undefined": (body("%1 = aten.relu(%5) : f32[4,6] cpu"), "%5 is not defined"),
    "redefined": (body("%0 = aten.relu(%0) : f32[4,6] cpu"), "defined twice"),
    "operator": (
        body("%1 = aten.frobnicate(%0) : f32[4,6] cpu"),
        "line 2: unknown operator 'aten.frobnicate'",
    ),
    "overload": (body("%1 = aten.add.Foo(%0, %0) : f32[4,6] cpu"), "unknown operator"),
    "missing": (body("%1 = aten.mm(%0) : f32[4,6] cpu"), "missing argument 'mat2'"),
    "too_many": (body("%1 = aten.relu(%0, %0) : f32[4,6] cpu"), "too many arguments"),
    "kind": (body("%1 = aten.mm(%0, 3) : f32[4,6] cpu"), "argument 'mat2' is no Tensor"),
    "string_for_int": (body('%1 = aten.unsqueeze(%0, "a") : f32[4,6] cpu'), "argument 'dim' is no"),
    "float_for_int": (body("%1 = aten.unsqueeze(%0, 1.0) : f32[4,6] cpu"), "argument 'dim' is no"),
    "tensor_literal": (
        body("%1 = aten.relu(tensor(f32[1] cpu, [1.0])) : f32[4,6] cpu"),
        "argument 'self' is no Tensor",
    ),
    "outputs": (body("%1, %2 = aten.relu(%0) : f32[4,6] cpu, f32[] cpu"), "wrong number of outputs"),
    "list_output": (body("%1 = aten.unbind.int(%0, 0) : f32[6] cpu"), "list output against the schema"),
    "mutates": (
        body("%1 = aten.relu(%0) : f32[4,6] cpu\n  %2 = aten.relu_(%1) : f32[4,6] cpu {mutates=[%1]}"),
        "which is no input",
    ),
    "literal_size": (body("%1 = flashpoint.constant(tensor(f32[3] cpu, [1.0])) : f32[3] cpu"), "do not fit"),
    "dtype": (body("%1 = aten.relu(%0) : f33[4,6] cpu"), "unknown dtype 'f33'"),
    "state": (body("%1 = aten.relu(%0) : f32[4,6] cpu {mood=on}"), "unknown state 'mood'"),
    "open": ("graph f(%0: f32[2] cpu) {\n", "unknown operator"),
    "trailing": (body("%1 = aten.relu(%0) : f32[4,6] cpu") + "x", "text after the graph"),
    "empty": ("", "expected a name"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_text_is_refused(name):
    text, message = WRONG[name]
    with pytest.raises(ValueError, match=r"flashpoint\._C") as error:
        _C._graph_parse(text)
    assert message in str(error.value)


def test_parsed_text_runs():
    graph = _C._graph_parse(body("%1 = aten.add.Tensor(%0, wrap(2.5)) : f32[4,6] cpu"))
    x = torch.randn(4, 6)
    assert torch.equal(graph.run(x)[0], x + 2.5)
    assert torch.equal(graph.run(x.int())[0], x.int() + 2.5)
    with FakeTensorMode() as mode:
        assert graph.run(mode.from_tensor(x))[0].shape == (4, 6)


def test_truncated_text_never_crashes():
    graph, _ = record(
        lambda x: (
            torch.einsum("ij,ij->i", x, x).chunk(2)[0] + _C._graph_constant(lambda: torch.tensor([1.5, 2]))
        ),
        torch.randn(4, 6),
    )
    text = graph.text()
    for end in range(len(text) - 2):
        with pytest.raises(ValueError, match="line"):
            _C._graph_parse(text[:end])
