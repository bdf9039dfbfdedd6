"""The demo and the benchmarks run, tell what they should, and notice a wrong result."""

from __future__ import annotations

import json

import pytest

from tests.models.expected import ONE_GRAPH

pytestmark = pytest.mark.slow


def test_demo(run_python) -> None:
    done = run_python("tools/demo.py", "--tiny", "--no-torch-compile", "--models", "vit,distilbert", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["model"] for row in rows] == ["vit", "distilbert"]
    for row in rows:
        assert row["failures"] == [] and row["calls"] == 6
        assert row["first"] > 0 and row["steady"] > 0 and row["torch_compile_first"] is None


def test_demo_beside_torch_compile(run_python) -> None:
    done = run_python("tools/demo.py", "--tiny", "--models", "vit", "--repeats", "1", "--rounds", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 models equal eager in every result" in done.stdout


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("result['last_hidden_state'] = result['last_hidden_state'] + 1e-3", "values differ"),
        ("raise RuntimeError('made to fail')", "RuntimeError: made to fail"),
    ],
)
def test_demo_notices_a_fault(run_python, fault: str, told: str) -> None:
    """Exit status 1 and a plain word when the compiled model's third call is wrong."""
    program = f"""
import sys
sys.argv = ["demo", "--tiny", "--no-torch-compile", "--models", "vit", "--repeats", "1"]
import flashpoint
from tools import demo

count = 0
def call(self, *args, **kwargs):
    global count
    count += 1
    result = self._orig_mod(*args, **kwargs)
    if count == 3:
        {fault}
    return result

flashpoint.OptimizedModule.__call__ = call
sys.exit(demo.main())
"""
    done = run_python("-c", program)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED: vit: " in done.stdout and told in done.stdout
    assert "0 of 1 models equal eager" in done.stdout


def test_demo_rejects_unknown_models(run_python) -> None:
    done = run_python("tools/demo.py", "--models", "bert,nothing")
    assert done.returncode == 2 and "unknown models: nothing" in done.stderr


def test_benchmarks(run_python) -> None:
    done = run_python("-m", "benchmarks", "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["benchmark"] for line in lines} >= {
        "first call",
        "steady call",
        "chain of adds, first call",
        "chain of adds, steady",
        "hit overhead",
        "peak memory of the first call",
        "leaks",
        "kernels",
        "first call in a new process",
    }
    for line in lines:
        assert line["environment"]["torch"].startswith("2.13.0")
        if line["benchmark"] == "first call in a new process":  # the second one recorded nothing
            assert line["captures"] == line["kernels"] == 0 and len(line["warm"]) == len(line["cold"]), line
        if "hits" in line and (line["benchmark"] != "steady call" or line["case"] in ONE_GRAPH):
            assert line["hits"] == line.get("calls", line.get("steps")), line  # compiled code really ran


def test_benchmarks_reject_unknown_names(run_python) -> None:
    done = run_python("-m", "benchmarks", "nothing")
    assert done.returncode == 2 and "unknown benchmarks: nothing" in done.stderr
