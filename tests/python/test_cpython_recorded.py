"""CPython's own tests, recorded and replayed: see tests/cpython_recorded.py."""

from __future__ import annotations

import re
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

from tests.python.test_eval_cpython import cpython_tests

pytestmark = pytest.mark.skipif(not cpython_tests.available(), reason="no `test` package")

QUICK = ("test_copy", "test_dict", "test_list")
MODULES = tuple(
    f"test_{name}"
    for name in """
    baseexception bool class collections contextlib dataclasses defaultdict deque descr dictcomps enum
    except_star exception_group exception_variations exceptions float funcattrs functools generators grammar
    int iter itertools operator ordered_dict patma raise range scope set slice sort string super tuple
    userdict userlist with
    """.split()
)
# A cycle that is garbage at the break is held by the recording until the instruction behind it has run.
KNOWN = {
    "FinalizationTest.test_refcycle",
    "PurePythonOrderedDictTests.test_reference_loop",
    "PurePythonOrderedDictSubclassTests.test_reference_loop",
}


def check(module: str, run_python: Callable[..., CompletedProcess[str]]) -> None:
    result = run_python("-P", "-m", "tests.cpython_recorded", module)
    assert result.returncode == 0, result.stderr[-2000:]
    lines = result.stdout.splitlines()
    differing = [line for line in lines if line.startswith("differs") and line.split()[1] not in KNOWN]
    assert differing == []
    told = re.fullmatch(r"compared (\d+) hits (\d+) internal errors (\d+)", lines[-1])
    assert told is not None
    compared, hits, errors = map(int, told.groups())
    assert compared > 0 and hits > 0 and errors == 0


@pytest.mark.slow
@pytest.mark.parametrize("module", QUICK)
def test_quick_module(module: str, run_python: Callable[..., CompletedProcess[str]]) -> None:
    check(module, run_python)


@pytest.mark.sweep
@pytest.mark.parametrize("module", MODULES)
def test_module(module: str, run_python: Callable[..., CompletedProcess[str]]) -> None:
    check(module, run_python)
