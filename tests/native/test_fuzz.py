"""Random programs: generated code gives what eager mode gives, whatever was fused."""

from __future__ import annotations

import pytest
import torch

import flashpoint
from tests.native.programs import generate
from tests.native.runner import check

CHUNK = 50


def run_seeds(seeds: range, steps: int = 12) -> None:
    for seed in seeds:
        program = generate(seed, steps=steps)
        message = check(program)
        assert message is None, f"seed {seed}: {message}\n{program.source}"


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 500, CHUNK))
def test_programs(first):
    run_seeds(range(first, first + CHUNK))
    counters = flashpoint.counters()
    assert counters["kernels_run"] > CHUNK
    assert counters["ops_lowered"] > 2 * CHUNK


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["avx2", "sse"])
def test_lesser_machines(isa, run_python):
    """The same code for older vector extensions, which every newer machine can run."""
    done = run_python("-m", "tests.native.runner", "--count", "60", FLASHPOINT_NATIVE_ISA=isa)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "kernels run" in done.stdout


@pytest.mark.slow
def test_nothing_is_read_or_written_beyond_the_end(run_python):
    done = run_python(
        "-m", "tests.native.runner", "--count", "250", "--seed", "700", FLASHPOINT_NATIVE_GUARD="1"
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_threads():
    """Kernels that are big enough are divided among threads, and not at places that change results."""
    torch.set_num_threads(2)
    try:
        f = flashpoint.compile(lambda x, w: (torch.tanh(x * w).exp(), torch.softmax(x, -1)), backend="native")
        x, w = torch.randn(1003, 517), torch.randn(517)
        with torch.no_grad():
            f(x, w)
            many = f(x, w)
            torch.set_num_threads(1)
            one = f(x, w)
        assert all(torch.equal(a, b) for a, b in zip(many, one, strict=True))
    finally:
        torch.set_num_threads(1)


@pytest.mark.sweep
@pytest.mark.parametrize("first", range(10_000, 20_000, 500))
def test_many_programs(first):
    run_seeds(range(first, first + 500), steps=20)
