"""Python code that C code runs for the program: `__hash__`, `__eq__`, `__len__`, `__index__`, `__bool__`.

It runs as often as in eager mode, and may break the graph or raise.
"""

from __future__ import annotations

import pytest

from tests.support import Call, check_calls

SOURCE = """
import flashpoint
LOG = []
STATE = {"raise": False}
class Key:
  def __init__(self, name): self.name = name
  def __hash__(self):
    LOG.append("hash")
    %s
    return hash(self.name)
  def __eq__(self, other):
    LOG.append("eq")
    return isinstance(other, Key) and self.name == other.name
  def __len__(self):
    LOG.append("len")
    %s
    return len(self.name)
  def __index__(self):
    LOG.append("index")
    %s
    return len(self.name)
  def __bool__(self):
    LOG.append("bool")
    %s
    return bool(self.name)
KEYS = [Key("a"), Key("b"), Key("")]
TABLE = {KEYS[0]: 1.0, KEYS[1]: 2.0}
NAMES = ["p", "q", "r"]
def fn(x, i):
  k = KEYS[i]
  y = x + 1
  v = %s
  return y * (v if isinstance(v, (int, float)) else 2), v
"""

USES = {
    "get": "TABLE.get(k, 3.0)",
    "item": "TABLE[k] if i < 2 else 0",
    "contains": "k in TABLE",
    "setdefault": "TABLE.setdefault(k, 4.0)",
    "setdefault_new": "TABLE.setdefault(Key('n'), 4.0)",
    "pop": "TABLE.pop(k, 5.0)",
    "pop_new": "TABLE.pop(Key('a'), 5.0)",
    "made": "{k: 1, Key('z'): 2}.setdefault(Key('z'), 3)",
    "made_pop": "{k: 1, Key('z'): 2}.pop(Key('z'))",
    "update": "TABLE.update({k: 6.0})",
    "set_item": "TABLE.__setitem__(k, 7.0)",
    "set": "len({k, Key('a')})",
    "in_set": "k in {Key('a'), Key('b')}",
    "len": "len(k)",
    "index": "NAMES[k]",
    "slice": "len(NAMES[:k])",
    "truth": "1 if k else 2",
    "any": "1.0 if any(KEYS) else 2.0",
    "range": "sum(range(k))",
    "eq": "1 if k == Key('a') else 2",
    "in_list": "k in [Key('c'), Key('a')]",
    "list_index": "KEYS.index(Key('a'))",
    "count": "KEYS.count(k)",
    "hash": "hash(k) % 7",
    "fromkeys": "len(dict.fromkeys([k, Key('a')]))",
    "sorted": "len(sorted(KEYS, key=len))",
    "max": "len(max(KEYS, key=len))",
}
INSIDE = {
    "plain": "pass",
    "breaks": "flashpoint.graph_break()",
    "prints": "print(end='')",
    "raises": "if STATE['raise'] and not STATE.update({'raise': False}): raise KeyError(self.name)",
}


@pytest.mark.parametrize("inside", INSIDE)
@pytest.mark.parametrize("use", USES)
def test_code_in_lookups(use: str, inside: str) -> None:
    # What is written back as a whole is hashed once more.
    seen = "(LOG.clear(), list(TABLE.values()))" if use == "update" else "(LOG, list(TABLE.values()))"
    calls = [
        Call(
            f"x, {i}",
            pre=f"LOG.clear(); STATE['raise'] = {n == 6}",
            post=f"(STATE.update({{'raise': False}}), {seen})",
        )
        for n, i in enumerate((0, 0, 1, 0, 2, 1, 0, 2, 0))
    ]
    check_calls(SOURCE % (*[INSIDE[inside]] * 4, USES[use]), calls)
