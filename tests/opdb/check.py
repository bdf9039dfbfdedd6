"""Runs one case eagerly and compiled. Everything must be equal to the bit: results, what was written to the
arguments, the random state, and the gradients of the results, which are taken outside the compiled region.

The compiled function is called three times: it records, it replays the same values, it replays others. The
counters tell whether an entry answered; if none did, the report says why.
"""

from __future__ import annotations

import struct
import warnings
from dataclasses import dataclass
from typing import Any

import torch

import flashpoint
from flashpoint.explaining import inspect_compiled
from tests.opdb.expected import ROUNDED
from tests.opdb.samples import Case, copied, same_but_for_values

SEED = 1234


class Difference(AssertionError):
    """The compiled call did something that the eager call did not."""


@dataclass(frozen=True)
class Verdict:
    """How a case went: 'compiled', or 'broke' and why."""

    compiled: bool
    reason: str = ""


@dataclass
class Run:
    result: Any
    arguments: Any
    gradients: Any
    random: torch.Tensor
    error: str = ""


def _flat(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _flat(item)]
    if isinstance(value, dict):
        return [tensor for item in value.values() for tensor in _flat(item)]
    return []


def _gradients(result: Any, arguments: Any) -> Any:
    outputs = [t for t in _flat(result) if t.requires_grad and t.layout is torch.strided]
    inputs = [t for t in _flat(arguments) if t.requires_grad]
    if not outputs or not inputs:
        return None
    weights = [torch.ones_like(output) for output in outputs]
    try:
        return torch.autograd.grad(outputs, inputs, weights, allow_unused=True)
    except RuntimeError as error:  # some samples are not differentiable; then they are so in both worlds
        return str(error).splitlines()[0]


def _run(fn: Any, sample: Any, grad: bool) -> Run:
    value, args, kwargs = copied(sample, {})
    torch.manual_seed(SEED)
    error, result = "", None
    with torch.set_grad_enabled(grad):
        try:
            result = fn(value, *args, **kwargs)
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
    random = torch.get_rng_state()
    gradients = _gradients(result, (value, args, kwargs)) if grad and not error else None
    return Run(result, (value, args, kwargs), gradients, random, error)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    plain = tensor.detach().resolve_conj().resolve_neg()
    flat = torch.empty(plain.numel(), dtype=plain.dtype, device=plain.device).copy_(plain.reshape(-1))
    return flat.view(torch.uint8)


def same_values(left: torch.Tensor, right: torch.Tensor) -> bool:
    if left.layout is not torch.strided:
        return left.layout is right.layout and same_values(left.to_dense(), right.to_dense())
    if left.is_quantized:
        return torch.equal(left.dequantize(), right.dequantize())
    if left.is_nested or left.is_meta:
        return True
    return torch.equal(_bits(left), _bits(right))


def _close(left: torch.Tensor, right: torch.Tensor) -> bool:
    return torch.allclose(left, right, rtol=1e-4, atol=1e-5, equal_nan=True)


def difference(left: Any, right: Any, values: bool = True, same: Any = same_values) -> str:
    """What differs, in words; empty when nothing does."""
    if type(left) is not type(right):
        return f"{type(left).__name__} and {type(right).__name__}"
    if isinstance(left, torch.Tensor):
        facts = ["dtype", "device", "layout", "requires_grad", "is_leaf", "shape"]
        if left.layout is torch.strided and not left.is_nested:
            facts += ["stride", "storage_offset", "is_conj", "is_neg"]
        for fact in facts:
            mine, other = getattr(left, fact), getattr(right, fact)
            mine, other = (mine(), other()) if callable(mine) else (mine, other)
            if mine != other:
                return f"{fact}: {mine} and {other}"
        return "" if not values or same(left, right) else "values"
    if isinstance(left, (list, tuple)):
        if len(left) != len(right):
            return f"lengths {len(left)} and {len(right)}"
        found = (
            f"[{i}] {d}"
            for i, (a, b) in enumerate(zip(left, right, strict=True))
            if (d := difference(a, b, values, same))
        )
        return next(found, "")
    if isinstance(left, dict):
        if list(left) != list(right):
            return "keys"
        return next((f"[{k}] {d}" for k in left if (d := difference(left[k], right[k], values, same))), "")
    if isinstance(left, float):
        return "" if struct.pack("d", left) == struct.pack("d", right) else f"{left} and {right}"
    return "" if left == right else f"{left!r} and {right!r}"


def _compare(eager: Run, compiled: Run, values: bool, case: Case, call: int) -> None:
    same = _close if case.name.split(".grad")[0] in ROUNDED else same_values
    found = f"error: {eager.error!r} and {compiled.error!r}" if eager.error != compiled.error else ""
    for what in ("result", "arguments", "gradients"):
        mine, other = getattr(eager, what), getattr(compiled, what)
        found = found or (f"{what}: {d}" if (d := difference(mine, other, values, same)) else "")
    if not found and not torch.equal(eager.random, compiled.random):
        found = "random state"
    if found:
        raise Difference(f"{case}, call {call}: {found}")


def _form(case: Case) -> Any:
    call = case.call
    if case.variant == "out":

        def with_out(value: Any, args: Any, kwargs: Any, out: Any) -> Any:
            return call(value, *args, **kwargs, out=out)

        return with_out

    def plain(value: Any, *args: Any, **kwargs: Any) -> Any:
        return call(value, *args, **kwargs)

    return plain


def with_out(case: Case, sample: Any) -> Any:
    """The sample with an `out` of the right shape, or None where the operator gives no tensor to write to."""
    value, args, kwargs = copied(sample, {})
    torch.manual_seed(SEED)
    with torch.no_grad():
        result = case.call(value, *args, **kwargs)
    if isinstance(result, torch.Tensor):
        out: Any = torch.zeros_like(result)
    elif isinstance(result, tuple) and result and all(isinstance(r, torch.Tensor) for r in result):
        out = tuple(map(torch.zeros_like, result))
    else:
        return None
    return (sample[0], (sample[1], sample[2], out), {})


def check(case: Case, values: bool = True) -> Verdict | None:
    """Raises Difference. None: the sample does not have this form."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, again = case.first, case.again
        if case.variant == "out":
            first, again = with_out(case, first), with_out(case, again)
            if first is None or again is None:
                return None
        fn = _form(case)
        reference = _run(fn, first, case.grad)
        if reference.error:
            return None  # no kernel for the device, an operand that cannot be written to, no such overload
        flashpoint.reset()
        compiled = flashpoint.compile(fn, backend="eager")
        _compare(reference, _run(compiled, first, case.grad), values, case, 1)
        report = inspect_compiled(compiled)
        flashpoint.reset_counters()
        _compare(reference, _run(compiled, first, case.grad), values, case, 2)
        answered = _answered()
        reference = _run(fn, again, case.grad)
        flashpoint.reset_counters()
        _compare(reference, _run(compiled, again, case.grad), values, case, 3)
        if not report.breaks and answered:
            if same_but_for_values(first, again) and not _answered():
                return Verdict(False, "no entry answered other values")
            return Verdict(True)
        if report.breaks:
            found = report.breaks[0]
            return Verdict(False, f"{found.reason}: {found.message}")
        return Verdict(False, "kept, but no entry answered the second call")


def _answered() -> bool:
    counters = flashpoint.counters()
    return counters["hits"] > 0 and counters["captures_started"] == 0
