"""Samples of torch's operator database through generated code: `python -m tests.native.opdb --only add`.

Each sample runs in several forms: the operator on its arguments; on what kernels compute; on arguments with
special values (NaN, infinities, signed zeros, the ends of an integer's range); and in place, on an argument
and on what a kernel computes. Floating-point results are compared within a tolerance, except that NaN,
infinities and the signs of zeros are eager's.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("FLASHPOINT_STRICT", "1")

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

import flashpoint  # noqa: E402
from flashpoint import _C  # noqa: E402
from tests.opdb.samples import copied, full_name, operators  # noqa: E402

DTYPES = (
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)
# Relative to a result's own magnitude, and to the largest of its operands' and results'.
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}
# Sums of special values: what overflows on the way depends on the order.
ORDERED = ("norm", "softmax", "logsumexp", "sum", "mean", "var", "std", "cross_entropy", "nll")
# Eager mode's kernel gives NaN for +inf on some machines.
INFINITE_IS_NAN = ("nn.functional.gelu",)
Function = Callable[..., Any]


def tensors_of(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [t for item in value for t in tensors_of(item)]
    if isinstance(value, dict):
        return [t for item in value.values() for t in tensors_of(item)]
    return []


def rebuilt(value: Any, tensors: Iterator[Tensor]) -> Any:
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, (list, tuple)):
        items = [rebuilt(item, tensors) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        return {key: rebuilt(item, tensors) for key, item in value.items()}
    return value


def same_value(tensor: Tensor) -> Tensor:
    """The same values, computed by two operators that kernels take."""
    if tensor.is_complex():
        return tensor
    return tensor.logical_not().logical_not() if tensor.dtype == torch.bool else tensor.neg().neg()


def special(tensor: Tensor) -> Tensor:
    """The same tensor with some values that need care."""
    if tensor.numel() == 0 or tensor.dtype == torch.bool or tensor.is_complex():
        return tensor
    if tensor.is_floating_point():
        tiny = torch.finfo(tensor.dtype).smallest_normal / 2
        values = [math.nan, math.inf, -math.inf, -0.0, 0.0, tiny, -tiny, 0.5, -0.5, 1.5, 2.5, 1.0, -1.0]
    else:
        limits = torch.iinfo(tensor.dtype)
        values = [limits.min, limits.max, 0, 1, limits.max - 1, limits.min + 1]
    flat = tensor.reshape(-1).clone()
    places = torch.randperm(flat.numel())[: max(1, flat.numel() // 2)]
    picks = torch.tensor(values, dtype=tensor.dtype)
    flat[places] = picks[torch.randint(0, len(values), places.shape)]
    return torch.empty_like(tensor).copy_(flat.reshape(tensor.shape))


def differs(got: Tensor, want: Tensor, scale: float, tolerance: float) -> str | None:
    for fact in ("dtype", "shape"):
        if getattr(got, fact) != getattr(want, fact):
            return f"{fact}: {getattr(got, fact)} instead of {getattr(want, fact)}"
    if got.stride() != want.stride():
        return f"strides: {got.stride()} instead of {want.stride()}"
    if want.is_complex():
        return differs(
            torch.view_as_real(got.resolve_conj()),
            torch.view_as_real(want.resolve_conj()),
            scale,
            tolerance,
        )
    if got.numel() == 0 or torch.equal(got, want) and not want.is_floating_point():
        return None
    if not want.is_floating_point():
        wrong = got != want
    else:
        a, b = got.double(), want.double()
        wrong = (a.isnan() != b.isnan()) | (a.isinf() | b.isinf()) & (a != b) & ~a.isnan()
        wrong |= (a == 0) & (b == 0) & (a.signbit() != b.signbit())
        wrong |= (a - b).abs() > tolerance * (b.abs() + scale)
    if not bool(wrong.any()):
        return None
    at = tuple(wrong.nonzero()[0].tolist())
    values = f"{got[at].item()} instead of {want[at].item()}"
    return f"{int(wrong.sum())} of {wrong.numel()} differ; at {at}: {values}"


def outcome(run: Callable[[], Any]) -> tuple[Any, str]:
    torch.manual_seed(7)
    try:
        return run(), ""
    except Exception as error:
        return None, str(error).splitlines()[0]


def scale_of(tensors: list[Tensor]) -> float:
    scale = 0.0
    for t in tensors:
        if t.is_floating_point() and t.numel():
            finite = t.detach().double().nan_to_num(0, 0, 0).abs()
            scale = max(scale, float(finite.max()))
    return scale


def check_function(fn: Function, inputs: list[Tensor]) -> str | None:
    """None if the kernels give what eager mode gives, 'call' if there are none."""
    with torch.no_grad():
        try:
            graph, _ = _C._graph_record(fn, *copied(inputs, {}))
        except Exception:
            return "call"
        if graph.break_reason is not None:
            return "call"
        flashpoint.reset_counters()
        for _ in range(2):
            mine, theirs = copied(inputs, {}), copied(inputs, {})
            want, raised = outcome(lambda theirs=theirs: tensors_of(fn(*theirs)))
            got, complaint = outcome(lambda mine=mine: list(graph.run_native(*mine)))
            if raised or complaint:
                return None if raised == complaint else f"error {complaint!r} instead of {raised!r}"
            if flashpoint.counters()["kernels_run"] == 0:
                return "call"
            if len(got) != len(want):
                return None  # a result that is no tensor, or one twice
            everything = [*inputs, *want]
            tolerance = max(TOLERANCE.get(t.dtype, 0.0) for t in everything)
            scale = scale_of(everything)
            for a, b in zip([*got, *mine], [*want, *theirs], strict=True):
                if b.layout is not torch.strided or b.is_quantized:
                    continue
                found = differs(a, b, scale, tolerance)
                if found:
                    return f"{found}\n{graph.text()}"
            for a, b in zip(mine, theirs, strict=True):
                if a._version != b._version:
                    return f"version {a._version} instead of {b._version}"
    return None


def forms(op: Any, sample: Any) -> Iterator[tuple[str, Function, list[Tensor]]]:
    structure = (sample.input, tuple(sample.args), dict(sample.kwargs))
    tensors = [t.detach() for t in tensors_of(structure)]
    if any(t.layout is not torch.strided or t.is_complex() or t.is_quantized for t in tensors):
        return

    def call(function: Function, given: list[Tensor]) -> Any:
        value, args, kwargs = rebuilt(structure, iter(given))
        return function(value, *args, **kwargs)

    yield "plain", lambda *given: call(op.op, list(given)), tensors
    yield "computed", lambda *given: [call(op.op, [same_value(t) for t in given])], tensors
    yield (
        "special",
        lambda *given: [call(op.op, [same_value(t) for t in given])],
        [special(t) for t in tensors],
    )
    if op.inplace_variant is not None and isinstance(sample.input, Tensor):
        yield "in place", lambda *given: call(op.inplace_variant, list(given)), tensors

        def on_computed(*given: Tensor) -> Any:
            first = same_value(given[0])
            call(op.inplace_variant, [first, *given[1:]])
            return [first]

        yield "in place on computed", on_computed, tensors


def check_operator(op: Any, dtype: torch.dtype, samples: int | None) -> tuple[list[str], int]:
    """What differs, and how many forms of samples ran in kernels."""
    torch.manual_seed(3)
    found, ran = [], 0
    for number, sample in enumerate(op.sample_inputs("cpu", dtype, requires_grad=False)):
        if samples is not None and number >= samples:
            break
        for form, fn, inputs in forms(op, sample):
            if form == "special" and op.name in INFINITE_IS_NAN:
                continue
            message = check_function(fn, inputs)
            if message == "call":
                if form == "plain":
                    break
                continue
            ran += 1
            if message and not (form == "special" and any(part in op.name for part in ORDERED)):
                shapes = [(str(t.dtype), tuple(t.shape), t.stride()) for t in inputs]
                found.append(
                    f"{full_name(op)} {dtype} sample {number} [{form}] {sample.kwargs} {shapes}: {message}"
                )
                break
    return found, ran


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--dtype", default=None)
    parser.add_argument("--samples", type=int, default=None)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--after", default="", help="operators from this name on")
    options = parser.parse_args()
    torch.set_num_threads(1)
    flashpoint.config.native_patience = 0
    total, names, differences = 0, set(), []
    for op in operators()[:: options.every]:
        if options.only not in full_name(op) or full_name(op) < options.after:
            continue
        for dtype in DTYPES if options.dtype is None else [getattr(torch, options.dtype)]:
            if dtype not in op.supported_dtypes("cpu"):
                continue
            found, ran = check_operator(op, dtype, options.samples)
            total += ran
            if ran:
                names.add(full_name(op))
            for line in found[:2]:
                print("DIFFERENCE", line[:1500], flush=True)
            differences += found
    print(f"{len(names)} operators, {total} runs in kernels, {len(differences)} differences")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
