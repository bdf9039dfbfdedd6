"""One row of the guard tables: a program, and exactly one thing that changes between its calls."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support import Call


@dataclass(frozen=True)
class Case:
    """`fn` is called twice in a first state, twice in a second, twice in the first again.

    The states differ by the arguments (`args2`) or by statements (`change`, taken back by `undo`).
    """

    name: str
    source: str
    args: str = "x"
    args2: str | None = None
    change: str = ""
    undo: str = ""
    same: bool = False  # the change may not show in the answer: eager gives the same
    hit: str = "H"  # h: the second call of a state must hit; H: if the first was kept; .: not expected

    def __post_init__(self) -> None:
        assert (self.args2 is None) != (self.change == ""), self.name
        assert bool(self.change) == bool(self.undo), self.name

    @property
    def calls(self) -> list[Call]:
        other = self.args if self.args2 is None else self.args2
        return [
            Call(self.args),
            Call(self.args),
            Call(other, pre=self.change),
            Call(other),
            Call(self.args, pre=self.undo),
            Call(self.args),
        ]

    @property
    def expect(self) -> str:
        return {"h": "kh.h.h", "H": ".H.H.H", ".": "......"}[self.hit]
