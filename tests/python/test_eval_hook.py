"""The frame hook: arming, depth, threads, fork, tracing, signals, and other users of PEP 523."""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from flashpoint import _C


def evaluated(function, *args):
    """Result of the call, and how many frames it evaluated."""
    before = _C._eval_counters()["frames_evaluated"]
    result = _C._eval_run(function, args)
    return result, _C._eval_counters()["frames_evaluated"] - before


def run_python(source: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def depth(n):
    return 0 if n == 0 else 1 + depth(n - 1)


def test_hook_is_installed_only_while_armed():
    assert not _C._eval_installed()
    assert _C._eval_run(_C._eval_installed)
    assert not _C._eval_installed()


@pytest.mark.slow
@pytest.mark.parametrize("observe", ["", "check"])
def test_recursion_deeper_than_the_c_stack(observe):
    printed = run_python(f"""
        import sys, threading
        from flashpoint import _C
        sys.setrecursionlimit(200_000)
        def depth(n):
            return 0 if n == 0 else 1 + depth(n - 1)
        def both():
            first = depth(150_000)
            before = _C._eval_counters()["frames_evaluated"]
            depth(50)
            return first, _C._eval_counters()["frames_evaluated"] - before, _C._eval_installed()
        def run():
            print(_C._eval_run(both, observe={observe!r}), _C._eval_counters()["suspensions"])
        run()
        threading.stack_size(512 * 1024)
        thread = threading.Thread(target=run)
        thread.start(); thread.join()
        print(_C._eval_installed())
    """)
    if observe == "":
        assert printed.splitlines() == ["(150000, 51, True) 1", "(150000, 51, True) 2", "False"]
    else:  # the checking observer keeps its recording going, so later frames are evaluated too
        assert [line.split()[0] for line in printed.splitlines()] == ["(150000,", "(150000,", "False"]


def test_recursion_error_is_cpythons():
    def endless():
        return endless()

    def measure():
        try:
            endless()
        except RecursionError as error:
            count = 0
            traceback = error.__traceback__
            while traceback is not None:
                count += 1
                traceback = traceback.tb_next
            return str(error), count

    plain = measure()
    mine = _C._eval_run(measure)
    assert mine[0] == plain[0]
    assert abs(mine[1] - plain[1]) <= 1  # the call of _eval_run itself counts as one


def test_other_threads_are_left_alone():
    started, release = threading.Event(), threading.Event()
    seen = {}

    def other():
        started.wait()
        before = _C._eval_counters()["frames_evaluated"]
        depth(30)
        seen["evaluated"] = _C._eval_counters()["frames_evaluated"] - before
        release.set()

    thread = threading.Thread(target=other)
    thread.start()

    def armed():
        started.set()
        while not release.is_set():  # C calls only, no frames of our own
            time.sleep(0.001)

    # Event.is_set is a Python function: count only what lies between.
    _C._eval_run(lambda: (started.set(), time.sleep(0.05)))
    release.wait(10)
    thread.join()
    assert seen["evaluated"] == 0


def test_fork_clears_the_child():
    def program():
        child = os.fork()
        if child == 0:
            before = _C._eval_counters()["frames_evaluated"]
            depth(5)
            os._exit(7 if _C._eval_counters()["frames_evaluated"] == before else 8)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert evaluated(program)[0] == 7


def _trace_log(run, installer):
    log = []

    def note(frame, event, argument):
        if frame.f_code.co_filename == __file__:
            log.append((event, frame.f_code.co_name, frame.f_lineno, type(argument).__name__))
        return note

    def callee(n):
        if n > 2:
            raise ValueError(n)
        return n

    def program():
        total = 0
        for i in range(5):
            if i == 1:
                installer(note)
                sys._getframe().f_trace = note if installer is sys.settrace else None
            try:
                total += callee(i)
            except ValueError:
                total += 100
        installer(None)
        return total + callee(1)

    result = run(program)
    return result, log


@pytest.mark.parametrize("installer", [sys.settrace, sys.setprofile])
def test_tracing_switched_on_in_the_middle(installer):
    default = _trace_log(lambda program: program(), installer)
    mine = _trace_log(_C._eval_run, installer)
    assert mine == default
    assert len(default[1]) > 8


def test_tracing_switched_on_by_the_instruction_that_raises():
    def log_of(run):
        log = []

        def note(frame, event, argument):
            log.append((event, frame.f_code.co_name, frame.f_lineno))
            return note

        def starts_and_raises():
            outer = sys._getframe(1)
            outer.f_trace = note
            sys.settrace(note)
            raise KeyError("from callee")

        def no_handler():
            starts_and_raises()

        def program():
            try:
                no_handler()
            except KeyError:
                result = "handled"
            sys.settrace(None)
            return result

        return run(program), log

    assert log_of(_C._eval_run) == log_of(lambda program: program())


class Interrupt(Exception):
    pass


def _loop_forever():
    while True:
        pass


def _loop_conditional():
    n = 1
    while n:
        n += 1


def _loop_for():
    for _ in itertools.repeat(None):
        pass


def _loop_not_none():
    value = 1
    while value is not None:
        value = 2


def _loop_calls():
    identity = abs
    while True:
        identity(1)


def _loop_generator():
    def endless():
        while True:
            yield 1

    for _ in endless():
        pass


@pytest.mark.parametrize(
    "loop", [_loop_forever, _loop_conditional, _loop_for, _loop_not_none, _loop_calls, _loop_generator]
)
def test_signals_interrupt_loops(loop):
    frames = []

    def handler(number, frame):
        frames.append(frame.f_code.co_name)
        raise Interrupt

    old = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(Interrupt):
            _C._eval_run(loop)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert frames[0] in (loop.__name__, "endless")


def test_exception_from_another_thread():
    caught = []
    running = threading.Event()

    def victim():
        def spin():
            running.set()
            while True:
                pass

        try:
            _C._eval_run(spin)
        except Interrupt:
            caught.append(True)

    thread = threading.Thread(target=victim)
    thread.start()
    running.wait()
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Interrupt))
    thread.join(20)
    assert caught == [True]


