"""Rules for a module that is imported after the first recording: in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from subprocess import CompletedProcess

PROGRAM = """
import sys
import torch
import flashpoint

x = torch.ones(3)
first = flashpoint.compile(lambda x: x + 1, backend="eager")
first(x), first(x)
assert "torch._dynamo" not in sys.modules

def fn(x):
    import torch._dynamo
    y = x * 2
    torch._dynamo.graph_break()
    return y + 1

compiled = flashpoint.compile(fn, backend="eager")
flashpoint.reset_counters()
for _ in range(3):
    assert torch.equal(compiled(x), x * 2 + 1)
told = flashpoint.counters()
print([told[name] for name in ("captures_kept", "breaks_resumed", "hits")])
"""


def test_rules_of_a_late_module(run_python: Callable[..., CompletedProcess[str]]) -> None:
    result = run_python("-c", PROGRAM)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n")[-2] == "[2, 1, 2]"
