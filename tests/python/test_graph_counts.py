"""Programs that break graphs, generated: never more graphs than torch.compile makes of the same operators.

torch.compile gives up on some frames and runs the rest of them eagerly. It then has fewer graphs because it
captured less, so a program counts where torch.compile runs no operator outside of its graphs, reads of values
aside. Programs that use NumPy on tensors do not count either: torch.compile computes that with tensors, and
here it breaks.
"""

from __future__ import annotations

import json
import linecache
import os
import signal
import sys
import types
import warnings
from typing import Any

import pytest
import torch

import flashpoint
from tests.fuzz.generator import Generator, generate
from tests.fuzz.program import Program
from tests.world import PRELUDE

FIRST, COUNT = 3000, 600
LIMIT = 100  # seconds for one program
IN_A_GRAPH = "a graph of torch.compile"
READS = {"aten::item", "aten::is_nonzero", "aten::_local_scalar_dense", "aten::equal", "aten::allclose"}


def world(program: Program) -> types.ModuleType:
    module = types.ModuleType("program")
    sys.modules["program"] = module
    source, name = PRELUDE + program.source(), f"<program {program.seed}>"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    exec(compile(source, name, "exec"), module.__dict__)
    exec(program.calls[0].pre, module.__dict__)
    return module


def first_call(module: types.ModuleType, program: Program) -> Any:
    return eval(f"fn({program.calls[0].args})", module.__dict__)


def of_torch(program: Program) -> tuple[int, int]:
    """Graphs with operators of the first call; operators outside of graphs of the next."""
    counts: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        counts.append(sum(node.op.startswith("call_") for node in graph.graph.nodes))

        def run(*args: Any) -> Any:
            with torch.autograd.profiler.record_function(IN_A_GRAPH):
                return graph.forward(*args)

        return run

    torch._dynamo.reset()
    module = world(program)
    module.fn = torch.compile(module.fn, backend=backend)
    first_call(module, program)
    graphs = len([c for c in counts if c])
    with torch.autograd.profiler.profile() as events:
        first_call(module, program)
    outside = 0
    for event in events.function_events:
        if event.name.startswith("aten::") and event.name not in READS:
            parent = event.cpu_parent.name if event.cpu_parent else ""
            outside += not parent.startswith("aten::") and parent != IN_A_GRAPH
    return graphs, outside


def of_flashpoint(program: Program) -> int:
    module = world(program)
    module.fn = flashpoint.explain(module.fn)
    report = first_call(module, program)
    return report.graph_count


def measure(program: Program) -> list[int] | str:
    """In a child process: nothing that TorchDynamo leaves behind reaches the next program."""
    out, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(LIMIT)
        with open(os.devnull, "w") as null:
            os.dup2(null.fileno(), 1)
            os.dup2(null.fileno(), 2)
        warnings.simplefilter("ignore")
        try:
            answer: Any = [of_flashpoint(program), *of_torch(program)]
        except BaseException as error:
            answer = repr(error)
        os.write(write, json.dumps(answer).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(out, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(data) if data else "died"


@pytest.mark.sweep
def test_never_more_graphs_than_torch_compile() -> None:
    breaking = [seed for seed in range(FIRST, FIRST + COUNT) if Generator(seed).breaking]
    seeds = [seed for seed in breaking if "numpy()" not in generate(seed).source()]
    more, compared, raised = [], 0, 0
    for seed in seeds:
        counts = measure(generate(seed))
        if isinstance(counts, str):
            assert counts != "died", seed
            raised += 1
            continue
        graphs, torch_graphs, eager_operators = counts
        if eager_operators:
            continue
        compared += 1
        if graphs > torch_graphs:
            more.append((seed, *counts))
    print(f"{len(seeds)} programs, {compared} compared, {raised} raised, more graphs: {more}")
    assert not more and compared >= 0.2 * len(seeds)
