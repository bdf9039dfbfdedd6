"""Numbers that change: followed through what the call makes, else a break before their use."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch

import flashpoint

X = torch.arange(3.0) + 1
WILD = [1, 2, 0, -1, 2.5, 0.0, -0.0, True, False, 2**63, -(2**70), math.nan, math.inf, 7, 1.0, -3, 4]


@dataclasses.dataclass
class Options:
    scale: float
    shift: float = 2


@dataclasses.dataclass(frozen=True)
class Frozen:
    scale: float


class Slots:
    __slots__ = ("number",)

    def __init__(self, number: float) -> None:
        self.number = number


class Counter:
    kind = "counter"

    def __init__(self, number: float) -> None:
        self.number = number
        self.seen: list = []

    def bump(self) -> Counter:
        self.number += 1
        return self

    @property
    def twice(self) -> float:
        return self.number * 2


class Guarded(Counter):
    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)


def of_an_attribute(n: float) -> Any:
    counter = Counter(n).bump()
    return X * counter.number + counter.twice, counter.number


def of_a_dataclass(n: float) -> Any:
    options = Options(n)
    options.shift = options.scale + 1
    return X * options.scale + options.shift + Frozen(n).scale


def of_a_slot(n: float) -> Any:
    made = Slots(n)
    made.number *= 2
    return X * made.number


def of_own_setattr(n: float) -> Any:
    return X * Guarded(n).number


def of_getattr(n: float) -> Any:
    counter = Counter(n)
    return X * getattr(counter, "number", 0) + getattr(counter, "missing", 1)  # noqa: B009


def of_an_object_in_a_list(n: float) -> Any:
    counters = [Counter(n), Counter(n * 2)]
    return X * counters[1].number + len(counters)


def of_a_cell(n: float) -> Any:
    k = n

    def add() -> float:
        nonlocal k
        k += 1
        return k + n

    return X * add(), k


def of_a_closure(n: float) -> Any:
    return X * (lambda a: a + n)(1), [i * n for i in range(2)]


def of_list_methods(n: float) -> Any:
    made = [1, n]
    made.extend([n * 2, 3])
    made.insert(0, n + 1)
    last = made.pop()
    made.reverse()
    first = made.pop(0)
    del made[0]
    made[0] = 5
    copied = made.copy()
    made.clear()
    return X * copied[1] + first + last, copied, made


def of_list_operators(n: float) -> Any:
    made = [1] + [n]
    made += [n + 1]
    made[0] = made[1] * 2
    many = (n,) * 2 + (3,)
    return X * made[0] + made[2] + many[1], made, many


def of_dict_methods(n: float) -> Any:
    made = {"a": n, 3: n * 2}
    made.update(b=n + 1)
    made.update({"a": n - 1})
    copied = made.copy()
    del made["b"]
    return X * made[3] + copied["b"] + made.setdefault("c", n) + made.setdefault("c", 1), made, copied


def of_folds(n: float) -> Any:
    made = [n, n + 2, n + 1]
    return X * sum(made) + max(made) + min(made), math.prod(made), sum({"a": n, "b": n}.values())


def of_questions(n: float) -> Any:
    return X * 2 if bool(n) and not math.isnan(n) else X, any([n, 0])


FOLLOWED = [
    of_an_attribute,
    of_a_dataclass,
    of_a_slot,
    of_own_setattr,
    of_getattr,
    of_an_object_in_a_list,
    of_a_cell,
    of_a_closure,
    of_list_methods,
    of_list_operators,
    of_dict_methods,
]


def by_key(n: float) -> Any:
    made = {f"k{n}": X * 2}
    return made[f"k{n}"] + len(made)


def by_shape(n: float) -> Any:
    return X * torch.tensor([n, 1.0])[0] + len([0] * (3 if n == 2 else 4))


def by_membership(n: float) -> Any:
    return X * (2 if n in (1, 2) else 3)


def by_deque(n: float) -> Any:
    return X * types.SimpleNamespace(n=n).n


def by_default(n: float) -> Any:
    def add(k: float = n) -> float:
        return k + 1

    return X * add()


def by_divmod(n: float) -> Any:
    whole, rest = divmod(n, 3)
    return X * whole + rest


def by_generator(n: float) -> Any:
    def two() -> Any:
        yield n
        yield n + 1

    return X * sum(two())


BROKEN = [by_key, by_shape, by_membership, by_deque, by_default, by_divmod, by_generator]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        signs = torch.equal(torch.signbit(a.nan_to_num()), torch.signbit(b.nan_to_num()))
        return a.dtype == b.dtype and torch.equal(a.nan_to_num(nan=9.5), b.nan_to_num(nan=9.5)) and signs
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, float) and isinstance(b, float):
        return (a == b and math.copysign(1, a) == math.copysign(1, b)) or (a != a and b != b)
    return type(a) is type(b) and a == b


def outcome(fn: Callable, n: float) -> Any:
    try:
        return fn(n)
    except (ZeroDivisionError, OverflowError, ValueError, RuntimeError) as error:
        return (type(error).__name__,)


@pytest.mark.parametrize("fn", [*FOLLOWED, of_folds], ids=lambda fn: fn.__name__)
@pytest.mark.parametrize("first", [1, 0.5])
def test_followed_by_one_recording(fn: Callable, first: float) -> None:
    compiled = flashpoint.compile(fn, backend="eager")
    for i in range(12):
        assert same(compiled(first + i), fn(first + i))
    counters = flashpoint.counters()
    assert counters["captures_started"] == 1 and counters["hits"] == 11, compiled.last_report()
    assert counters["resume_hits"] == 0


@pytest.mark.parametrize("fn", BROKEN, ids=lambda fn: fn.__name__)
def test_a_number_that_cannot_be_followed_breaks(fn: Callable) -> None:
    compiled = flashpoint.compile(fn, backend="eager")
    for i in range(16):
        assert same(compiled(i), fn(i))
    before = flashpoint.counters()
    for i in range(16, 24):
        assert same(compiled(i), fn(i))
    after = flashpoint.counters()
    assert after["captures_started"] == before["captures_started"], compiled.last_report()
    assert after["eager_calls"] == before["eager_calls"]
    assert after["hits"] - before["hits"] == 8 and after["resume_hits"] - before["resume_hits"] >= 8


@pytest.mark.parametrize("fn", [*FOLLOWED, of_folds, of_questions, *BROKEN], ids=lambda fn: fn.__name__)
@pytest.mark.parametrize("backend", ["eager", "native"])
def test_numbers_of_all_kinds(fn: Callable, backend: str) -> None:
    compiled = flashpoint.compile(fn, backend=backend)
    for n in WILD + WILD[::-1] + WILD[::2]:
        assert same(outcome(compiled, n), outcome(fn, n)), n
    assert flashpoint.counters()["hits"] > 0


def test_text_takes_more_recordings_before_it_breaks() -> None:
    def fn(mode: str) -> torch.Tensor:
        return X * {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}.get(mode, 0)

    compiled = flashpoint.compile(fn, backend="eager")
    for mode in "abcde":
        assert torch.equal(compiled(mode), fn(mode))
    assert flashpoint.counters()["breaks_resumed"] == 0
    for mode in "fghijklmnopq":
        assert torch.equal(compiled(mode), fn(mode))
    assert flashpoint.counters()["eager_calls"] == 0


def test_fullgraph_never_breaks_for_a_number() -> None:
    def fn(n: int) -> torch.Tensor:
        return X * len({f"k{n}": 1, "k3": 2})

    compiled = flashpoint.compile(fn, backend="eager", fullgraph=True)
    for n in range(6):
        assert torch.equal(compiled(n), fn(n))
    assert flashpoint.counters()["captures_kept"] == 6


def test_a_dict_of_the_instance_shows_what_is_stored() -> None:
    def fn(n: int) -> Any:
        counter = Counter(1)
        names = counter.__dict__
        counter.number = n
        return X * names["number"], vars(counter)["number"]

    compiled = flashpoint.compile(fn, backend="eager")
    for n in range(10):
        assert same(compiled(n), fn(n))


def test_locals_show_what_is_followed() -> None:
    def look(made: list) -> Any:
        first = made[0]  # noqa: F841
        return locals()["first"]

    def fn(n: int) -> torch.Tensor:
        return X * look([n])

    compiled = flashpoint.compile(fn, backend="eager")
    for n in range(10):
        assert same(compiled(n), fn(n))


def test_keywords_that_a_break_left_on_the_stack_are_guarded() -> None:
    def add(**numbers: float) -> torch.Tensor:
        return X * numbers["a"] + numbers["b"]

    def fn(n: int) -> Any:
        numbers = {"a": n}
        if n > 0:
            numbers[f"b{n}"[:1]] = n + 1
        return add(**numbers)

    compiled = flashpoint.compile(fn, backend="eager")
    for n in range(1, 12):
        assert same(compiled(n), fn(n))


def test_an_equal_number_in_another_local_is_another_number() -> None:
    def fn(n: int, m: int) -> Any:
        def inner() -> int:
            return n * 10 + m

        return X * inner()

    compiled = flashpoint.compile(fn, backend="eager")
    for n, m in [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (1, 3)]:
        assert same(compiled(n, m), fn(n, m))
    assert flashpoint.counters()["captures_started"] == 1
