"""Numbers that change, on their way through tuples, lists and dicts that the call makes."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest
import torch

import flashpoint

X = torch.arange(3.0) + 1


def check(fn: Callable, calls: list[tuple[tuple, dict]], recordings: int = 1) -> Any:
    """Equal to eager at each call, after so many recordings."""
    compiled = flashpoint.compile(fn, backend="eager")
    for args, kwargs in calls:
        expected, found = fn(*args, **kwargs), compiled(*args, **kwargs)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    counters = flashpoint.counters()
    assert counters["captures_kept"] == recordings, compiled.last_report()
    assert counters["captures_started"] == recordings and counters["eager_calls"] == 0, compiled.last_report()
    assert counters["hits"] == len(calls) - recordings and counters["resume_hits"] == 0
    return compiled


def by_index(x: torch.Tensor, *args: Any) -> torch.Tensor:
    return x * args[0] + args[-1]


def by_loop(x: torch.Tensor, *args: Any) -> torch.Tensor:
    for number in args:
        x = x * number
    return x + len(args)


def by_slice(x: torch.Tensor, *args: Any) -> torch.Tensor:
    first, *_ = (args[1:], 0)
    return x * first[0]


def passed_on(x: torch.Tensor, *args: Any) -> torch.Tensor:
    return by_index(x, *args)


def in_a_list(x: torch.Tensor, *args: Any) -> tuple:
    made = [a * 2 for a in args]
    made.append(args[0])
    return x * made[-1], made, [*made], tuple(made)


def in_pairs(x: torch.Tensor, *args: Any) -> torch.Tensor:
    for i, number in enumerate(args):
        x = x + number * i
    for number, other in zip(args, list(args), strict=True):
        x = x * number - other
    return x


@pytest.mark.parametrize("fn", [by_index, by_loop, by_slice, passed_on, in_a_list, in_pairs])
def test_positional(fn: Callable) -> None:
    check(fn, [((X, i + 0.5, 3 * i + 2), {}) for i in range(5)])


def keyword_items(x: torch.Tensor, **kw: Any) -> torch.Tensor:
    for number in kw.values():
        x = x * number
    for name, number in kw.items():
        x = x + number * len(name)
    return x + kw["a"] + kw.get("b") + kw.get("c", 1) + ("a" in kw) + len(kw)


def keyword_passed(x: torch.Tensor, **kw: Any) -> torch.Tensor:
    return x * kw.pop("a") + explicit(x, **kw, c=2)


def explicit(x: torch.Tensor, *, b: float, c: int) -> torch.Tensor:
    return x * b + c


def keyword_returned(x: torch.Tensor, **kw: Any) -> tuple:
    return x + 1, kw, {"more": kw["a"] + 1, **kw}


@pytest.mark.parametrize("fn", [keyword_items, keyword_passed, keyword_returned])
def test_by_name(fn: Callable) -> None:
    check(fn, [((X,), {"a": i + 0.5, "b": i * 3 + 2}) for i in range(5)])


class Scaled(torch.nn.Module):
    def forward(self, x: torch.Tensor, *args: Any, **kw: Any) -> torch.Tensor:
        return x * args[0] + kw["shift"]


def test_arguments_of_a_module() -> None:
    model = Scaled()
    check(lambda x, *a, **k: model(x, *a, **k), [((X, i + 1.5), {"shift": 2.0 * i}) for i in range(5)])


def test_a_dict_that_is_written() -> None:
    def fn(x: torch.Tensor, n: float) -> tuple:
        made = {"a": n}
        made["b"] = n * 2
        made["a"] = n + 1
        made["c"] = 7
        return x * made["a"] + made["b"] + made["c"], made

    check(fn, [((X, i + 0.5), {}) for i in range(4)])


@pytest.mark.parametrize(
    "use",
    [
        "sum(made)",
        "max(made)",
        "made.index(n)",
        "len(str(made))",
        "int(made == [n, 2])",
        "int(n in made)",
        "sorted(made)[0]",
        "sum(map(abs, made))",
        "torch.tensor(made).sum()",
        "(made * 2)[2]",
        "[made][0].index(n)",
        "len(str({'k': made}))",
        "int(({'k': made}) == ({'k': [n, 2]}))",
        "len({(n, 1), (n, 2)} | {(3, 1)})",
        "(lambda a=n: a)()",
        "(lambda *, a=n: a)()",
        "holder(v=made).v.count(n)",
        "sum(iter(made))",
        "list(iter(made))[0]",
        "next(iter(made))",
        "list(reversed(made))[1]",
        "(made.reverse() or made)[1]",
        "(made.sort() or made)[0]",
        "made.pop(0)",
        "sum(dict(a=n, b=n).values())",
        "sum(list({'a': n}.values()))",
        "{(n, 2): 5}[(n, 2)]",
        "sum(v for v in made)",
        "[v for v in made][0] + made.copy()[0]",
    ],
)
def test_what_c_code_reads(use: str) -> None:
    space = {"torch": torch, "holder": types.SimpleNamespace}
    exec(f"def fn(x, n):\n    made = [n, 2]\n    return x * ({use})\n", space)
    fn = space["fn"]
    compiled = flashpoint.compile(fn, backend="eager")
    for n in (3, 3, 4, 1, 5, 4, 3):
        assert torch.equal(compiled(X, n), fn(X, n)), n
    counters = flashpoint.counters()
    assert counters["hits"] + counters["resume_hits"] > 0


def test_a_list_that_somebody_else_has() -> None:
    def fn(x: torch.Tensor, n: int) -> torch.Tensor:
        made: list = [1]
        waiting = iter(made)
        made.append(n)
        return x * sum(list(waiting))

    compiled = flashpoint.compile(fn, backend="eager")
    for n in (3, 3, 4, 1, 5):
        assert torch.equal(compiled(X, n), fn(X, n)), n


def test_kept_by_an_object() -> None:
    class Keeper:
        pass

    def make() -> tuple:
        keeper = Keeper()
        keeper.rate, keeper.last = 1.0, []

        def fn(x: torch.Tensor) -> torch.Tensor:
            rates = [keeper.rate * 0.5 for _ in range(2)]
            keeper.rate = rates[0]
            keeper.last = [r + 1 for r in rates]
            keeper.pair = (rates[1], "pair")
            return x * keeper.rate

        return keeper, fn

    (ours, fn), (theirs, eager) = make(), make()
    compiled = flashpoint.compile(fn, backend="eager")
    for i in range(8):
        assert torch.equal(compiled(X), eager(X))
        assert (ours.rate, ours.last, ours.pair) == (theirs.rate, theirs.last, theirs.pair), i
    counters = flashpoint.counters()
    assert counters["captures_started"] == 2 and counters["hits"] == 6, compiled.last_report()
