"""Recordings that several processes, a file, or a base layer share; and generated code beside them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import flashpoint

pytestmark = pytest.mark.slow  # several processes each

PROGRAM = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import torch
import flashpoint
from program import fn
torch.set_num_threads(1)
flashpoint.config.native_patience = int(os.environ.get("PATIENCE", "0"))
if sys.argv[2] == "import":
    flashpoint.store.load(sys.argv[3], key=sys.argv[4].encode() or None)
    sys.argv[2:] = sys.argv[5:]
compiled = flashpoint.compile(fn, backend=sys.argv[2], fullgraph="FULLGRAPH" in os.environ)
rows = []
for size in map(int, sys.argv[3].split(",")):
    x = torch.arange(float(size * 32)).reshape(size, 32)
    flashpoint.reset_counters()
    results = [compiled(x), compiled(x)]
    rows.append({
        "counts": {name: n for name, n in flashpoint.counters().items() if n},
        "equal": all(torch.allclose(result, fn(x)) for result in results),
    })
print(json.dumps([rows, flashpoint.store.explain_miss(compiled)]), flush=True)
if len(sys.argv) > 4:
    sys.stdin.readline()
    if sys.argv[4] != "exit":
        flashpoint._C._recordings_write()
        flashpoint.store.save(sys.argv[4], key=sys.argv[5].encode() or None)
"""
SOURCE = "import torch\ndef fn(x):\n    return torch.relu(x * 2 + 1).exp() / x.shape[0]\n"


class Process:
    """A process that calls the program, tells what happened, and waits before it ends if it is asked to."""

    def __init__(self, folder: Path, cache: Path, *args: str, source: str = SOURCE, **env: str) -> None:
        (folder / "program.py").write_text(source)
        path = [str(Path(flashpoint.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        self.child = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), *args],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, path)),
                "FLASHPOINT_CACHE_DIR": str(cache),
                "FLASHPOINT_RECORDINGS": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
                **env,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def rows(self) -> tuple[list[dict[str, Any]], list[str]]:
        assert self.child.stdout is not None
        rows, report = json.loads(self.child.stdout.readline())
        assert all(row["equal"] for row in rows), rows
        return rows, report

    def end(self) -> None:
        self.child.communicate("\n", timeout=60)
        assert self.child.returncode == 0


def run(
    folder: Path, cache: Path, *args: str, source: str = SOURCE, **env: str
) -> tuple[list[dict[str, Any]], list[str]]:
    process = Process(folder, cache, *args, source=source, **env)
    told = process.rows()
    process.end()
    return told


def captures(rows: list[dict[str, Any]]) -> list[int]:
    return [row["counts"].get("captures_started", 0) for row in rows]


def test_two_processes_that_write_at_once(tmp_path: Path) -> None:
    """Both had found nothing; what both recorded is there for the third."""
    cache = tmp_path / "cache"
    processes = [Process(tmp_path, cache, "eager", size, "exit") for size in ("3", "4")]
    for process in processes:
        rows, report = process.rows()
        assert captures(rows) == [1] and any("no record" in line for line in report), report
    for process in processes:
        process.end()
    rows, report = run(tmp_path, cache, "eager", "3,4")
    assert captures(rows) == [0, 0], report


def test_an_entry_out_of_date_is_not_kept(tmp_path: Path) -> None:
    """What is found to be of no use is not merged back when the process writes its own."""
    cache, helper = tmp_path / "cache", tmp_path / "helper.py"
    source = "import torch, helper\ndef fn(x):\n    return helper.f(x)\n"
    for body, expected in (("x * 2", 1), ("x * 3", 1), ("x * 3", 0)):
        helper.write_text(f"def f(x):\n    return {body}\n")
        rows, report = run(tmp_path, cache, "eager", "3", source=source)
        assert captures(rows) == [expected], report
    assert entries_of(cache) == 1


@pytest.mark.parametrize("key", ["", "secret"])
def test_saved_and_loaded(tmp_path: Path, key: str) -> None:
    """A signed file serves another store; one without a signature does not: what it says is not checked."""
    file = str(tmp_path / "records")
    run(tmp_path, tmp_path / "first", "eager", "3", file, key)
    rows, report = run(tmp_path, tmp_path / "second", "import", file, key, "eager", "3")
    assert captures(rows) == [0 if key else 1], report
    assert key or any("without a signature" in line for line in report)


def test_base_layer(tmp_path: Path) -> None:
    """A file that came with the installation, this user's or root's, serves without a store of one's own."""
    file = tmp_path / "records"
    run(tmp_path, tmp_path / "first", "eager", "3", str(file), "")
    rows, report = run(tmp_path, tmp_path / "second", "eager", "3", FLASHPOINT_CACHE_BASE=str(file))
    assert captures(rows) == [0], report
    file.chmod(0o666)  # anybody could have written it
    rows, report = run(tmp_path, tmp_path / "third", "eager", "3", FLASHPOINT_CACHE_BASE=str(file))
    assert captures(rows) == [1], report


BROKEN = "import torch, os\ndef fn(x):\n    y = x * 2 + 1\n    os.getpid()\n    return torch.relu(y) + 1\n"


