"""One entry of the peer's surface: a program that uses it, and what a recording makes of it."""

from __future__ import annotations

from tests.python.soundness.row import Row
from tests.support import Call


class Entry(Row):
    """name: the peer's handler or branch. function: what it is for. rule: ours, in words. note: why the program only
    touches it. peer: what torch.compile(fullgraph=True) does instead of one graph. `expect` with a k means that a
    recording is kept; no `expect`, that it breaks."""

    def __init__(
        self,
        name: str,
        function: str,
        source: str,
        *calls: str | Call,
        expect: str = "",
        rule: str = "",
        note: str = "",
        peer: str = "",
    ) -> None:
        super().__init__(name, source, *calls, expect=expect)
        self.function, self.rule, self.note, self.peer = function, rule, note, peer

    @property
    def recorded(self) -> bool:
        return "k" in self.expect


_HEAD = """\
# The torch surface, entry by entry

What `torch.compile` has a handler or a branch for, and what a recording makes of it. *Recorded*: the program of
the entry's test runs from an entry at its second call (what works below autograd: at its third), with eager's
results. *Breaks*: the recording ends before the call, with a reason; the program goes on eagerly. Most entries need no rule of their own, since the program
runs for real and their Python code is recorded like any other.

Made from the tables in `tests/python/torch_calls`, which `tests/python/test_torch_calls.py` runs.
"""


def _section(title: str, rows: list[Entry]) -> list[str]:
    lines = [f"\n## {title}\n", "| entry | for | | note |", "|---|---|---|---|"]
    for row in rows:
        status = "recorded" if row.recorded else "breaks"
        notes = "; ".join(text for text in (row.rule, row.note) if text)
        lines.append(f"| {row.name} | `{row.function}` | {status} | {notes} |")
    return lines


def reference_page() -> str:
    """docs/reference/torch_rules.md"""
    from tests.python.torch_calls import handlers, higher_order, managers

    titles = {
        "handlers": "Functions with a handler",
        "managers": "Context managers",
        "modes": "Modes and settings beside them",
        "higher order": "Higher-order operators",
    }
    lines = [_HEAD.rstrip("\n")]
    for table in (handlers, managers, higher_order):
        for name, rows in table.SECTIONS.items():
            lines += _section(titles[name], rows)
    return "\n".join(lines) + "\n"
