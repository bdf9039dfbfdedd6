"""Whether two results are equal, in all their fields: tensors, containers, dataclasses, caches.

Used by the demo, the model tests and the benchmarks, where results are model outputs: ordered dicts that are
dataclasses too, tuples, and cache objects that hold lists of layers with tensors as attributes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import torch


def differences(expected: Any, actual: Any, *, rtol: float = 0.0, atol: float = 0.0) -> list[str]:
    """What differs, one line per place, at most 20; empty if all is equal.

    Types must be the same, tensors in shape, dtype, device, requires_grad and, to the tolerance given
    (none by default; NaN equals NaN), in values.
    """
    found: list[str] = []
    for line in _walk("result", expected, actual, rtol, atol, set()):
        found.append(line)
        if len(found) == 20:
            break
    return found


def _walk(
    path: str, expected: Any, actual: Any, rtol: float, atol: float, seen: set[tuple[int, int]]
) -> Iterator[str]:
    if expected is actual:
        return
    if type(expected) is not type(actual):
        yield f"{path}: {type(expected).__name__} expected, got {type(actual).__name__}"
        return
    if isinstance(expected, (int, float, complex, str, bytes, type(None), torch.dtype, torch.device, type)):
        if expected != actual and not (expected != expected and actual != actual):
            yield f"{path}: {expected!r} expected, got {actual!r}"
        return
    if isinstance(expected, (FunctionType, BuiltinFunctionType, MethodType)):
        if expected != actual:
            yield f"{path}: another function"
        return

    # What follows can hold itself or be met by several paths: each pair is compared once. Both are alive, so
    # the ids are theirs alone.
    pair = (id(expected), id(actual))
    if pair in seen:
        return
    seen.add(pair)
    if isinstance(expected, torch.Tensor):
        yield from _tensor(path, expected, actual, rtol, atol)
        return
    known = False
    if isinstance(expected, Mapping):
        known = True
        if list(expected) != list(actual):
            yield f"{path}: keys {list(expected)} expected, got {list(actual)}"
            return
        for key in expected:
            yield from _walk(f"{path}[{key!r}]", expected[key], actual[key], rtol, atol, seen)
    elif isinstance(expected, (tuple, list)):
        known = True
        if len(expected) != len(actual):
            yield f"{path}: {len(expected)} elements expected, got {len(actual)}"
            return
        for index, (left, right) in enumerate(zip(expected, actual, strict=True)):
            yield from _walk(f"{path}[{index}]", left, right, rtol, atol, seen)
    if hasattr(expected, "__dict__"):
        known = True
        left, right = vars(expected), vars(actual)
        if set(left) != set(right):
            yield f"{path}: attributes {sorted(left)} expected, got {sorted(right)}"
            return
        for name in left:
            yield from _walk(f"{path}.{name}", left[name], right[name], rtol, atol, seen)
    if not known and expected != actual:
        yield f"{path}: {expected!r} expected, got {actual!r}"


def _tensor(path: str, expected: Any, actual: Any, rtol: float, atol: float) -> Iterator[str]:
    for name in ("shape", "dtype", "device", "requires_grad"):
        left, right = getattr(expected, name), getattr(actual, name)
        if left != right:
            yield f"{path}.{name}: {left} expected, got {right}"
            return
    if not torch.allclose(expected, actual, rtol=rtol, atol=atol, equal_nan=True):
        gap = (expected.to(torch.complex128) - actual.to(torch.complex128)).abs().max().item()
        yield f"{path}: values differ, by {gap:.3g} at most"
