"""One row of the soundness tables: a program and its calls; the compiled run must do what eager does."""

from __future__ import annotations

from tests.support import Call


class Row:
    """`expect` holds one letter per call (see tests.support); "" expects nothing of the counters."""

    def __init__(self, name: str, source: str, *calls: str | Call, expect: str = "") -> None:
        self.name, self.source, self.expect = name, source, expect
        self.calls = [c if isinstance(c, Call) else Call(c) for c in (calls or ("x", "x", "y", "x"))]
        assert not expect or len(expect) == len(self.calls), name
