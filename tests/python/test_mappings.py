"""`**` of classes of the program: keys() and the subscript are Python code, recorded like any other."""

from __future__ import annotations

import collections
import collections.abc
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

os.environ.setdefault("FLASHPOINT_STRICT", "1")

import flashpoint  # noqa: E402


class Abstract(collections.abc.Mapping):
    def __init__(self, data: dict) -> None:
        self.data = data

    def __getitem__(self, key: str) -> Any:
        return self.data[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)


class Bare:
    def __init__(self, data: dict) -> None:
        self.data = data

    def keys(self) -> Any:
        return self.data.keys()

    def __getitem__(self, key: str) -> Any:
        return self.data[key]


def scaled(x: torch.Tensor, a: float = 1, b: Any = 2) -> torch.Tensor:
    return x * a + b


USES: dict[str, Callable[[torch.Tensor, Any], Any]] = {
    "call": lambda x, m: scaled(x, **m),
    "call with more": lambda x, m: scaled(x=x, **m),
    "display": lambda x, m: {"x": x + 1, **m},
}


@pytest.mark.parametrize("kind", [Abstract, Bare, collections.UserDict])
@pytest.mark.parametrize("use", list(USES))
def test_double_star(kind: type, use: str) -> None:
    fn = USES[use]

    def same(got: Any, want: Any) -> bool:
        if isinstance(got, dict):
            return list(got) == list(want) and all(same(got[k], want[k]) for k in got)
        return torch.equal(got, want) if isinstance(got, torch.Tensor) else got == want

    mapping = kind({"a": 3.0, "b": torch.ones(3)})
    compiled = flashpoint.compile(lambda x: fn(x, mapping), backend="eager")
    for i in range(4):
        if i == 2:
            before = flashpoint.counters()
        x = torch.randn(3)
        assert same(compiled(x), fn(x, mapping))
    after = flashpoint.counters()
    assert after["hits"] == before["hits"] + 2, compiled.last_report()
    assert after["resume_hits"] == before["resume_hits"]
    for change in (
        lambda: mapping.data.update(a=5.0),
        lambda: mapping.data.update(b=torch.zeros(3)),
        lambda: mapping.data.pop("b"),
        lambda: mapping.data.update(b=4.0),
        lambda: mapping.data.pop("a"),
    ):
        change()
        x = torch.randn(3)
        assert same(compiled(x), fn(x, mapping))


def test_an_instance_with_keys_of_its_own() -> None:
    mapping = Bare({"a": 3.0, "b": 4.0})
    compiled = flashpoint.compile(lambda x: scaled(x, **mapping), backend="eager")
    x = torch.randn(3)
    for keys in (["a", "b"], ["a", "b"], ["a"], ["b"], []):
        if keys != ["a", "b"]:
            mapping.keys = lambda keys=keys: keys
        for _ in range(2):
            assert torch.equal(compiled(x), scaled(x, **{k: mapping.data[k] for k in keys}))
