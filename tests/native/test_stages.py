"""Golden texts of the stages. A file holds a claim (#), a graph, and after `---` what each stage makes of it.

BLESS=1 rewrites the parts after the graph; read the difference before you keep it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flashpoint import _C

GOLDEN = sorted((Path(__file__).parents[1] / "text" / "native").glob("*.ir"))


def expected(source: str) -> str:
    head = source.split("---\n")[0]
    graph = _C._graph_parse("".join(line + "\n" for line in head.splitlines() if not line.startswith("#")))
    stages = graph.native_stages()
    parts = "".join(f"--- {name}\n{stages[name].rstrip()}\n" for name in ("lowered", "scheduled", "kernels"))
    return head + "---\n" + parts


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_golden(path):
    source = path.read_text()
    assert source.startswith("# "), "a golden file starts with what it claims"
    now = expected(source)
    if os.environ.get("BLESS") == "1":
        path.write_text(now)
    assert now == source, "BLESS=1 rewrites the file"


def test_golden_files_exist():
    assert len(GOLDEN) >= 8


def test_llvm_text():
    graph = _C._graph_parse(
        "graph f(%0: f32[64] cpu) {\n"
        "  %1 = aten.exp(%0) : f32[64] cpu\n"
        "  %2 = aten.add.Tensor(%1, wrap(1.0), alpha=1) : f32[64] cpu\n"
        "  return %2\n}\n"
    )
    text = graph.native_stages()["llvm"]
    assert "define void @kernel(ptr" in text and "x float>" in text
    assert "call" not in text.replace("call <", "") or "Sleef" not in text  # exp of float32 is inline
