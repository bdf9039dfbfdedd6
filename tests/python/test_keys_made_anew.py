"""Elements asked for by keys that live for one instruction: the next one may stand at the same address."""

from __future__ import annotations

import pytest

from tests.support import Call, check_calls

KEYS = range(300, 308)  # no cached integers

READS = {
    "list": ("list(range(400))", "l[i]", "l[{k}] = -1"),
    "list from its end": ("list(range(400))", "l[i - 400]", "l[{k}] = -1"),
    "tuple": ("tuple(range(400))", "l[i]", "l = l[:{k}] + (-1,) + l[{k} + 1:]"),
    "dict": ("{i: i for i in range(400)}", "l[i]", "l[{k}] = -1"),
    "dict.get": ("{i: i for i in range(400)}", "l.get(i, 0)", "l[{k}] = -1"),
    "text": ("{f'k{i}': i for i in range(400)}", "l[f'k{i}']", "l['k{k}'] = -1"),
    "tuples": ("{(i, 0): i for i in range(400)}", "l[i, 0]", "l[{k}, 0] = -1"),
    "floats": ("{i / 2: i for i in range(800)}", "l[i / 2]", "l[{k} / 2] = -1"),
    "membership": ("{f'k{i}': i for i in range(400)}", "(f'k{i}' in l)", "del l['k{k}']"),
    "attributes": (
        "types.SimpleNamespace(**{f'a{i}': i for i in range(400)})",
        "getattr(l, f'a{i}')",
        "l.a{k} = -1",
    ),
    "missing": ("types.SimpleNamespace()", "hasattr(l, f'a{i}')", "l.a{k} = -1"),
}


@pytest.mark.parametrize("loop", ["t = 0\n  for i in KEYS: t += {}", "t = sum([{} for i in KEYS])"])
@pytest.mark.parametrize("name", READS)
def test_each_element_is_guarded(name: str, loop: str) -> None:
    made, read, change = READS[name]
    source = f"import types\nKEYS = {KEYS!r}\ndef fn(x, l):\n  {loop.format(read)}\n  return x + t"
    calls = [Call("x, l", pre=f"l = {made}") for _ in range(2)]
    calls += [Call("x, l", pre=f"l = {made}; {change.replace('{k}', str(k))}") for k in KEYS]
    outcomes = check_calls(source, calls)
    assert outcomes[1].counters["hits"] + outcomes[1].counters["resume_hits"] > 0