def test_the_gil_is_given_up():
    flags = {"stop": False}

    def stopper():
        time.sleep(0.02)
        flags["stop"] = True

    thread = threading.Thread(target=stopper)
    thread.start()

    def spin():
        turns = 0
        while not flags["stop"]:
            turns += 1
        return turns

    assert _C._eval_run(spin) > 0
    thread.join()


@pytest.mark.slow
def test_previous_hook_stays_in_use():
    printed = run_python("""
        import torch
        from flashpoint import _C
        calls = []
        def backend(graph, inputs):
            calls.append(len(list(graph.graph.nodes)))
            return graph.forward
        def f(x):
            return x + 1
        def helper():
            return 5
        x = torch.ones(2)
        compiled = torch.compile(f, backend=backend)
        # Dynamo's hook under ours, over ours, and alone again.
        a = _C._eval_run(lambda: compiled(x).sum().item())
        torch._dynamo.reset()
        b = compiled(x + 1).sum().item()
        before = _C._eval_counters()["frames_evaluated"]
        c = _C._eval_run(lambda: helper() + compiled(x + 2).sum().item())
        armed = _C._eval_counters()["frames_evaluated"] - before
        torch._dynamo.reset()
        d = compiled(x).sum().item()
        print(a, b, c, d, armed >= 2, len(calls) >= 2, _C._eval_installed())
    """)
    assert printed == "4.0 6.0 13.0 4.0 True True False"


def test_exec_and_class_bodies_are_evaluated():
    def program():
        namespace = {}
        exec("class K:\n    a = [i for i in range(3)]\nb = K.a", namespace)
        return namespace["b"]

    result, frames = evaluated(program)
    assert result == [0, 1, 2]
    assert frames == 4


UNSUPPORTED = 29  # Event::kUnsupported


def test_observer_sees_what_the_hook_cannot_evaluate():
    def generator():
        try:
            yield 1
        except KeyError:
            yield 2

    def program():
        resumed = generator()
        next(resumed)
        sys.settrace(lambda *details: None)
        try:
            return depth(2), resumed.throw(KeyError())
        finally:
            sys.settrace(None)

    assert _C._eval_run(program, observe="check") == (2, 2)
    report = _C._eval_observed()
    assert report["problems"] == []
    # The frame that called settrace, three of depth, the generator.
    assert report["events"][UNSUPPORTED] == 5


@pytest.mark.slow
def test_deep_recursion_of_an_unarmed_thread():
    printed = run_python("""
        import sys, threading
        from flashpoint import _C
        sys.setrecursionlimit(400_000)
        def depth(n):
            return 0 if n == 0 else 1 + depth(n - 1)
        results = []
        def other():
            for _ in range(3):
                results.append(depth(150_000))
        def armed():
            thread = threading.Thread(target=other)
            thread.start()
            rounds = 0
            while thread.is_alive():
                rounds += depth(20)
            thread.join()
            return rounds > 0, depth(150_000)
        print(_C._eval_run(armed), results, _C._eval_counters()["suspensions"] >= 4, _C._eval_installed())
    """)
    assert printed == "(True, 150000) [150000, 150000, 150000] True False"
