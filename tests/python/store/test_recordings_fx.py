"""Recordings for Python backends in the store: a new process records nothing, and asks its backend once more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import flashpoint

HEAD = """
import json, sys, torch, flashpoint
from torch import nn
torch.set_num_threads(1)
torch.manual_seed(0)
codes = []
def notes(gm, examples):
    nodes = [n for n in gm.graph.nodes if n.op != "placeholder"]
    stacks = [n.meta.get("stack_trace", "").split(chr(34))[-1] for n in nodes]
    modules = [[(path, kind.__name__) for path, kind in n.meta.get("nn_module_stack", {}).values()] for n in nodes]
    shapes = [tuple(e.shape) for e in examples]
    codes.append([gm.code, stacks, modules, str(shapes)])
    return gm
def counts():
    return {name: n for name, n in flashpoint.counters().items() if n}
def close(**more):
    flashpoint._C._recordings_write()
    print(json.dumps({"counts": counts(), "codes": codes, **more}))
"""
NET = """
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.rest = nn.Sequential(nn.GELU(), nn.LayerNorm(4))
    def forward(self, x, *, scale=2.0):
        y = nn.functional.gelu(self.first(x)).add(1).softmax(-1) * scale
        return {"y": self.rest(y).sum(-1), "n": [y.split(2, dim=-1), -y, y @ y.T, y[0]]}
