"""One entry of the peer's surface: a program that uses it, and what a recording makes of it."""

from __future__ import annotations

from tests.python.soundness.row import Row
from tests.support import Call


class Entry(Row):
    """name: the peer's handler or branch. function: what it is for. rule: ours, in words. note: why the program only
    touches it. `expect` with a k means that a recording is kept; without one, that the recording breaks."""

    def __init__(
        self, name: str, function: str, source: str, *calls: str | Call, expect: str = "", rule: str = "", note: str = ""
    ) -> None:
        super().__init__(name, source, *calls, expect=expect)
        self.function, self.rule, self.note = function, rule, note
