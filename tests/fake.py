"""Stand-ins for the flashpoint package, to test the tests.

`FLASHPOINT_FAKE=1` makes tests.support use `Identity`, which runs everything eagerly: the programs and the
oracle can then be checked without the native core. The others are wrong on purpose; tests of the oracle
show that each is caught. All have the package's interface as far as the tests use it.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch


class Identity:
    """Runs everything eagerly and counts nothing."""

    name = "identity"

    def compile(self, fn: Callable, **options: Any) -> Callable:
        @functools.wraps(fn, updated=())
        def call(*args: Any, **kwargs: Any) -> Any:
            return fn(*args, **kwargs)

        return call

    def counters(self) -> dict[str, int]:
        return {}

    def reset(self) -> None:
        pass


class Stale(Identity):
    """Answers every call with the first one's result or exception."""

    name = "stale"

    def compile(self, fn: Callable, **options: Any) -> Callable:
        kept: list[tuple[bool, Any]] = []

        def call(*args: Any, **kwargs: Any) -> Any:
            if not kept:
                try:
                    kept.append((True, fn(*args, **kwargs)))
                except Exception as error:
                    kept.append((False, error))
            good, value = kept[0]
            if good:
                return value
            raise value

        return call


class DropsMutations(Identity):
    """From the second call on, works on copies of its arguments: what was done to them is lost."""

    name = "drops mutations"

    def compile(self, fn: Callable, **options: Any) -> Callable:
        calls = 0

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > 1:
                try:
                    args, kwargs = copy.deepcopy((args, kwargs))
                except Exception:
                    pass
            return fn(*args, **kwargs)

        return call


class FreezesScalars(Identity):
    """From the second call on, replaces numbers and strings among the arguments by the first call's."""

    name = "freezes scalars"

    def compile(self, fn: Callable, **options: Any) -> Callable:
        first: list[tuple] = []

        def call(*args: Any, **kwargs: Any) -> Any:
            first.append(args)
            merged = [
                old if isinstance(new, int | float | str) and type(old) is type(new) else new
                for old, new in zip(first[0], args, strict=False)
            ]
            return fn(*merged, *args[len(merged) :], **kwargs)

        return call


class ClonesResults(Identity):
    """From the second call on, hands back a copy of a tensor result: aliasing with arguments is lost."""

    name = "clones results"

    def compile(self, fn: Callable, **options: Any) -> Callable:
        calls = 0

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            result = fn(*args, **kwargs)
            return result.clone() if calls > 1 and isinstance(result, torch.Tensor) else result

        return call


class DrawsTwice(Identity):
    """Consumes one more random number than the program does."""

    name = "draws twice"

    def compile(self, fn: Callable, **options: Any) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = fn(*args, **kwargs)
            torch.rand(1)
            return result

        return call


class LosesGradMode(Identity):
    """Leaves grad mode off after a call."""

    name = "loses grad mode"

    def compile(self, fn: Callable, **options: Any) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = fn(*args, **kwargs)
            torch.set_grad_enabled(False)
            return result

        return call


WRONG = (Stale(), DropsMutations(), FreezesScalars(), ClonesResults(), DrawsTwice(), LosesGradMode())
