"""backend="native" through flashpoint.compile: results, counters, and what is left to eager mode."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import flashpoint
from flashpoint import _C


def counters() -> dict[str, int]:
    return flashpoint.counters()


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-5, atol=1e-6)


def test_kernels_run_from_the_second_call():
    f = flashpoint.compile(lambda x, y: torch.relu(x * 2 + y) * y, backend="native")
    x, y = torch.randn(8, 33), torch.randn(33)
    want = torch.relu(x * 2 + y) * y
    assert torch.equal(f(x, y), want)
    assert counters()["kernels_compiled"] == counters()["kernels_run"] == 0
    for calls in (1, 2, 3):
        assert close(f(x, y), want)
        assert counters()["kernels_run"] == calls
    assert counters()["hits"] == 3
    assert counters()["ops_lowered"] == 4


def test_other_shapes_and_dtypes_are_other_recordings():
    f = flashpoint.compile(lambda x: torch.tanh(x) + 1, backend="native")
    for x in (torch.randn(4), torch.randn(5), torch.randn(5, dtype=torch.float64), torch.randn(4, 6).t()):
        for _ in range(2):
            y = f(x)
            assert (
                torch.allclose(y, torch.tanh(x) + 1, atol=1e-6) and y.stride() == (torch.tanh(x) + 1).stride()
            )
    assert counters()["kernels_run"] == 4


def test_equal_kernels_are_compiled_once():
    layers = nn.Sequential(
        *[nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.LayerNorm(16)) for _ in range(6)]
    ).eval()
    f = flashpoint.compile(layers, backend="native")
    x = torch.randn(4, 16)
    with torch.no_grad():
        f(x)
        assert close(f(x), layers(x))
    assert counters()["kernels_run"] == 6
    assert counters()["kernels_compiled"] + counters()["kernels_reused"] == 6
    assert counters()["kernels_compiled"] <= 1


def test_gradients_are_eagers():
    """What needs a gradient runs as it was recorded; what does not may still be generated."""
    weight = torch.randn(8, 8, requires_grad=True)

    def fn(x):
        mask = torch.sigmoid(x * 2) + 1  # needs no gradient
        return torch.tanh(F.layer_norm(x @ weight, (8,))) * mask

    f = flashpoint.compile(fn, backend="native")
    x = torch.randn(3, 8)
    f(x)
    out = f(x)
    assert counters()["hits"] == 1 and counters()["kernels_run"] == 1
    assert out.requires_grad and out.grad_fn is not None
    (got,) = torch.autograd.grad(out.sum(), weight)
    (want,) = torch.autograd.grad(fn(x).sum(), weight)
    assert torch.allclose(got, want, rtol=1e-4, atol=1e-5)


def test_inference_mode():
    f = flashpoint.compile(lambda x: torch.exp(x) * 2, backend="native")
    x = torch.randn(9)
    with torch.inference_mode():
        f(x)
        y = f(x)
        assert y.is_inference() and counters()["kernels_run"] == 1
    f(x)
    assert not f(x).is_inference() and counters()["kernels_run"] == 2


def test_results_share_memory_as_in_eager():
    def fn(x):
        y = x * 2 + 1
        return x, x.view(-1), y, y.view(-1), y.t(), y.contiguous()

    f = flashpoint.compile(fn, backend="native")
    x = torch.randn(3, 4)
    f(x)
    a, b, y, flat, t, same = f(x)
    assert counters()["kernels_run"] == 1
    assert a is x and b.data_ptr() == x.data_ptr()
    assert (
        flat.data_ptr() == y.data_ptr() and t.data_ptr() == y.data_ptr() and same.data_ptr() == y.data_ptr()
    )
    y[0, 0] = 100
    assert flat[0] == 100 and t[0, 0] == 100


def test_equal_expressions_are_different_tensors():
    f = flashpoint.compile(lambda x: (x * 2 + 1, x * 2 + 1), backend="native")
    x = torch.randn(7)
    f(x)
    a, b = f(x)
    assert counters()["kernels_run"] == 1
    assert torch.equal(a, b) and a.data_ptr() != b.data_ptr()


@pytest.mark.parametrize("target", ["x", "y", "y[1:]", "y.t()"])
def test_writes_stay_in_order(target):
    namespace = {"torch": torch}
    source = (
        "def fn(x):\n"
        "    y = x * 2\n"
        "    before = y + x\n"
        f"    ({target}).add_(1)\n"
        "    after = y + x\n"
        f"    ({target}).mul_(3)\n"
        "    return before * 2, after * 2, (y + x) * 2, y\n"
    )
    exec(source, namespace)  # noqa: S102
    fn = namespace["fn"]
    f = flashpoint.compile(fn, backend="native")
    x = torch.randn(5, 5)
    f(x.clone())
    a, b = x.clone(), x.clone()
    got, want = f(a), fn(b)
    assert counters()["hits"] == 1 and counters()["kernels_run"] > 0
    assert torch.equal(a, b)
    assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))


def test_random_numbers_are_eagers():
    def fn(x):
        return F.dropout(x * 2 + 1, 0.5) + torch.rand_like(x) * 2 + 1

    f = flashpoint.compile(fn, backend="native")
    x = torch.randn(50)
    f(x)
    torch.manual_seed(3)
    got = f(x)
    torch.manual_seed(3)
    assert torch.equal(got, fn(x))
    assert counters()["kernels_run"] > 0


def test_operators_without_lowering_are_called():
    def fn(x):
        y = torch.sort(x * 2 + 1, -1).values
        return torch.cumsum(y, 0) * 3 - 1, torch.fft.fft(y).real + 1

    f = flashpoint.compile(fn, backend="native")
    x = torch.randn(6, 6)
    f(x)
    assert all(close(a, b) for a, b in zip(f(x), fn(x), strict=True))
    assert counters()["kernels_run"] > 1


def test_sizes_that_depend_on_data():
    """What follows an operator of data-dependent size is called, and right for another size."""

    def fn(x):
        return (x[x > 0] * 2 + 1).exp().sum(), x * 2 + 1

    f = flashpoint.compile(fn, backend="native")
    f(torch.tensor([1.0, -1.0, 2.0]))
    for x in (torch.tensor([1.0, 1.0, 2.0]), torch.tensor([-1.0, -1.0, -2.0])):
        got, want = f(x), fn(x)
        assert all(close(a, b) for a, b in zip(got, want, strict=True))
    assert counters()["hits"] == 2 and counters()["kernels_run"] == 2


def test_empty_tensors():
    f = flashpoint.compile(lambda x: (x * 2 + 1).sum(-1), backend="native")
    for shape in [(0, 3), (3, 0), (0,)]:
        x = torch.randn(shape)
        f(x)
        assert torch.equal(f(x), (x * 2 + 1).sum(-1))


def test_autocast_is_eagers():
    layer = nn.Linear(8, 8)

    def fn(x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return F.gelu(layer(x)) * 2 + 1

    f = flashpoint.compile(fn, backend="native")
    x = torch.randn(4, 8)
    with torch.no_grad():
        f(x)
        got, want = f(x), fn(x)
    assert got.dtype == want.dtype and torch.equal(got, want)


def test_dispatch_modes_see_the_recorded_operators():
    """While a mode is active nothing is generated, and compiling hides nothing of its own from it."""
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    graph, _ = _C._graph_record(lambda x: torch.relu(x * 2).view(-1) + 1, torch.randn(3, 4))
    x = torch.randn(3, 4)
    with Watch():
        (got,) = graph.run_native(x)
    assert seen == ["aten.mul.Tensor", "aten.relu.default", "aten.view.default", "aten.add.Tensor"]
    assert counters()["kernels_run"] == 0
    assert torch.equal(got, graph.run_native(x)[0]) and counters()["kernels_run"] == 1


def test_long_chain():
    """Kernels have a size limit; what lies beyond becomes the next kernel."""

    def fn(x):
        for i in range(500):
            x = x * 0.99 + i % 3
        return x

    f = flashpoint.compile(fn, backend="native")
    x = torch.randn(40)
    f(x)
    assert close(f(x), fn(x))
    assert 5 <= counters()["kernels_run"] <= 40


def test_in_place_operators_on_results_are_fused():
    def fn(x):
        y = x * 2
        before = y + x
        y += 1
        y.relu_()
        return before, y, y + x

    f = flashpoint.compile(fn, backend="native")
    x = torch.randn(5, 5)
    f(x)
    got, want = f(x), fn(x)
    assert counters()["kernels_run"] == 1 and counters()["ops_lowered"] == 5
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    assert [t._version for t in got] == [t._version for t in want] == [0, 2, 0]
