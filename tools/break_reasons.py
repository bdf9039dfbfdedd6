"""Writes docs/reference/break_reasons.md from the tables of break reasons: python tools/break_reasons.py"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/reference/break_reasons.md"
TABLES = (
    ("csrc/record/breaks.def", "Reasons of the object side", "What the program does with objects."),
    (
        "csrc/record/graph_breaks.def",
        "Reasons of the operator side",
        "What tensor operators do. They show as `graph: <name>`.",
    ),
)
_ROW = re.compile(r'^X\((\w+),\s*("(?:[^"\\]|\\.)*"),\s*("(?:[^"\\]|\\.)*")\)', re.MULTILINE)
_HEAD = """\
# Why recordings break

A graph break ends a recording; the breaking instruction runs, and another recording goes on behind it
(`docs/design/breaks.md`). `flashpoint.explain(fn)(*args)` and `FLASHPOINT_LOG=break` name the reason of each.

Made by `tools/break_reasons.py` from the tables in `csrc/record`.
"""


def page() -> str:
    lines = [_HEAD]
    for path, title, text in TABLES:
        rows = _ROW.findall((ROOT / path).read_text())
        lines += [f"\n## {title}\n", f"{text}\n", "| reason | what happened | what to do |", "|---|---|---|"]
        lines += [
            f"| `{name}` | {ast.literal_eval(what)} | {ast.literal_eval(hint)} |" for name, what, hint in rows
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
