# ruff: noqa: B015, B016, B018, B021, B030, E714, F821, F841, UP003, UP032, UP037  (on purpose)
"""Corpus: instructions that fail, and exceptions nobody catches.

To add one: write a deterministic function without arguments, decorated with @case.
"""

from __future__ import annotations

import sys
import types

from tests.python.eval_corpus_common import GLOBAL_NUMBER, Manager, Point, case


@case
def unpacking_errors():
    out = []

    def attempt(function):
        try:
            function()
        except Exception as error:
            out.append((type(error).__name__, str(error)))

    def few():
        a, b = [1]

    def many():
        a, b = [1, 2, 3]

    def many_from_iterator():
        a, b = iter([1, 2, 3])

    def few_starred():
        a, *b, c = [1]

    def few_starred_after():
        a, *b, c, d = [1, 2]

    def not_iterable():
        a, b = 5

    def raising():
        a, b = (1 / x for x in (1, 0))

    def extend():
        [*5]

    def set_update():
        {*5}

    def dict_update():
        {**5}

    def merge():
        print(**5)

    def merge_twice():
        dict(**{"a": 1}, **{"a": 2})

    def star_call():
        print(*5)

    def bad_key():
        {[]: 1}

    def bad_set():
        {1, [], 2}

    def bad_key_in_comprehension():
        {[]: 1 for _ in range(1)}

    def bad_set_comprehension():
        {[] for _ in range(1)}

    def bad_slice():
        [1, 2]["a":]

    def bad_format():
        f"{5:zz}"

    def bad_del():
        del (1, 2)[0]

    for function in list(locals().values()):
        if isinstance(function, types.FunctionType) and function is not attempt:
            attempt(function)
    return out


@case
def operator_errors():
    out = []

    class Bad:
        def __bool__(self):
            raise ValueError("bool")

        def __len__(self):
            raise ValueError("len")

        def __iter__(self):
            raise ValueError("iter")

        def __contains__(self, item):
            raise ValueError("contains")

        def __eq__(self, other):
            raise ValueError("eq")

        def __neg__(self):
            raise ValueError("neg")

        def __getattr__(self, name):
            raise ValueError("getattr " + name)

        def __setattr__(self, name, value):
            raise ValueError("setattr " + name)

        def __delattr__(self, name):
            raise ValueError("delattr " + name)

        def __getitem__(self, key):
            raise ValueError("getitem")

        def __setitem__(self, key, value):
            raise ValueError("setitem")

        def __delitem__(self, key):
            raise ValueError("delitem")

        def __call__(self):
            raise ValueError("call")

        def __repr__(self):
            raise ValueError("repr")

    bad = Bad()

    def test_delete_attr():
        del bad.x

    def test_delete_item():
        del bad[0]

    def test_store_attr():
        bad.x = 1

    def test_store_item():
        bad[0] = 1

    def test_while():
        while bad:
            pass

    def test_while_not():
        while not bad:
            pass

    def test_for():
        for _ in bad:
            pass

    def test_match():
        match bad:
            case [1, 2]:
                pass
            case {"a": 1}:
                pass
            case Point(x=1):
                pass
            case 0:
                pass

    tests = [lambda: not bad, lambda: bad and 1, lambda: bad or 1, lambda: 1 if bad else 2, lambda: -bad]
    tests += [
        lambda: bad == 1,
        lambda: 1 in bad,
        lambda: bad.x,
        lambda: bad.m(),
        lambda: bad[0],
        lambda: bad(),
    ]
    tests += [
        lambda: f"{bad!r}",
        lambda: bad + 1,
        lambda: 1 + None,
        lambda: GLOBAL_NUMBER(2),
        lambda: [][5],
        lambda: {}["k"],
    ]
    tests += [
        test_delete_attr,
        test_delete_item,
        test_store_attr,
        test_store_item,
        test_while,
        test_while_not,
    ]
    tests += [test_for, test_match]
    for test in tests:
        try:
            out.append(("value", repr(test())))
        except Exception as error:
            out.append((type(error).__name__, str(error)))
    return out


def raise_deep(n):
    if n == 0:
        raise KeyError("deep", n)
    return [raise_deep(n - 1) for _ in (1,)][0] + (n)


@case
def uncaught_deep():
    return raise_deep(2)


@case
def uncaught_in_expression():
    a, b = 1, 0
    return a + (a * 2) / (b) + a


@case
def uncaught_in_with():
    with Manager([]) as log:
        log.append([1, 2][5])


@case
def uncaught_reraise():
    try:
        int("x")
    except ValueError:
        GLOBAL_NUMBER.missing_attribute


@case
def uncaught_finally():
    try:
        raise ValueError("body")
    finally:
        len(5)


@case
def uncaught_call():
    def f(a, *, b):
        return a

    return f(
        1,
        c=2,
    )


@case
def uncaught_generator():
    def g():
        yield 1
        yield {}["missing"]

    return sum(g())


@case
def uncaught_group():
    try:
        raise ExceptionGroup("g", [ValueError("v"), KeyError("k")])
    except* ValueError:
        pass


@case
def system_exit():
    sys.exit(3)
