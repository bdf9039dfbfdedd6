"""CPython's tests as compiled functions: `python -P -m tests.cpython_recorded test_dict` tells what differs.

Each method that passes three times as it is has to pass three times compiled, for new instances of its class
and for one: the first call records, the others replay what the recording kept.
"""

from __future__ import annotations

import importlib
import os
import sys
import unittest
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import flashpoint

# Seconds each under a recorder, or a process of their own: they collect garbage in a loop, or start threads.
HEAVY = {
    "test_bug7466",
    "test_trashcan_recursion",
    "testFsum",
    "test_gc_doesnt_blowup",
    "test_free_after_iterating",
}


def methods_of(module: str) -> Iterator[tuple[type[unittest.TestCase], str, Callable[..., Any]]]:
    """The plain test methods: neither doctests nor coroutines or generators."""
    pending: list[Any] = [unittest.defaultTestLoader.loadTestsFromModule(importlib.import_module(module))]
    while pending:
        item = pending.pop()
        if isinstance(item, unittest.TestSuite):
            pending.extend(item)
            continue
        name = item._testMethodName
        method = getattr(type(item), name, None)
        code = getattr(method, "__code__", None)
        if code is not None and name not in HEAVY and name.startswith("test") and not code.co_flags & 0x2A0:
            yield type(item), name, method


def failures(cls: type[unittest.TestCase], name: str, method: Callable[..., Any], once: bool) -> list[str]:
    """What three runs raise."""
    found = []
    case = cls(name)
    for _ in range(3):
        if not once:
            case = cls(name)
        try:
            case.setUp()
            try:
                method(case)
            finally:
                case.tearDown()
                case.doCleanups()
        except BaseException as error:
            found.append(f"{type(error).__name__}: {str(error)[:200]}")
    return found


def main(module: str) -> None:
    warnings.simplefilter("ignore")
    out = os.fdopen(os.dup(1), "w")  # tests replace, and print to, what is there
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    compared = 0
    ready: set[type] = set()
    for cls, name, method in methods_of(f"test.{module}"):
        if cls not in ready:
            ready.add(cls)
            cls.setUpClass()
        if failures(cls, name, method, False):
            continue
        compared += 1
        for once in (False, True):
            compiled = flashpoint.compile(method, backend="eager")
            for failure in failures(cls, name, compiled, once)[:1]:
                print("differs", f"{cls.__name__}.{name}", failure.splitlines()[0], file=out)
    told = flashpoint.counters()
    print("compared", compared, "hits", told["hits"], "internal errors", told["internal_errors"], file=out)
    out.flush()
    os._exit(0)  # whatever the tests left behind


if __name__ == "__main__":
    main(sys.argv[1])
