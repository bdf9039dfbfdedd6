"""Numbers that change from call to call: inputs of FX graphs where a tensor may stand for them, as tensors.

Elsewhere they are constants of one graph among several, or a break.
"""

from __future__ import annotations

import pytest
import torch

import flashpoint
from tests.python.fx.support import Recording


@pytest.mark.parametrize("backend", ["recording", pytest.param("aot_eager", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("values", "graphs"), [(range(8), 2), ([0.5, 1.5, 2.5, 3.5, 4.5, 0.5], 2), ([1, 2.0, 3, 4.0], 3)]
)
def test_an_argument_that_changes(backend, values, graphs) -> None:
    def f(x, k):
        return (x + 1) * k - k

    recording = Recording()
    compiled = flashpoint.compile(f, backend=recording if backend == "recording" else backend)
    for k in values:
        for _ in range(2):
            x = torch.randn(3)
            torch.testing.assert_close(compiled(x, k), f(x, k))
    if backend == "recording":
        assert recording.graphs <= graphs


def test_an_attribute_that_changes() -> None:
    class Scale(torch.nn.Module):
        factor = 1.0

        def forward(self, x):
            return torch.relu(x) * self.factor

    net, recording = Scale(), Recording()
    compiled = flashpoint.compile(net, backend=recording)
    for step in range(8):
        net.factor = float(step)
        x = torch.randn(3)
        torch.testing.assert_close(compiled(x), net(x))
    assert recording.graphs == 2


def test_without_breaks() -> None:
    recording = Recording()
    compiled = flashpoint.compile(lambda x, k: x * k, backend=recording, fullgraph=True)
    for k in (1, 2, 3, 4, 3, 2, 1):
        torch.testing.assert_close(compiled(torch.ones(2), k), torch.full((2,), float(k)))
    assert recording.graphs == 2 and flashpoint.counters()["hits"] == 5


def test_without_breaks_each_size_is_a_recording() -> None:
    recording = Recording()
    compiled = flashpoint.compile(lambda x, k: x + torch.ones(k).sum(), backend=recording, fullgraph=True)
    for k in (1, 2, 3, 4, 3, 2, 1):
        torch.testing.assert_close(compiled(torch.ones(2), k), torch.full((2,), 1.0 + k))
    assert recording.graphs == 4 and flashpoint.counters()["hits"] == 3


def test_what_the_backend_is_shown() -> None:
    recording = Recording()
    compiled = flashpoint.compile(lambda x, k: x * k, backend=recording)
    for k in (1.5, 2.5, 3.5):
        compiled(torch.ones(2), k)
    module, examples = recording.modules[-1], recording.examples[-1]
    names = [node.name for node in module.graph.nodes if node.op == "placeholder"]
    assert names == ["l_x_", "l_k_"]
    assert examples[1].dtype == torch.float64 and examples[1].shape == () and examples[1].item() == 2.5
    assert module.graph.find_nodes(op="placeholder")[1].meta["val"].dtype == torch.float64


DTYPES = [
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.complex64,
]
VALUES = {
    "ints": [1, 2, 3, -4, 0, 7, 2**31, 1],
    "floats": [0.1, 1.7, -2.5, -0.0, 0.0, float("inf"), float("nan"), 1e-40, 1e300],
    "both": [1, 0.3, 2, 3, 1.5, True, 2.5, 4],
}
PROGRAMS = {
    "mul": lambda x, k: x * k,
    "radd": lambda x, k: k + x,
    "sub": lambda x, k: x - (k + 1),
    "div": lambda x, k: x / k,
    "floordiv": lambda x, k: x // k,
    "rem": lambda x, k: torch.remainder(x, k),
    "rsub": lambda x, k: k * 2 - x,
    "add alpha": lambda x, k: torch.add(x, k, alpha=2),
    "in place": lambda x, k: x.clone().mul_(k),
    "compare": lambda x, k: x == k,
    "where": lambda x, k: torch.where(x == 1, x, k),
    "several": lambda x, k: (x * k + k) * (k * 0.5),
}


def outcome(fn, *args):
    try:
        return fn(*args)
    except (RuntimeError, ZeroDivisionError, TypeError) as error:
        return type(error)


@pytest.mark.parametrize("backend", ["recording", pytest.param("aot_eager", marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("program", PROGRAMS)
def test_results_and_types_are_eager_modes(program, dtype, backend) -> None:
    fn = PROGRAMS[program]
    for values in VALUES.values():
        for shape in ((), (3,), (2, 0)):
            x = torch.tensor([2.0, 1.0, 3.0])[: shape[0] if shape else 1].to(dtype)
            x = x.reshape(()) if shape == () else x if shape == (3,) else x.new_empty(shape)
            compiled = flashpoint.compile(fn, backend=Recording() if backend == "recording" else backend)
            for k in values:
                expected, got = outcome(fn, x, k), outcome(compiled, x, k)
                if isinstance(expected, type):
                    assert got is expected, (shape, k)
                    continue
                assert isinstance(got, torch.Tensor), (shape, k, got)
                assert got.dtype == expected.dtype, (shape, k)
                assert torch.equal(got, expected) or torch.allclose(
                    got, expected, rtol=0, atol=0, equal_nan=True
                ), (shape, k, got, expected)


def test_assertions_stay_in_the_graph() -> None:
    recording = Recording()

    def f(x):
        assert (x > 0).all()
        assert not (x > 5).any()
        return x + 1

    compiled = flashpoint.compile(f, backend=recording)
    for _ in range(3):
        torch.testing.assert_close(compiled(torch.ones(2)), torch.full((2,), 2.0))
    if recording.graphs == 1:
        for wrong in (-1.0, 6.0):
            with pytest.raises((AssertionError, RuntimeError)):
                compiled(torch.full((2,), wrong))
