"""Generated programs through the native backend: `python -m tests.native.runner --seed 0 --count 1000`."""

from __future__ import annotations

import argparse
import sys

import torch
from torch import Tensor

import flashpoint
from flashpoint import _C
from tests.native.numbers import check_numbers
from tests.native.programs import TOLERANCE, Program, clone_layout, compare, generate


def aliases(tensors: list[Tensor]) -> list[tuple[int, int]]:
    """Which of the tensors share storage."""
    pointers = [t.untyped_storage().data_ptr() if t.numel() else -1 - i for i, t in enumerate(tensors)]
    return [(i, pointers.index(p)) for i, p in enumerate(pointers) if pointers.index(p) != i]


def copies(tensors: list[Tensor]) -> list[Tensor]:
    return [clone_layout(t) for t in tensors]


def check(program: Program, *, fresh_inputs: bool = True) -> str | None:
    """Records the program, runs it natively twice, and says what differs from eager, or None."""
    scope: dict = {"torch": torch}
    exec(program.source, scope)  # noqa: S102
    fn = scope["fn"]
    dtypes = [t.dtype for t in program.inputs]
    with torch.no_grad():
        graph, _ = _C._graph_record(fn, *copies(program.inputs))
        if graph.break_reason is not None:
            return None
        message = check_numbers(graph, lambda: copies(program.inputs), program.source)
        if message:
            return message
        # Kernels for everything, then as users get them: what is one plain operator is called. Then again.
        for round_, run in enumerate((graph.run_native, graph.run_generated, graph.run_native)):
            eager_inputs, native_inputs = copies(program.inputs), copies(program.inputs)
            if round_ == 2 and not fresh_inputs:
                break
            want = fn(*eager_inputs)
            got = list(run(*native_inputs))
            used = [t.dtype for t in [*want, *program.inputs]] + dtypes
            loosest = max(TOLERANCE.get(d, 0.0) for d in used)
            if "bfloat16" in program.source:
                loosest = max(loosest, TOLERANCE[torch.bfloat16])
            if "float16" in program.source:
                loosest = max(loosest, TOLERANCE[torch.float16])
            if "float32" in program.source or "torch.full(" in program.source or "arange" in program.source:
                loosest = max(loosest, TOLERANCE[torch.float32])
            if any(not d.is_floating_point for d in dtypes):
                loosest = max(loosest, TOLERANCE[torch.float32])
            for i, (a, b) in enumerate(zip(got, want, strict=True)):
                message = compare(a, b, program.exact[i], program.scale, loosest)
                if message:
                    return f"output {i}: {message}"
            for i, (a, b) in enumerate(zip(native_inputs, eager_inputs, strict=True)):
                message = compare(a, b, False, program.scale, loosest)
                if message:
                    return f"input {i} afterwards: {message}"
                if a._version != b._version:
                    return f"input {i}: version {a._version} instead of {b._version}"
            if aliases([*native_inputs, *got]) != aliases([*eager_inputs, *want]):
                return "outputs share storage differently"
    return None


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=12)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    flashpoint.config.native_patience = 0
    failures = 0
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        program = generate(seed, steps=arguments.steps)
        print(f"\r{seed}", end="", file=sys.stderr, flush=True)
        message = check(program)
        if message:
            failures += 1
            print(f"\nseed {seed}: {message[:1500]}\n{program.source}")
            print([(t.dtype, tuple(t.shape), t.stride()) for t in program.inputs])
            if failures == 5:
                break
    print(f"\n{failures} failures; kernels run {flashpoint.counters()['kernels_run']}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
