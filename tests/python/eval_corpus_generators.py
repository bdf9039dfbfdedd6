# ruff: noqa: B007, B012, B018, B904, SIM114  (on purpose)
"""Corpus: generators made, suspended, sent to, thrown into, closed, nested and held, and what surrounds them.

To add one: write a deterministic function without arguments, decorated with @case.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys

from tests.python.eval_corpus_common import Manager, Point, case


def counting(log, n=3):
    for i in range(n):
        log.append(i)
        yield i * 2
    return n


@contextlib.contextmanager
def managed(log, swallow=False):
    log.append("enter")
    try:
        yield Point(len(log), 1)
    except KeyError as error:
        log.append(("caught", str(error), repr(sys.exc_info()[1])))
        if not swallow:
            raise RuntimeError("from the manager") from error
    finally:
        log.append("leave")


@case
def generator_depth_four():
    log = []

    def level(depth, start):
        if depth == 0:
            yield start
            log.append("bottom")
            return "done"
        for value in level(depth - 1, start + 1):
            received = yield value * depth
            log.append((depth, received))
        return (yield from counting(log, depth))

    out = []
    generator = level(4, 1)
    try:
        value = next(generator)
        while True:
            out.append(value)
            value = generator.send(len(out))
    except StopIteration as stop:
        out.append(stop.value)
    return out, log


@case
def generator_delegation_and_closures():
    log = []
    total = 0

    def inner(k):
        nonlocal total
        for i in range(k):
            total += i
            got = yield (i, total)
            if got:
                log.append(got)
        return total

    generator = delegating(inner, log)
    sent = itertools.cycle(["a", None])
    out = [next(generator)]
    with contextlib.suppress(StopIteration):
        while True:
            out.append(generator.send(next(sent)))
    return out, log, total


def delegating(inner, log):
    first = yield from inner(3)
    try:
        second = yield from (x * first for x in range(2))
    except (TypeError, AttributeError) as error:
        second = type(error).__name__
    log.append((first, second))
    return "out"


@case
def generator_finally_on_either_side():
    log = []

    def guarded(where):
        try:
            if where == "before":
                raise ValueError(where)
            yield "body"
            if where == "after":
                raise ValueError(where)
        except ValueError as error:
            log.append(str(error))
            yield "handler"
            if where == "after":
                raise KeyError("second") from error
        finally:
            log.append(("finally", repr(sys.exc_info()[1])))
            if where == "finally":
                raise IndexError("in finally")
        yield "rest"

    def walk(where):
        out = []
        try:
            for value in guarded(where):
                out.append((value, repr(sys.exc_info()[1])))
        except (LookupError, ValueError) as error:
            out.append((type(error).__name__, str(error), repr(error.__context__), repr(error.__cause__)))
            trace = error.__traceback__
            while trace is not None:
                out.append(
                    (trace.tb_frame.f_code.co_name, trace.tb_lineno - trace.tb_frame.f_code.co_firstlineno)
                )
                trace = trace.tb_next
        return out

    return [walk(where) for where in ("none", "before", "after", "finally")], log


@case
def generator_thrown_and_closed():
    log = []

    def resisting():
        while True:
            try:
                yield len(log)
            except ValueError as error:
                log.append(("value", str(error)))
            except GeneratorExit:
                log.append("exit")
                return
            finally:
                log.append("step")

    generator = resisting()
    out = [next(generator), generator.throw(ValueError("one")), next(generator)]
    generator.close()
    out.append(list(generator))
    other = resisting()
    next(other)
    try:
        other.throw(KeyError("through"))
    except KeyError as error:
        out.append((str(error), error.__traceback__.tb_next is not None))
    third = resisting()
    third.close()
    try:
        next(third)
    except StopIteration as stop:
        out.append(stop.value)
    return out, log


@case
def generator_dies_half_way():
    log = []

    def holding(name):
        with Manager(log):
            try:
                yield name
                yield "more"
            finally:
                log.append(("dying", name))

    for value in holding("loop"):
        log.append(value)
        break
    log.append("after the loop")
    generator = holding("held")
    log.append(next(generator))
    del generator
    log.append("after del")
    pair = [holding("a"), holding("b")]
    log.append([next(g) for g in pair])
    pair.clear()
    log.append("after clear")
    return log


@case
def generator_managers():
    log = []
    out = []
    with managed(log) as point:
        out.append(point)
    for swallow in (False, True):
        try:
            with managed(log, swallow) as point, Manager(log):
                out.append(point.norm)
                raise KeyError("body")
        except RuntimeError as error:
            out.append((str(error), repr(error.__cause__), repr(error.__context__)))
    with contextlib.ExitStack() as stack:
        points = [stack.enter_context(managed(log)) for _ in range(2)]
        out.append([p.x for p in points])
    return out, log


@case
def generator_recursion():
    log = []

    class Tree:
        def __init__(self, value, *kids):
            self.value = value
            self.kids = kids

        def __iter__(self):
            log.append(self.value)
            yield self.value
            for kid in self.kids:
                yield from kid

    def hanoi(n, a, b, c):
        if n:
            yield from hanoi(n - 1, a, c, b)
            yield a + c
            yield from hanoi(n - 1, b, a, c)

    def permutations(items):
        if not items:
            yield ()
        for i, item in enumerate(items):
            for rest in permutations(items[:i] + items[i + 1 :]):
                yield (item, *rest)

    tree = Tree(1, Tree(2, Tree(3)), Tree(4))
    return list(tree), sum(tree), list(hanoi(3, "a", "b", "c")), list(permutations([1, 2, 3])), log


@case
def generator_in_containers():
    log = []
    first, second = counting(log), counting(log, 5)
    table = {"first": first, "both": [first, second]}
    out = [next(table["first"]), next(second)]
    out.append([next(g) for g in table["both"]])
    alias = table["both"][0]
    out += [alias is first, next(alias), next(first, "end"), list(table["both"][1])]
    own = []
    looped = (own.append(x) or x for x in (lambda: iter([1, 2, 3]))())
    own.append(next(looped))
    return out, own[:2], log, list(looped), len(own)


@case
def generator_comprehensions():
    log = []
    k = 2
    rows = [[x * y + k for y in counting(log, 2)] for x in range(3)]
    table = {x: tuple(y for y in range(x) if y % 2) for x in counting(log)}
    chosen = {y for row in rows for y in row if y > 2}
    lazy = (a + b for a, b in zip(counting(log), counting(log, 4), strict=False))
    k = 5
    total = sum(v * k for v in lazy)
    flags = any(x > 3 for x in counting(log)), all(x < 3 for x in counting(log))
    ordered = sorted((Point(x, 1) for x in counting(log)), key=lambda p: -p.x)
    joined = ",".join(str(x) for x in counting(log, 2))
    reduced = functools.reduce(lambda a, b: a * 10 + b, (x for x in counting(log, 3)))
    return rows, table, sorted(chosen), total, flags, ordered, joined, reduced, log


@case
def generator_state_is_seen():
    def steps():
        a = 1
        yield a
        b = a + 1
        yield b

    generator = steps()
    out = [generator.gi_running, generator.gi_frame is not None, generator.gi_code.co_name]
    next(generator)
    out.append(sorted(generator.gi_frame.f_locals.items()))
    out.append(generator.gi_frame.f_lineno - generator.gi_code.co_firstlineno)
    next(generator)
    out.append(sorted(generator.gi_frame.f_locals.items()))
    out.append(list(generator))
    out += [generator.gi_frame, generator.gi_running, generator.gi_yieldfrom]

    def me():
        try:
            next(holder[0])
        except ValueError as error:
            yield str(error)
        yield holder[0].gi_running

    holder = [me()]
    out += list(holder[0])
    return out


@case
def generator_under_a_handler():
    log = []

    def inner():
        log.append(repr(sys.exc_info()[1]))
        try:
            raise KeyError("inner")
        except KeyError:
            yield repr(sys.exc_info()[1])
            log.append(repr(sys.exc_info()[1]))
        yield repr(sys.exc_info()[1])
        raise

    out = []
    try:
        try:
            raise ValueError("outer")
        except ValueError:
            generator = inner()
            out.append(next(generator))
            out.append(repr(sys.exc_info()[1]))
            out.append(next(generator))
            next(generator)
    except ValueError as error:
        out.append((str(error), repr(error.__context__)))
        out.append([t.tb_frame.f_code.co_name for t in traces(error)])
    return out, log


def traces(error):
    trace = error.__traceback__
    while trace is not None:
        yield trace
        trace = trace.tb_next


@case
def generator_error_leaves():
    def bad(n):
        yield n
        raise LookupError(f"n = {n}")

    def relay(n):
        with contextlib.suppress(ZeroDivisionError):
            yield from bad(n)

    return sum(relay(3))


@case
def generator_stop_iteration_becomes_runtime_error():
    def bad():
        yield 1
        raise StopIteration("inside")

    return list(bad())


@case
def generator_exit_ignored():
    def stubborn():
        for i in range(2):
            try:
                yield i
            except GeneratorExit:
                pass

    generator = stubborn()
    next(generator)
    try:
        generator.close()
    except RuntimeError as error:
        return str(error), list(generator)
