"""Classes that the call makes: used inside it they are recorded; what leaves the call is a break."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

os.environ.setdefault("FLASHPOINT_STRICT", "1")

import flashpoint  # noqa: E402

factor = 1


class First:
    step = 1

    def shift(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.step


class Second:
    step = 2


class Nothing:
    pass


class Base(First, Nothing):
    pass


def plain(x: torch.Tensor) -> Any:
    class Scale:
        by = factor

        def __init__(self, more: int) -> None:
            self.more = more

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.by + self.more

        @classmethod
        def of_class(cls, x: torch.Tensor) -> torch.Tensor:
            return x - cls.by

        @staticmethod
        def twice(x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @property
        def less(self) -> int:
            return self.more - 1

    scale = Scale(3)
    return scale(x), Scale.of_class(x), scale.twice(x), scale.less, Scale.__name__, isinstance(scale, Scale)


def inheriting(x: torch.Tensor) -> Any:
    class Local(Base):
        def shift(self, x: torch.Tensor) -> torch.Tensor:
            return super().shift(x) * factor

    class Further(Local):
        pass

    Further.extra = x
    made = Further()
    return made.shift(x), hasattr(made, "absent"), isinstance(made, Second), Further.extra + made.step


def module(x: torch.Tensor) -> torch.Tensor:
    class Inner(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = factor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 + self.bias

    return Inner()(x)


def raising(x: torch.Tensor) -> torch.Tensor:
    class Stop(ValueError):
        def __init__(self, code: int) -> None:
            super().__init__(code)
            self.code = code

    try:
        raise Stop(factor)
    except Stop as stop:
        return x + stop.code


CHANGES: list[Callable[[Any], None]] = [
    lambda patch: patch.setitem(globals(), "factor", 5),
    lambda patch: patch.setattr(First, "step", 7),
    lambda patch: patch.setattr(First, "shift", lambda self, x: x - self.step),
    lambda patch: patch.setattr(Nothing, "absent", 1, raising=False),
    lambda patch: setattr(Base, "__bases__", (First, Second, Nothing)),
    lambda patch: patch.setattr(Base, "__init__", lambda self: setattr(self, "step", 9)),
]


def same(got: Any, want: Any) -> bool:
    if isinstance(got, tuple):
        return len(got) == len(want) and all(map(same, got, want))
    return torch.equal(got, want) if isinstance(got, torch.Tensor) else got == want


@pytest.fixture
def bases() -> Iterator[None]:
    yield
    Base.__bases__ = (First, Nothing)


@pytest.mark.usefixtures("bases")
@pytest.mark.parametrize("fn", [plain, inheriting, module, raising])
def test_a_class_used_in_the_call_is_recorded(fn: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = flashpoint.compile(fn, backend="eager", fullgraph=True)
    for i in range(4):
        if i == 1:
            before = flashpoint.counters()["hits"]
        x = torch.randn(3)
        assert same(compiled(x), fn(x))
    assert flashpoint.counters()["hits"] == before + 3, compiled.last_report()
    for change in CHANGES:
        change(monkeypatch)
        for _ in range(2):
            x = torch.randn(3)
            assert same(compiled(x), fn(x))


def leaves_as_instance(x: torch.Tensor) -> Any:
    y = x.sin()

    class Holder:
        def __init__(self, value: torch.Tensor) -> None:
            self.value = value

    return Holder(y + 1)


def leaves_as_class(x: torch.Tensor) -> Any:
    y = x.sin()

    class Holder:
        value = y + 1

    return Holder


def lives_over_a_break(x: torch.Tensor) -> Any:
    y = x.sin()

    class Holder:
        value = y + 1

    flashpoint.graph_break()
    return Holder


@pytest.mark.parametrize("fn", [leaves_as_instance, leaves_as_class, lives_over_a_break])
def test_a_class_that_leaves_is_made_each_time(fn: Callable) -> None:
    compiled = flashpoint.compile(fn, backend="eager")
    seen = []
    for _ in range(6):
        x = torch.randn(3)
        got = compiled(x)
        assert torch.equal(got.value, x.sin() + 1)
        seen.append(got if isinstance(got, type) else type(got))
    assert len(set(seen)) == len(seen)


def test_nothing_keeps_a_class_alive() -> None:
    """Recordings behind a class statement that ran do not hold the class: its bases would tell of it."""

    class Older:
        pass

    def fn(x: torch.Tensor) -> torch.Tensor:
        class Made(Older):
            pass

        return x * len(Older.__subclasses__())

    compiled = flashpoint.compile(fn)
    x = torch.ones(2)
    for _ in range(6):
        assert torch.equal(compiled(x), x)
        gc.collect()
        assert Older.__subclasses__() == []
