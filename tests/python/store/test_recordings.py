"""Recordings in the store: a new process uses what another one recorded, and only where it is right.

All cases of recordings_cases.py run in one process, and, with their changes, in a second one with another seed
of hashes, which finds the first one's store. Whatever happens, results and effects are those of eager mode.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import flashpoint
from tests.python.store.recordings_cases import CASES, Case

CHILD = Path(__file__).with_name("recordings_child.py")


def run_cases(folder: Path, cache: Path, names: list[str], seed: int, **env: str) -> dict[str, Any]:
    """What each case came to; a case that ends its process has the text of its end instead."""
    results: dict[str, Any] = {}
    path = [str(Path(flashpoint.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    while len(results) < len(names):
        left = [name for name in names if name not in results]
        done = subprocess.run(
            [sys.executable, str(CHILD), str(folder), *left],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, path)),
                "PYTHONHASHSEED": str(seed),
                "FLASHPOINT_CACHE_DIR": str(cache),
                "FLASHPOINT_RECORDINGS": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
                **env,
            },
            capture_output=True,
            text=True,
            timeout=600,
        )
        rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        assert rows or done.returncode != 0, done.stdout
        results |= {row["name"]: row for row in rows}
        if done.returncode != 0 and len(rows) < len(left):
            results[left[len(rows)]] = {"crash": done.stderr[-4000:]}
    return results


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What all cases came to in the first and in the second process."""
    base = tmp_path_factory.mktemp("recordings")
    for which in ("first", "second"):
        (base / which).mkdir()
        for case in CASES:
            source = case.source if which == "first" else case.changed()
            (base / which / f"case_{case.name}.py").write_text(
                source, encoding="utf-8", errors="surrogatepass"
            )
    names = [f"case_{case.name}" for case in CASES]
    first = run_cases(base / "first", base / "cache", names, 1)
    second = run_cases(base / "second", base / "cache", names, 2)
    return first, second


def counted(row: dict[str, Any], name: str) -> int:
    return sum(call.get(name, 0) for call in row["counts"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_second_process(case: Case, outcomes: tuple[dict[str, Any], dict[str, Any]]) -> None:
    first, second = (rows[f"case_{case.name}"] for rows in outcomes)
    for row in (first, second):
        assert "crash" not in row, row["crash"]
        assert row["equal"], row["seen"]
    assert counted(first, "entries_loaded") == 0
    lines = "\n".join(second["report"])
    if case.expect == "hit":
        assert counted(second, "captures_started") == 0, (second["counts"], lines)
        assert counted(second, "hits") == len(second["counts"]), (second["counts"], lines)
        # Every part of every call, where there are breaks.
        answers = counted(second, "hits") + counted(second, "resume_hits")
        assert counted(second, "precompile_hits") == answers, (second["counts"], lines)
    elif case.expect == "miss":
        assert counted(first, "captures_kept") > 0
        assert counted(second, "entries_loaded") == 0, (second["counts"], lines)
    elif case.expect == "part":
        assert counted(second, "precompile_hits") > 0, (second["counts"], lines)
        assert counted(second, "captures_started") > 0, (second["counts"], lines)
    elif case.expect == "local":
        assert any("stays in this process" in line and case.reason in line for line in first["report"]), first
    if case.expect in ("miss", "part") and case.reason:
        assert case.reason in lines, lines


MODEL = """
import torch
from tools.models import build
def make():
    make_model, make_inputs = build({name!r}, tiny=True)
    return make_model(), [({{'**': 1, **make_inputs(0)}},), ({{'**': 1, **make_inputs(1)}},)]
"""


@pytest.mark.slow
def test_models_are_warm(tmp_path: Path) -> None:
    """Transformers models: the second process records nothing, and the results are eager's."""
    names = ["bert", "gpt2", "vit", "llama"]
    for name in names:
        (tmp_path / f"case_{name}.py").write_text(MODEL.format(name=name))
    cases = [f"case_{name}" for name in names]
    path = str(Path(__file__).resolve().parents[3])
    rows = [run_cases(tmp_path, tmp_path / "cache", cases, seed, PYTHONPATH=path) for seed in (1, 2)]
    for name in cases:
        for row in (rows[0][name], rows[1][name]):
            assert "crash" not in row, row["crash"]
            assert row["equal"], row["seen"]
        assert counted(rows[0][name], "captures_kept") > 0
        assert counted(rows[1][name], "captures_started") == 0, rows[1][name]["report"]
        assert counted(rows[1][name], "precompile_hits") == 2
