"""A missing key of a defaultdict: the factory is called, and what it gives is inserted."""

from __future__ import annotations

import pytest

from tests.support import Call, check_calls

PRELUDE = """
import collections, itertools
def brk(): print(end='')
scale = 3
made = collections.defaultdict(list)
"""

PROGRAMS = {
    "fresh": "d = collections.defaultdict(list); d['a'].append(x * 2); d['b'].append(x)\nreturn d",
    "across a break": "d = collections.defaultdict(list); d['a'].append(x * 2); brk()\n"
    "d['b'].append(x)\nreturn d",
    "argument": "d['k'].append(1)\nreturn x * len(d['k']), d",
    "integer keys": "d[1].append(1); d[2]\nreturn x * len(d), d",
    "not inserted by get": "return x, d.get('k'), d",
    "lambda": "e = collections.defaultdict(lambda: x * scale); y = e['a'] + e['b']\nreturn y, len(e)",
    "int": "e = collections.defaultdict(int); e['a'] += 2\nreturn x * e['a'], e['b']",
    "nested": "e = collections.defaultdict(lambda: collections.defaultdict(int)); e['a']['b'] += 1; brk()\n"
    "e['c']['d'] += 2\nreturn x * e['c']['d'], sorted(e)",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_missing_key(name: str) -> None:
    body = PROGRAMS[name].replace("\n", "\n  ")
    make = "d = collections.defaultdict(list)"
    calls = [Call(f"x + {i}, d", pre=make) for i in range(5)]
    last = check_calls(f"{PRELUDE}\ndef fn(x, d):\n  {body}", calls)[-1].counters
    assert (last["hits"], last["captures_started"], last["frames_handed_over"]) == (1, 0, 0), last


def test_another_factory_is_another_entry() -> None:
    source = f"{PRELUDE}\ndef fn(x, d):\n  d['a']\n  return x, d"
    calls = [Call("x, d", pre=f"d = collections.defaultdict({f})") for f in ("list", "dict", "list", "dict")]
    check_calls(source, calls, expect="kkhh")


def test_a_factory_of_c_code_is_called_each_time() -> None:
    source = (
        f"{PRELUDE}\ncount = itertools.count()\n"
        "def fn(x):\n  d = collections.defaultdict(count.__next__)\n  return x * d['a']"
    )
    check_calls(source, ["x", "x", "x", "x"])
