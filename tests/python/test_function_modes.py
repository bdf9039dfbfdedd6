"""Torch-function modes: what their methods read is guarded, and so is which method it is."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

os.environ.setdefault("FLASHPOINT_STRICT", "1")

import flashpoint  # noqa: E402


def mode_class(more: list[float]) -> type[TorchFunctionMode]:
    class Adding(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            return result + more[0] if func is torch.mul else result

    return Adding


def passing_on(self: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
    return func(*args, **(kwargs or {}))


def check(fn: Any, changes: list[Any]) -> None:
    compiled = flashpoint.compile(fn, backend="eager")
    for change in [lambda: None, *changes]:
        change()
        before = flashpoint.counters()["hits"]
        for _ in range(3):
            x = torch.randn(3)
            assert torch.equal(compiled(x), fn(x))
        assert flashpoint.counters()["hits"] >= before + 2, compiled.last_report()


@pytest.mark.parametrize("made", ["before", "in the call"])
def test_a_mode_that_the_call_enters(made: str) -> None:
    more = [1.0]
    kind = mode_class(more)
    mode = kind()

    def fn(x: torch.Tensor) -> torch.Tensor:
        with mode if made == "before" else kind():
            return torch.mul(x, 2)

    changes = [
        lambda: more.__setitem__(0, 5.0),
        lambda: setattr(kind, "__torch_function__", passing_on),
        lambda: setattr(kind, "__torch_function__", mode_class(more).__torch_function__),
    ]
    check(fn, changes)


def test_a_mode_around_the_call() -> None:
    more = [1.0]
    kind = mode_class(more)
    with kind():
        check(
            lambda x: torch.mul(x, 2),
            [
                lambda: more.__setitem__(0, 5.0),
                lambda: setattr(kind, "__torch_function__", passing_on),
            ],
        )
