"""Run CPython's own test modules with every frame in the substitute evaluator, and compare.

Each module runs twice in subprocesses, once under the default evaluator and once under ours; a test whose
outcome differs is reported, and makes the exit status 1. Needs the interpreter's `test` package.

    python tools/cpython_tests.py                     # all of MODULES
    python tools/cpython_tests.py test_with test_set  # some
    python tools/cpython_tests.py --quick             # the ones pytest runs in its fast set
    python tools/cpython_tests.py --observe           # with events sent to an observer that checks them

The interpreted share is an estimate: CPython does not count its instructions, so a frame that was handed
over half way, or that never was ours (tracing, end of the C stack), is taken to have had as many
instructions outside the evaluator as an evaluated frame has on average:
share = instructions / (instructions + frames outside * instructions per evaluated frame).
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import dataclasses
import importlib.util
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

QUICK = """test_augassign test_contextlib test_extcall test_grammar test_keywordonlyarg test_named_expressions
test_opcodes test_patma test_super test_with""".split()

MODULES = """
test_abc test_array test_asyncgen test_augassign test_baseexception test_bdb test_binop test_bool
test_bytes test_builtin test_call test_class test_code test_collections test_compare test_contains
test_context test_contextlib test_copy test_coroutines test_dataclasses test_decorators test_defaultdict
test_deque test_descr test_dict test_dictcomps test_dictviews test_dis test_dynamic
test_dynamicclassattribute test_enum test_enumerate test_eof test_except_star test_exception_group
test_exception_hierarchy test_exception_variations test_exceptions test_extcall test_finalization
test_float test_format test_frame test_fstring test_funcattrs test_functools test_future test_gc
test_generator_stop test_generators test_genericclass test_genexps test_getopt test_global test_grammar
test_heapq test_import test_inspect test_int test_isinstance test_iter test_iterlen test_itertools
test_json test_keyword test_keywordonlyarg test_list test_listcomps test_metaclass test_module
test_named_expressions test_numeric_tower test_opcodes test_operator test_ordered_dict test_patma
test_pickle test_positional_only_arg test_pow test_property test_pyclbr test_raise test_range test_re
test_richcmp test_scope test_set test_setcomps test_signal test_slice test_sort test_stable_abi_ctypes
test_statistics test_string test_string_literals test_strtod test_structseq test_subclassinit test_super
test_symtable test_syntax test_sys test_sys_setprofile test_sys_settrace test_textwrap test_thread
test_threading test_threading_local test_traceback test_tuple test_type_comments test_types test_typing
test_unary test_unicode test_unittest test_unpack test_unpack_ex test_userdict test_userlist test_weakref
test_weakset test_with test_yield_from test_zipfile
""".split()

# Tests whose outcome is allowed to differ: (module, part of the test's name) -> why.
_SPECIALIZES = "asserts that running code rewrites it; the evaluator specializes nothing"
KNOWN_DIFFERENCES = {
    ("test_dis", "specialize"): _SPECIALIZES,
    ("test_dis", "test_loop_quicken"): _SPECIALIZES,
    ("test_dis", "test_show_caches"): _SPECIALIZES,
    ("test_dis", "test_super_instructions"): _SPECIALIZES,
}

TIMEOUT_SECONDS = 600


@dataclasses.dataclass
class Comparison:
    module: str
    tests: int = 0
    differences: list[str] = dataclasses.field(default_factory=list)
    share: float = 1.0
    instructions: int = 0
    outside: int = 0
    seconds: tuple[float, float] = (0.0, 0.0)
    note: str = ""


def run_module(module: str, observe: bool) -> dict:
    """Run one test module in this process; what became of each test, by its name.

    observe: the main thread's frames run with the checking observer, and what it complains of is reported.
    """
    import unittest

    from flashpoint import _C

    outcomes: dict[str, str] = {}
    order = ["ok", "skipped", "expected failure", "unexpected success", "failure", "error"]

    def note(test, what):
        # A name may repeat (subtests); the worst outcome stays.
        outcomes[str(test)] = max(outcomes.get(str(test), "ok"), what, key=order.index)

    class Recorder(unittest.TestResult):
        def addSuccess(self, test):
            super().addSuccess(test)
            note(test, "ok")

        def addError(self, test, err):
            super().addError(test, err)
            note(test, "error")

        def addFailure(self, test, err):
            super().addFailure(test, err)
            note(test, "failure")

        def addSkip(self, test, reason):
            super().addSkip(test, reason)
            note(test, "skipped")

        def addExpectedFailure(self, test, err):
            super().addExpectedFailure(test, err)
            note(test, "expected failure")

        def addUnexpectedSuccess(self, test):
            super().addUnexpectedSuccess(test)
            note(test, "unexpected success")

        def addSubTest(self, test, subtest, err):
            super().addSubTest(test, subtest, err)
            if err is not None:
                note(test, "failure" if issubclass(err[0], test.failureException) else "error")

    before = _C._eval_counters()
    recorder = Recorder()
    started = time.perf_counter()
    problems: list[str] = []
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            suite = unittest.defaultTestLoader.loadTestsFromName(f"test.{module}")
            if observe:
                _C._eval_run(suite.run, (recorder,), observe="check")
                problems = _C._eval_observed()["problems"]
            else:
                suite.run(recorder)
        except unittest.SkipTest:
            outcomes["(module)"] = "skipped"
    seconds = time.perf_counter() - started
    after = _C._eval_counters()
    return {
        "outcomes": outcomes,
        "texts": {str(test): text for test, text in recorder.failures + recorder.errors},
        "seconds": seconds,
        "problems": problems,
        "counters": {name: after[name] - before[name] for name in after},
    }


def child(modules: list[str], evaluate: bool, observe: bool) -> None:
    """Run modules one after another; print their outcomes as JSON on the last line."""
    from test import support

    from flashpoint import _C

    support.use_resources = []
    if evaluate and not observe:
        _C._eval_everywhere(True)
    results = {module: run_module(module, observe) for module in modules}
    if evaluate and not observe:
        _C._eval_everywhere(False)
    sys.__stdout__.write("\n" + json.dumps(results) + "\n")
    sys.__stdout__.flush()
    os._exit(0)  # what the tests left running must not delay or change the report


def run_child(modules: list[str], evaluate: bool, observe: bool = False) -> dict[str, dict]:
    environment = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONHASHSEED="0", FLASHPOINT_RECORDINGS="0")
    command = (
        [sys.executable, __file__, "--child", *modules] + ["--evaluate"] * evaluate + ["--observe"] * observe
    )
    with tempfile.TemporaryDirectory() as directory:
        try:
            done = subprocess.run(
                command,
                cwd=directory,
                env=environment,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            return {module: {"failed": f"no end after {TIMEOUT_SECONDS} s"} for module in modules}
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        text = f"exit status {done.returncode}: {done.stderr[-2000:]}"
        return {module: {"failed": text} for module in modules}


def compare(modules: list[str], observe: bool = False) -> list[Comparison]:
    """Run the modules, together in one process per evaluator, and compare them."""
    default = run_child(modules, evaluate=False)
    mine = run_child(modules, evaluate=True, observe=observe)
    return [compare_one(module, default[module], mine[module]) for module in modules]


def known_difference(module: str, test: str) -> bool:
    return any(module == where and part in test for where, part in KNOWN_DIFFERENCES)


def compare_one(module: str, default: dict, mine: dict) -> Comparison:
    result = Comparison(module)
    if "failed" in default:
        result.note = "not comparable: default evaluator: " + default["failed"].splitlines()[0]
        return result
    if "failed" in mine:
        result.differences.append("evaluator: " + mine["failed"])
        return result
    result.tests = len(default["outcomes"])
    for test in sorted(default["outcomes"].keys() | mine["outcomes"].keys()):
        expected = default["outcomes"].get(test, "absent")
        got = mine["outcomes"].get(test, "absent")
        if expected != got and not known_difference(module, test):
            result.differences.append(f"{test}: {expected} -> {got}\n{mine['texts'].get(test, '')}")
    result.differences += [f"observer: {text}" for text in mine["problems"]]
    counters = mine["counters"]
    result.instructions = counters["instructions"]
    result.outside = counters["frames_handed_over"] + counters["frames_passed"]
    mean = counters["instructions"] / max(1, counters["frames_evaluated"])
    result.share = counters["instructions"] / max(1.0, counters["instructions"] + result.outside * mean)
    result.seconds = (default["seconds"], mine["seconds"])
    return result


def available() -> bool:
    return importlib.util.find_spec("test.test_grammar") is not None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--observe", action="store_true", help="evaluate with the checking observer")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--evaluate", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.modules, options.evaluate, options.observe)
        return 0
    if not available():
        print("the interpreter has no `test` package", file=sys.stderr)
        return 2
    modules = options.modules or (QUICK if options.quick else MODULES)
    modules = [m for m in modules if importlib.util.find_spec(f"test.{m}") is not None]
    worst = 0
    total = Comparison("total")
    weighted = 0.0
    print(f"{'module':32}{'tests':>7}{'differ':>7}{'share':>9}{'outside':>9}{'default':>9}{'evaluator':>10}")
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for [result] in pool.map(lambda module: compare([module], options.observe), modules):
            print(
                f"{result.module:32}{result.tests:7}{len(result.differences):7}{result.share:9.2%}"
                f"{result.outside:9}{result.seconds[0]:8.1f}s{result.seconds[1]:9.1f}s  {result.note}",
                flush=True,
            )
            for difference in result.differences:
                print("    " + difference.replace("\n", "\n    "), flush=True)
                worst = 1
            total.tests += result.tests
            total.differences += result.differences
            total.instructions += result.instructions
            weighted += result.instructions / max(result.share, 1e-9)
    share = total.instructions / max(1.0, weighted)
    print(f"{'total':32}{total.tests:7}{len(total.differences):7}{share:9.2%}   {len(modules)} modules")
    return worst


if __name__ == "__main__":
    sys.exit(main())
