"""tests.isolate: whatever a test does to its process, the others run and the run ends."""

from __future__ import annotations

import re

import pytest

TESTS = """
import os, signal, time

def test_passes(): pass
def test_fails(): assert 1 == 2
def test_dies(): os.kill(os.getpid(), signal.SIGKILL)
def test_exits(): os._exit(3)
def test_leaves_a_process():
    if os.fork() == 0:
        time.sleep(3600)
        os._exit(0)
def test_passes_too(): pass
"""


@pytest.mark.slow
def test_tests_that_die_and_leave_processes(tmp_path, run_python) -> None:
    (tmp_path / "test_given.py").write_text(TESTS)
    done = run_python(
        "-m",
        "pytest",
        "-p",
        "tests.isolate",
        "-rA",
        "--rootdir",
        str(tmp_path),
        "-c",
        "/dev/null",
        str(tmp_path),
    )
    verdicts = re.findall(r"^(PASSED|FAILED) \S+::test_(\w+)", done.stdout, re.MULTILINE)
    assert sorted(verdicts) == [
        ("FAILED", "dies"),
        ("FAILED", "exits"),
        ("FAILED", "fails"),
        ("PASSED", "leaves_a_process"),
        ("PASSED", "passes"),
        ("PASSED", "passes_too"),
    ], done.stdout + done.stderr
    assert "died of SIGKILL" in done.stdout and "ended with status 3" in done.stdout
