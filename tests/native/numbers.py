"""Graphs whose constants became inputs: generated code takes numbers as the recorded operators do.

The graph that is recorded with constants is written anew with some of them as number inputs, and run with
several values by both executors. The eager executor, which hands numbers to the operators themselves, is the
reference; what it raises, generated code raises too, and both leave the inputs alike.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable

import torch
from torch import Tensor

from flashpoint import _C

FLOATS = [0.5, -0.0, 0.1, 3.0, -1.5, 1e-3, math.inf, math.nan, 1e300, 7e4]
INTS = [0, 1, -3, 7, 300, 2**40]
PLACE = re.compile(r"(wrap\(|alpha=|value=|, )(-?\d+\.?\d*(?:e-?\d+)?)(?=[),])")
# Operators that take a number as an operand behind the tensor, without a name.
PLAIN = re.compile(r"aten\.(lerp_?\.Scalar|masked_fill\.Scalar|clamp_?|_foreach_\w+\.Scalar)\(")


def with_inputs(text: str, given: int, rng: random.Random) -> tuple[str, list[str]]:
    """The text with some constants as inputs, behind those it was given, and their kinds."""
    head, *rest = text.split("\n", 1)
    first = len(re.findall(r"%\d+:", head))
    kinds: list[str] = []

    def replace(match: re.Match[str]) -> str:
        if rng.random() < 0.4:
            return match.group(0)
        kinds.append("float" if "." in match.group(2) or "e" in match.group(2) else "int")
        name = f"@{first + len(kinds) - 1}@"
        return (match.group(1) if match.group(1) != "wrap(" else "wrap(") + name

    lines = []
    for line in rest[0].split("\n"):
        if " = " in line or line.strip().startswith("aten."):
            start = line.index("aten.") if "aten." in line else 0
            body = line[start:]
            pattern = PLACE if PLAIN.match(body) else re.compile(PLACE.pattern.replace("|, ", ""))
            body = pattern.sub(replace, body)
            line = line[:start] + re.sub(r"wrap\((@\d+@)\)", r"\1", body)
        lines.append(line)
    count = len(kinds)

    def renumber(match: re.Match[str]) -> str:
        number = int(match.group(1))
        return f"%{number if number < first else number + count}"

    body = re.sub(r"%(\d+)", renumber, "\n".join(lines))
    body = re.sub(r"@(\d+)@", r"%\1", body)
    opened = head.rindex(") {")
    extra = ", ".join(f"%{first + i}: {kind} src={given + i}" for i, kind in enumerate(kinds))
    separator = ", " if extra and first else ""
    return head[:opened] + separator + extra + head[opened:] + "\n" + body, kinds


def outcome(run: Callable[..., tuple[Tensor, ...]], inputs: list[Tensor], numbers: list[Tensor]) -> object:
    try:
        return list(run(*inputs, *numbers))
    except RuntimeError as error:
        return str(error).splitlines()[0]


def differs(got: Tensor, want: Tensor) -> bool:
    if got.dtype != want.dtype or got.shape != want.shape or got.stride() != want.stride():
        return True
    if not want.is_floating_point():
        # Comparisons and roundings of what differs in its last bits differ altogether.
        return False
    # Kinds of values: the same numbers are NaN. Numbers of any size are rounded a few times more or less.
    return not torch.equal(got.isnan(), want.isnan()) and not bool(want.isinf().any() or got.isinf().any())


def check_numbers(graph: _C.Graph, inputs: Callable[[], list[Tensor]], source: str) -> str | None:
    """What differs between generated code and the recorded operators, or None."""
    rng = random.Random(len(source))
    text, kinds = with_inputs(graph.text(), len(inputs()), rng)
    if not kinds:
        return None
    variant = _C._graph_parse(text)
    constants = [0.5 if kind == "float" else 1 for kind in kinds]
    # Where the squares that a norm sums overflow, it depends on the order of the sum what is NaN.
    ints = INTS[:-1] if "_norm(" in text else INTS
    for round_ in range(3):
        if round_ > 0:
            constants = [rng.choice(FLOATS if kind == "float" else ints) for kind in kinds]
        numbers = [
            torch.tensor(n, dtype=torch.float64 if kind == "float" else torch.int64)
            for n, kind in zip(constants, kinds, strict=True)
        ]
        eager_inputs, native_inputs = inputs(), inputs()
        want = outcome(variant.run, eager_inputs, numbers)
        got = outcome(variant.run_native, native_inputs, numbers)
        if isinstance(want, str) or isinstance(got, str):
            if want != got:
                return f"numbers {constants}: {got!r} instead of {want!r}\n{text}"
            continue
        pairs = [*zip(got, want, strict=True), *zip(native_inputs, eager_inputs, strict=True)]
        for i, (a, b) in enumerate(pairs):
            if (i >= len(got) and a._version != b._version) or differs(a, b):
                return f"numbers {constants}: result {i}: {a} instead of {b}\n{text}"
            close = round_ > 0 or not b.is_floating_point() or "f16[" in text
            if not close and not torch.allclose(
                a, b, rtol=1e-3, atol=1e-3 * (1 + largest(b)), equal_nan=True
            ):
                return f"numbers {constants}: result {i}: {a} instead of {b}\n{text}"
    return None


def largest(tensor: Tensor) -> float:
    finite = tensor.double()[tensor.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0
