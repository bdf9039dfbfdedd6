"""What the corpus files share: the list of cases, and a few classes used by several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

CASES: list[Callable[[], Any]] = []


def case(function: Callable[[], Any]) -> Callable[[], Any]:
    CASES.append(function)
    return function


GLOBAL_NUMBER = 3


class Point:
    __match_args__ = ("x", "y")

    def __init__(self, x, y):
        self.x = x
        self.y = y

    def __eq__(self, other):
        return isinstance(other, Point) and (self.x, self.y) == (other.x, other.y)

    def __getitem__(self, index):
        return (self.x, self.y)[index]

    def __len__(self):
        return 2

    def __bool__(self):
        return self.x != 0

    def __repr__(self):
        return f"Point({self.x!r}, {self.y!r})"

    @property
    def norm(self):
        return abs(self.x) + abs(self.y)

    def moved(self, dx=0, *, dy=0):
        return Point(self.x + dx, self.y + dy)


class Manager:
    def __init__(self, log, swallow=False):
        self.log = log
        self.swallow = swallow

    def __enter__(self):
        self.log.append("enter")
        return self.log

    def __exit__(self, kind, value, traceback):
        self.log.append(("exit", kind and kind.__name__, str(value), traceback is not None))
        return self.swallow