net = Block()
x = torch.randn(3, 4)
"""


def run(folder: Path, source: str, **env: str) -> dict[str, Any]:
    """What one process said."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD + source],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(flashpoint.__file__).parents[1]),
            "FLASHPOINT_CACHE_DIR": str(folder / "cache"),
            "FLASHPOINT_RECORDINGS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            **env,
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def twice(folder: Path, source: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two processes with one store, and other hashes."""
    return run(folder, source, PYTHONHASHSEED="1"), run(folder, source, PYTHONHASHSEED="2")


def is_warm(row: dict[str, Any], loaded: int) -> None:
    assert row["counts"].get("captures_started", 0) == 0, row
    assert row["counts"]["entries_loaded"] == loaded, row


def test_inference(tmp_path: Path) -> None:
    """The backend gets the graph that it got in the first process: nodes, stacks, modules, shapes."""
    first, second = twice(
        tmp_path,
        NET
        + """
call = flashpoint.compile(net, backend=notes)
with torch.no_grad():
    for _ in range(3):
        a, b = call(x, scale=3.0), net(x, scale=3.0)
        assert torch.equal(a["y"], b["y"]) and torch.equal(a["n"][0][1], b["n"][0][1])
close()
""",
    )
    assert first["counts"]["captures_kept"] == 1 and first["counts"]["entries_stored"] == 1
    is_warm(second, 1)
    assert second["counts"]["hits"] == 3
    assert len(first["codes"]) == 1 and first["codes"] == second["codes"]
    code, stacks, modules, _ = first["codes"][0]
    assert "torch.nn.functional.gelu" in code or "torch._C._nn.gelu" in code
    assert any("in forward" in stack for stack in stacks)
    assert any(["L['self'].rest.1", "LayerNorm"] in stack for stack in modules)


def test_training(tmp_path: Path) -> None:
    """With gradients, through AOTAutograd."""
    first, second = twice(
        tmp_path,
        NET
        + """
from torch._dynamo.backends.common import aot_autograd
from functorch.compile import make_boxed_func
calls = []
def counted(gm, examples):
    calls.append(len(gm.graph.nodes))
    return make_boxed_func(gm.forward)
call = flashpoint.compile(net, backend=aot_autograd(fw_compiler=counted))
for _ in range(3):
    grads = []
    for target in (call, net):
        net.zero_grad(set_to_none=True)
        out = target(x)
        (out["n"][2].square().sum() + out["y"].sum()).backward()
        grads.append([p.grad.clone() for p in net.parameters()])
    for a, b in zip(*grads):
        assert torch.allclose(a, b, atol=1e-5)
close(calls=len(calls))
""",
    )
    assert first["counts"]["captures_kept"] == 1
    is_warm(second, 1)
    assert second["counts"]["hits"] == 3 and second["calls"] == first["calls"] == 2


def test_breaks_and_numbers(tmp_path: Path) -> None:
    """What comes behind a break, and numbers that are inputs of the graph."""
    first, second = twice(
        tmp_path,
        """
def fn(x, n):
    y = torch.relu(x * n)
    print(end="")
    return [y + n, y - 1]
call = flashpoint.compile(fn, backend=notes)
x = torch.randn(3)
for n in (1.5, 2.5, 3.5, 4.5):
    assert all(torch.equal(a, b) for a, b in zip(call(x, n), fn(x, n)))
close()
""",
    )
    assert first["counts"]["captures_kept"] > 2
    is_warm(second, first["counts"]["captures_kept"])
    # Of a number that changes there is a graph with its first value, and one that takes it: as in the first.
    assert [row[0] for row in first["codes"]] == [row[0] for row in second["codes"]]
    assert second["counts"]["hits"] == 4 and second["counts"]["resume_hits"] == 4


def test_several_backends(tmp_path: Path) -> None:
    """Each compiled function asks its own; what one backend made answers no call of another."""
    first, second = twice(
        tmp_path,
        """
def fn(x):
    return torch.relu(x) + 1
def negated(gm, examples):
    return lambda *inputs: [-out for out in gm(*inputs)]
x = torch.randn(3)
plain, turned = flashpoint.compile(fn, backend=notes), flashpoint.compile(fn, backend=negated)
own = flashpoint.compile(fn, backend="eager")
turned(x)  # the program itself, where it is recorded
for _ in range(3):
    assert torch.equal(plain(x), fn(x)) and torch.equal(turned(x), -fn(x)) and torch.equal(own(x), fn(x))
close()
""",
    )
    assert first["counts"]["captures_kept"] == 3
    is_warm(second, 3)
    assert second["counts"]["hits"] == 10


def test_errors(tmp_path: Path) -> None:
    """A backend that raises for a loaded graph raises out of the call, and is asked again by the next one."""
    fills = "fails = False\n"
    program = """
def fn(x):
    y = torch.relu(x) + 1
    print(end="")
    return y * 2
def backend(gm, examples):
    if fails and any("mul" in str(n.target) for n in gm.graph.nodes):
        raise fails
    return gm
x = torch.randn(3)
call = flashpoint.compile(fn, backend=backend)
seen = []
for _ in range(3):
    try:
        assert torch.equal(call(x), fn(x))
        seen.append("")
    except (RuntimeError, KeyboardInterrupt) as error:
        seen.append(type(error).__name__ + str(error))
    if seen[-1]:
        fails = False
close(seen=seen)
"""
    first = run(tmp_path, fills + program)
    assert first["counts"]["captures_kept"] == 2 and first["seen"] == ["", "", ""]
    raised = run(tmp_path, "fails = ValueError('no, thank you')\n" + program)
    assert "no, thank you" in raised["seen"][0] and raised["seen"][1:] == ["", ""]
    is_warm(raised, 2)
    stopped = run(tmp_path, "fails = KeyboardInterrupt()\n" + program.replace('"mul" in', '"relu" in'))
    assert stopped["seen"][0].startswith(("KeyboardInterrupt", "BackendCompilerFailed"))
    assert stopped["seen"][1:] == ["", ""]
    is_warm(stopped, 2)


def test_background(tmp_path: Path) -> None:
    """The operators of a loaded recording run until the backend has compiled them."""
    first, second = twice(
        tmp_path,
        """
import threading
go = threading.Event()
def slow(gm, examples):
    go.wait(60)
    return notes(gm, examples)
def fn(x):
    return torch.relu(x) + 1
x = torch.randn(3)
call = flashpoint.compile(fn, backend=slow, options={"background": True})
assert torch.equal(call(x), fn(x))
before = len(codes)
go.set()
flashpoint.wait_for_backends()
assert torch.equal(call(x), fn(x))
close(before=before)
""",
    )
    is_warm(second, 1)
    for row in (first, second):
        assert row["before"] == 0 and len(row["codes"]) == 1
    assert first["codes"] == second["codes"]


def test_what_stays(tmp_path: Path) -> None:
    """A function that the graph calls as it is has no portable form."""
    first, second = twice(
        tmp_path,
        """
class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2
    @staticmethod
    def backward(ctx, grad):
        return grad * 2
def fn(x):
    return Twice.apply(x) + 1
x = torch.randn(3, requires_grad=True)
call = flashpoint.compile(fn, backend=notes)
assert torch.equal(call(x), fn(x)) and torch.equal(call(x), fn(x))
close(report=[])
""",
    )
    assert first["counts"]["captures_kept"] == 1
    assert second["counts"].get("entries_loaded", 0) == 0
    assert second["counts"]["captures_kept"] == 1


@pytest.mark.slow
def test_inductor(tmp_path: Path) -> None:
    """The backend that most people use, with its own cache."""
    first, second = twice(
        tmp_path,
        NET
        + """
call = flashpoint.compile(net, backend="inductor")
with torch.no_grad():
    assert torch.allclose(call(x)["y"], net(x)["y"], atol=1e-5)
close()
""",
    )
    assert first["counts"]["captures_kept"] == 1
    is_warm(second, 1)
