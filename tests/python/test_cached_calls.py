"""Calls of functools.lru_cache wrappers: results, cache_info() and evictions are eager's."""

from __future__ import annotations

import functools
import itertools
import types
import typing
from typing import Any

import pytest
import torch

import flashpoint


def numbers():
    @functools.lru_cache
    def double(n):
        return 2 * n

    return double, lambda x, n: x * double(n)


def tensors():
    @functools.lru_cache(maxsize=4)
    def mask(n):
        return torch.tril(torch.ones(n, n))

    return mask, lambda x, n: x @ mask(3) + n


def keywords():
    @functools.lru_cache(typed=True)
    def scaled(n, *, by):
        return n * by

    return scaled, lambda x, n: x + scaled(n, by=2) + scaled(n, by=2.0)


def several():
    @functools.lru_cache(maxsize=2)
    def double(n):
        return 2 * n

    return double, lambda x, n: x + double(n) + double(n + 1) + double(n)


def nested():
    @functools.cache
    def inner(n):
        return n + 1

    @functools.cache
    def outer(n):
        return 2 * inner(n)

    return inner, lambda x, n: x * outer(n) + inner(n)


def uncached():
    @functools.lru_cache(maxsize=0)
    def double(n):
        return 2 * n

    return double, lambda x, n: x * double(n)


def method():
    class Table:
        @functools.lru_cache(maxsize=3)  # noqa: B019
        def row(self, n):
            return n * 3

    table = Table()
    return Table.row, lambda x, n: x + table.row(n)


def before_a_break():
    @functools.lru_cache
    def double(n):
        return 2 * n

    def fn(x, n):
        y = x * double(n)
        if y.sum() > 0:
            y = y + double(n)
        return y

    return double, fn


def asked_in_between():
    @functools.lru_cache
    def double(n):
        return 2 * n

    return double, lambda x, n: (x * double(n), double.cache_info(), double(n))


@pytest.mark.parametrize(
    "make",
    [numbers, tensors, keywords, several, nested, uncached, method, before_a_break, asked_in_between],
    ids=lambda make: make.__name__,
)
def test_cached_calls(make) -> None:
    (cache, fn), (eager_cache, eager) = make(), make()
    compiled, x = flashpoint.compile(fn), torch.rand(2, 3)
    flashpoint.reset_counters()
    for n in [1, 1, 1, 2, 2, 3, 1, 1, 4, 2, 2, 1]:
        got, want = compiled(x, n), eager(x, n)
        assert str(got) == str(want)
        assert cache.cache_info() == eager_cache.cache_info()
    if make is not uncached:
        assert flashpoint.counters()["hits"] > 0


def test_what_a_bounded_cache_evicts() -> None:
    """Replayed hits renew their keys: all orders of calls leave the same keys in the cache."""
    compared = 0
    for order in itertools.product([1, 2, 3], repeat=5):
        caches, answers = [], []
        for wrap in (lambda f: f, flashpoint.compile):

            @functools.lru_cache(maxsize=2)
            def double(n):
                return 2 * n

            fn = wrap(lambda x, n, double=double: x * double(n))
            answers.append([fn(torch.ones(2), n).tolist() for n in order])
            double(1), double(2), double(3)
            caches.append(double.cache_info())
        assert answers[0] == answers[1]
        assert caches[0] == caches[1], order
        compared += 1
    assert compared == 243


def test_a_cached_function_that_fills_its_cache() -> None:
    """It runs unwatched, once, and the first call's recording is whole."""
    _, fn = tensors()
    compiled, x = flashpoint.compile(fn, fullgraph=True), torch.randn(2, 3)
    flashpoint.reset_counters()
    for _ in range(4):
        assert torch.equal(compiled(x, 1), fn(x, 1))
    counters = flashpoint.counters()
    assert (counters["captures_started"], counters["captures_kept"], counters["hits"]) == (1, 1, 3)


