"""What a case of a stored recording is; the rows are in recordings_cases.py and recordings_break_cases.py."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """source: the module. old, new: what the second process finds otherwise. expect: see recordings_cases.py."""

    name: str
    source: str
    expect: str
    old: str = ""
    new: str = ""
    reason: str = ""

    def changed(self) -> str:
        assert self.old in self.source, self.name
        assert (self.old == "") == (self.new == ""), self.name
        return self.source.replace(self.old, self.new) if self.old else self.source


_HEAD = "import functools, operator, sys, enum, math, collections, dataclasses\nimport torch\nfrom torch import nn\n"
X_TWICE = "def make():\n    return fn, [(torch.arange(6.).reshape(2, 3),)] * 2\n"


def case(
    name: str, body: str, expect: str, old: str = "", new: str = "", reason: str = "", tail: str = X_TWICE
) -> Case:
    return Case(name, _HEAD + body.strip("\n") + "\n" + tail, expect, old, new, reason)


NET = "def make():\n    net = Net().eval()\n    EXTRA\n    return net, [(torch.arange(6.).reshape(2, 3),)] * 2\n"
NET_TAIL = NET.replace("    EXTRA\n", "")
