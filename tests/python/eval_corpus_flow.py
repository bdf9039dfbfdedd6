# ruff: noqa: B015, B016, B018, B021, B030, E714, F821, F841, UP003, UP032, UP037  (on purpose)
"""Corpus: exceptions, with, generators, coroutines, pattern matching.

To add one: write a deterministic function without arguments, decorated with @case.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
import types

from tests.python.eval_corpus_common import GLOBAL_NUMBER, Manager, Point, case


@case
def exceptions():
    log = []

    def risky(kind):
        try:
            try:
                if kind == 0:
                    raise ValueError("zero")
                if kind == 1:
                    raise KeyError
                if kind == 2:
                    1 / 0
                if kind == 3:
                    return "returned"
                log.append("body")
            except ValueError as error:
                log.append(str(error))
                raise TypeError("chained") from error
            except (KeyError, IndexError):
                log.append("key")
                raise
            else:
                log.append("else")
            finally:
                log.append("finally")
        except TypeError as error:
            return type(error.__cause__).__name__
        except ZeroDivisionError:
            try:
                raise
            except ZeroDivisionError as again:
                return str(again)
        except LookupError as error:
            return repr(error)
        return "end"

    return [risky(k) for k in range(5)], log


@case
def exception_context():
    try:
        try:
            raise ValueError("first")
        except ValueError:
            raise KeyError("second")  # noqa: B904
    except KeyError as error:
        context = error.__context__
        state = sys.exc_info()[1] is error
    return str(context), state, sys.exc_info()


@case
def raise_forms():
    out = []

    class Strange(Exception):
        def __new__(cls):
            return 5

    def attempt(function):
        try:
            function()
        except BaseException as error:
            out.append((type(error).__name__, str(error), repr(error.__cause__), error.__suppress_context__))

    def plain():
        raise Strange

    def not_exception():
        raise 5

    def bad_cause():
        raise ValueError from 5

    def none_cause():
        raise ValueError from None

    def class_cause():
        raise ValueError("v") from KeyError

    def nothing_active():
        raise

    def failing_assert():
        assert GLOBAL_NUMBER == 4, "three"

    def bad_except():
        try:
            raise ValueError("inner")
        except 5:
            pass

    def bad_except_tuple():
        try:
            raise ValueError("inner")
        except (KeyError, "x"):
            pass

    for function in (
        plain,
        not_exception,
        bad_cause,
        none_cause,
        class_cause,
        nothing_active,
        failing_assert,
    ):
        attempt(function)
    attempt(bad_except)
    attempt(bad_except_tuple)
    return out


@case
def with_statements():
    log = []
    with Manager(log) as inside:
        inside.append("body")
    with Manager(log, True):
        raise ValueError("swallowed")
    with contextlib.suppress(KeyError), Manager(log) as m, io.StringIO("t") as text:
        m.append(text.read())
        raise KeyError("out")

    def returns():
        with Manager(log):
            return "returned"

    log.append(returns())
    for manager in (5, types.SimpleNamespace(__enter__=1)):
        try:
            with manager:
                pass
        except TypeError as error:
            log.append(str(error))

    class OnlyEnter:
        def __enter__(self):
            return 1

    try:
        with OnlyEnter():
            pass
    except TypeError as error:
        log.append(str(error))
    return log


@case
def generators():
    log = []

    def counter(n):
        try:
            for i in range(n):
                got = yield i
                log.append(got)
        except ValueError as error:
            log.append(str(error))
            yield "caught"
        finally:
            log.append("closed")
        return "result"

    g = counter(3)
    out = [next(g), g.send("a"), g.throw(ValueError("thrown"))]
    try:
        next(g)
    except StopIteration as stop:
        out.append(stop.value)
    h = counter(5)
    out.append(next(h))
    h.close()
    out.append(sum(x for x in counter(4)))
    out.append([*counter(2)])
    unstarted = counter(1)
    try:
        unstarted.throw(KeyError("early"))
    except KeyError as error:
        out.append(repr(error))
    return out, log


@case
def yield_from():
    log = []

    def inner():
        try:
            got = yield 1
            log.append(got)
            yield 2
        except GeneratorExit:
            log.append("exit")
            raise
        except ValueError as error:
            log.append(str(error))
        return "inner done"

    def outer():
        result = yield from inner()
        log.append(result)
        yield from [10, 20]
        rest = yield from ()
        return rest

    out = list(outer())
    g = outer()
    out += [next(g), g.send("sent")]
    out.append(g.throw(ValueError("into")))
    g.close()
    h = outer()
    next(h)
    h.close()
    try:
        next(yield_from_coroutine())
    except TypeError as error:
        out.append(str(error))
    return out, log


def yield_from_coroutine():
    async def nothing():
        pass

    c = nothing()
    try:
        yield from c
    finally:
        c.close()


@case
def generator_errors():
    def stops():
        yield 1
        raise StopIteration("inside")

    def throws():
        yield 1
        raise KeyError("from generator")

    out = []
    for make in (stops, throws):
        try:
            for value in make():
                out.append(value)
        except Exception as error:
            out.append((type(error).__name__, str(error), repr(error.__cause__)))

    class Iterator:
        def __iter__(self):
            return self

        def __next__(self):
            out.append("next")
            if out.count("next") > 3:
                raise StopIteration
            return 1

    return out, [x for x in Iterator()]


@case
def asynchronous():
    log = []

    class Resource:
        async def __aenter__(self):
            log.append("aenter")
            return self

        async def __aexit__(self, *details):
            log.append(("aexit", details[0]))
            return True

    class Ticker:
        def __init__(self, n):
            self.n = n

        def __aiter__(self):
            return self

        async def __anext__(self):
            if self.n == 0:
                raise StopAsyncIteration
            self.n -= 1
            return self.n

    async def agen(n):
        for i in range(n):
            yield i
            await asyncio.sleep(0)

    class Awaitable:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            return "awaited"

    async def main():
        async with Resource():
            log.append("inside")
            raise ValueError("in async with")
        async for value in Ticker(2):
            log.append(value)
        async for value in agen(2):
            log.append(value)
        log.append([v async for v in agen(3) if v])
        log.append(await Awaitable())
        log.append(await asyncio.gather(leaf(1), leaf(2)))
        try:
            await 5
        except TypeError as error:
            log.append(str(error))
        try:
            async with 5:
                pass
        except TypeError as error:
            log.append(str(error))
        try:
            async for _ in 5:
                pass
        except TypeError as error:
            log.append(str(error))
        try:
            async for value in raising():
                log.append(value)
        except KeyError as error:
            log.append(repr(error))
        return "main"

    async def raising():
        yield 1
        raise KeyError("async")

    async def leaf(n):
        await asyncio.sleep(0)
        return n

    loop = asyncio.new_event_loop()
    try:
        log.append(loop.run_until_complete(main()))
    finally:
        loop.close()
    return log


@case
def exception_groups():
    log = []

    def attempt(error):
        try:
            try:
                raise error
            except* ValueError as group:
                log.append(("values", [str(e) for e in group.exceptions]))
            except* (KeyError, TypeError) as group:
                log.append(("keys", len(group.exceptions)))
                raise OSError("new") from None
        except BaseException as rest:
            log.append((type(rest).__name__, str(rest)))

    attempt(ExceptionGroup("g", [ValueError("1"), ValueError("2")]))
    attempt(ExceptionGroup("g", [ValueError("1"), KeyError("2"), OSError("3")]))
    attempt(ValueError("naked"))
    attempt(ZeroDivisionError("other"))
    return log


@case
def matching():
    def kind(subject):
        match subject:
            case 0 | 1:
                return "small"
            case str() as s if len(s) > 2:
                return "long " + s
            case str(s):
                return "short " + s
            case [x, y]:
                return ("pair", x, y)
            case [first, *rest]:
                return ("sequence", first, rest)
            case {"type": "a", "value": v}:
                return ("mapping", v)
            case {"type": t, **rest}:
                return ("other mapping", t, sorted(rest))
            case Point(0, y=y):
                return ("on axis", y)
            case Point(x=x, y=y):
                return ("point", x, y)
            case None:
                return "none"
            case _:
                return "nothing"

    subjects = [0, "ab", "abc", [1, 2], (1,), [1, 2, 3], {"type": "a", "value": 9}, {"type": "b", "q": 1}]
    subjects += [Point(0, 3), Point(2, 4), None, 2.5, {}, []]
    return [kind(s) for s in subjects]


@case
def matching_errors():
    class Odd:
        __match_args__ = ["x"]

    class Wrong:
        __match_args__ = (1,)

    out = []

    def attempt(function):
        try:
            out.append(function())
        except Exception as error:
            out.append((type(error).__name__, str(error)))

    def bad_args():
        match Odd():
            case Odd(1):
                return 1

    def bad_name():
        match Wrong():
            case Wrong(1):
                return 1

    def too_many():
        match Point(1, 2):
            case Point(1, 2, 3):
                return 1

    def twice():
        match Point(1, 2):
            case Point(1, x=2):
                return 1

    def not_class():
        five = 5
        match 5:
            case five():
                return five

    def missing():
        match types.SimpleNamespace(a=1):
            case types.SimpleNamespace(b=1):
                return "b"
            case types.SimpleNamespace(a=1):
                return "a"

    def duplicate_key():
        class Keys:
            a = "k"
            b = "k"

        match {"k": 1}:
            case {Keys.a: 1, Keys.b: 1}:
                return 1

    for function in (bad_args, bad_name, too_many, twice, not_class, missing, duplicate_key):
        attempt(function)
    return out