class Recipe:
    """Hashed by its address."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        self.axes = axes


def test_other_keys_of_a_cache_do_not_matter() -> None:
    """Keys are looked up, also of objects, sizes, devices and keywords; what others cache is no miss."""
    runs = []

    @functools.lru_cache(maxsize=64)
    def plan(recipe, shape, *, device):
        runs.append(shape)
        return [recipe.axes, tuple(shape), torch.zeros((), device=device)]

    recipe = Recipe((1, 0))

    def fn(x):
        axes, shape, zero = plan(recipe, x.shape, device=x.device)
        return x.permute(axes) + shape[0] + zero

    compiled = flashpoint.compile(fn)
    flashpoint.reset_counters()
    for n in range(20):
        plan(Recipe((0, 1)), torch.Size([n, n]), device=torch.device("cpu"))
        x = torch.randn(2, 3)
        assert torch.equal(compiled(x), x.t() + 2)
    assert flashpoint.counters()["captures_started"] == 1
    assert flashpoint.counters()["hits"] == 19
    assert runs.count((2, 3)) == 1


def test_a_result_that_was_made_anew() -> None:
    """A bounded cache uses its records again: the same record under the same key may hold another result."""
    scale = [1.0]

    @functools.lru_cache(maxsize=1)
    def factors(n):
        return [n * scale[0]]

    compiled = flashpoint.compile(lambda x: x * factors(2)[0])
    x = torch.ones(2)
    for scale[0] in [1.0, 1.0, 3.0, 3.0, 5.0]:
        assert compiled(x).tolist() == [2 * scale[0]] * 2
        factors(7)
    assert compiled(x).tolist() == [10.0, 10.0]


def test_a_cached_function_that_raises() -> None:
    asked = []

    @functools.lru_cache
    def half(n):
        asked.append(n)
        if n % 2:
            raise ValueError(n)
        return n // 2

    def fn(x, n):
        try:
            return x * half(n)
        except ValueError as error:
            return x - error.args[0]

    compiled, x = flashpoint.compile(fn), torch.ones(2)
    flashpoint.reset_counters()
    for n in [3, 3, 3, 4, 4, 4, 3]:
        expected = 1.0 - n if n % 2 else n // 2
        assert compiled(x, n).tolist() == [expected, expected]
    assert asked == [3, 3, 3, 4, 3]
    assert flashpoint.counters()["hits"] > 0


def test_a_cached_function_that_hands_out_what_the_call_made() -> None:
    """The cache keeps the first call's tensor; the second call's own is another one."""
    last: list[torch.Tensor] = []

    def make():
        @functools.lru_cache
        def first():
            return last[-1]

        def fn(x):
            last.append(x * 2)
            return first() + x

        return fn

    compiled, x = flashpoint.compile(make()), torch.ones(2)
    assert [compiled(x * n).tolist() for n in (1, 2, 3, 4)] == [[n + 2.0] * 2 for n in (1, 2, 3, 4)]


def test_what_the_function_did_is_not_repeated() -> None:
    table: dict[str, int] = {}

    @functools.lru_cache
    def register(name):
        table[name] = len(table) + 1
        return table[name]

    def fn(x):
        before = len(table)
        return x * register("a") + before, table["a"]

    compiled, x = flashpoint.compile(fn), torch.ones(2)
    results = [(value.tolist(), count) for value, count in (compiled(x) for _ in range(4))]
    assert results == [([1.0, 1.0], 1)] + [([2.0, 2.0], 1)] * 3
    assert table == {"a": 1}


@pytest.mark.parametrize(
    "make",
    [
        lambda k: typing.Union[k, None],  # noqa: UP007
        lambda k: typing.Dict[str, k],  # noqa: UP006
        lambda k: typing.Callable[[k], int],  # noqa: UP006
        lambda k: typing.Tuple[k, ...],  # noqa: UP006
    ],
    ids=["union", "dict", "callable", "tuple"],
)
def test_generic_types_of_generic_types(make: Any) -> None:
    """The key is a tuple made in the call: what it is made of decides."""

    def fn(k, x):
        return make(k), x + 1

    compiled = flashpoint.compile(fn, backend="eager")
    for k in (int, int, str, typing.List[int], typing.Tuple[int, int], typing.List[int]):  # noqa: UP006
        assert compiled(k, torch.ones(2))[0] == make(k)
    assert flashpoint.counters()["hits"] >= 2


@pytest.mark.parametrize("place", ["argument", "global", "attribute", "cell", "behind a break"])
def test_another_wrapper_in_its_place(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(by: int) -> Any:
        @functools.lru_cache
        def scaled(n: int) -> int:
            return n * by

        return scaled

    cached = make(1)
    holder = types.SimpleNamespace(scaled=cached)
    monkeypatch.setitem(globals(), "SCALED", cached)

    def fn(x: torch.Tensor, given: Any) -> torch.Tensor:
        if place == "behind a break":
            kept = given
            flashpoint.graph_break()
            return x + kept(3)
        by_place = {"argument": given, "global": SCALED, "attribute": holder.scaled, "cell": cached}  # noqa: F821
        return x + by_place[place](3)

    compiled = flashpoint.compile(fn, backend="eager")
    flashpoint.reset_counters()
    for by in (1, 5, 1, 7):
        cached = make(by)
        holder.scaled = cached
        globals()["SCALED"] = cached
        for _ in range(3):
            assert torch.equal(compiled(torch.zeros(1), cached), torch.full((1,), 3.0 * by))
    assert flashpoint.counters()["hits"] >= 8


def test_a_wrapper_that_each_call_makes() -> None:
    def fn(x: torch.Tensor) -> tuple:
        @functools.lru_cache
        def double(n: int) -> int:
            return n * 2

        return x + double(3) + double(3), double.cache_info()

    compiled = flashpoint.compile(fn, backend="eager")
    for _ in range(6):
        (got, info), (want, other) = compiled(torch.ones(1)), fn(torch.ones(1))
        assert torch.equal(got, want) and info == other
