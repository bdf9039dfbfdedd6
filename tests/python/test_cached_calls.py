"""Calls of functools.lru_cache wrappers: results, cache_info() and evictions are eager's."""

from __future__ import annotations

import functools
import itertools

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
    """The recording of the first call is dropped; the second finds the cache full and is whole."""
    _, fn = tensors()
    compiled, x = flashpoint.compile(fn), torch.randn(2, 3)
    flashpoint.reset_counters()
    for _ in range(4):
        assert torch.equal(compiled(x, 1), fn(x, 1))
    counters = flashpoint.counters()
    assert (counters["captures_started"], counters["captures_kept"], counters["hits"]) == (2, 1, 2)
    assert counters["breaks_resumed"] == 0