def test_frames_of_a_base_layer(tmp_path: Path) -> None:
    """What is restored in frames is taken like code: from this user's processes, or signed."""
    file = str(tmp_path / "records")
    run(tmp_path, tmp_path / "first", "eager", "3", file, "", source=BROKEN)
    rows, report = run(tmp_path, tmp_path / "first", "eager", "3", source=BROKEN)
    assert captures(rows) == [0] and rows[0]["counts"]["resume_hits"] == 2, (rows, report)
    rows, report = run(tmp_path, tmp_path / "second", "eager", "3", source=BROKEN, FLASHPOINT_CACHE_BASE=file)
    assert captures(rows) == [2], report
    assert any("without a signature" in line for line in report), report


def test_limits(tmp_path: Path) -> None:
    """What was loaded is no recompilation, behind a break either."""
    source = "import flashpoint, os\nflashpoint.config.recompile_limit = int(os.environ['LIMIT'])\n" + BROKEN
    run(tmp_path, tmp_path / "cache", "eager", "3,4,5", source=source, LIMIT="8")
    rows, report = run(tmp_path, tmp_path / "cache", "eager", "3,4,5", source=source, LIMIT="1")
    assert captures(rows) == [0, 0, 0], report
    assert all(row["counts"]["hits"] == 2 for row in rows), rows
    assert not any("recompile_limits_reached" in row["counts"] for row in rows), rows
    # The first one of its own is not one too many.
    rows, report = run(tmp_path, tmp_path / "cache", "eager", "3,6", source=source, LIMIT="1")
    assert captures(rows) == [0, 2] and rows[1]["counts"]["hits"] == 1, (rows, report)


def test_fullgraph(tmp_path: Path) -> None:
    """A function that must have no break takes no entry that ends at one."""
    run(tmp_path, tmp_path / "cache", "eager", "3", source=BROKEN)
    process = Process(tmp_path, tmp_path / "cache", "eager", "3", source=BROKEN, FULLGRAPH="1")
    assert process.child.stdout is not None and process.child.stdout.readline() == ""
    assert process.child.wait(timeout=60) != 0
    rows, report = run(tmp_path, tmp_path / "cache", "eager", "3", FULLGRAPH="1")
    rows, report = run(tmp_path, tmp_path / "cache", "eager", "3", FULLGRAPH="1")
    assert captures(rows) == [0], report


def test_generated_code(tmp_path: Path) -> None:
    """The native backend's code is there for the next process, which generates none."""
    rows, _ = run(tmp_path, tmp_path / "cache", "native", "3")
    assert rows[0]["counts"]["kernels_compiled"] > 0
    rows, report = run(tmp_path, tmp_path / "cache", "native", "3")
    assert captures(rows) == [0], report
    counts = rows[0]["counts"]
    assert (
        counts.get("kernels_compiled", 0) == 0 and counts["kernels_reused"] > 0 and counts["kernels_run"] == 2
    )


def test_generated_code_need_not_pay(tmp_path: Path) -> None:
    """Patience is for code that has to be generated: what the store has is used from the first replay on."""
    rows, _ = run(tmp_path, tmp_path / "fresh", "native", "3", PATIENCE="10000")
    assert "kernels_run" not in rows[0]["counts"]
    run(tmp_path, tmp_path / "cache", "native", "3")
    rows, report = run(tmp_path, tmp_path / "cache", "native", "3", PATIENCE="10000")
    assert captures(rows) == [0], report
    assert rows[0]["counts"]["kernels_run"] == 2 and "kernels_compiled" not in rows[0]["counts"]


def test_generated_code_is_for_one_kind_of_machine(tmp_path: Path) -> None:
    """Code for wider vectors is not what a process with narrower ones finds."""
    run(tmp_path, tmp_path / "cache", "native", "3")
    rows, _ = run(tmp_path, tmp_path / "cache", "native", "3", FLASHPOINT_NATIVE_ISA="sse")
    assert rows[0]["counts"]["kernels_compiled"] > 0


def test_generated_code_of_others(tmp_path: Path) -> None:
    """Code from a base layer, which nobody signed, is generated again."""
    file = str(tmp_path / "records")
    run(tmp_path, tmp_path / "first", "native", "3", file, "")
    rows, report = run(tmp_path, tmp_path / "second", "native", "3", FLASHPOINT_CACHE_BASE=file)
    assert captures(rows) == [0], report
    assert rows[0]["counts"]["kernels_compiled"] > 0


def entries_of(cache: Path) -> int:
    """How many entries the only record of the store has."""
    script = (
        "import struct\nfrom flashpoint import _C\nstore = _C._store_shared()\n"
        "parts = [row['parts'] for row in store.list() if row['parts'].get('kind') == 'recording']\n"
        "assert len(parts) == 1\nprint(struct.unpack_from('<II', store.get(parts[0])['payload'])[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={
            **os.environ,
            "FLASHPOINT_CACHE_DIR": str(cache),
            "PYTHONPATH": str(Path(flashpoint.__file__).parents[1]),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)
