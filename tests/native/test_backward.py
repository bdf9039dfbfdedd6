"""The operators that autograd's engine runs, in generated kernels: results are eager's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

import flashpoint
from flashpoint import _C

aten = torch.ops.aten

TWO_OPERANDS: dict[str, Callable] = {
    "threshold": lambda g, x: aten.threshold_backward(g, x, 0),
    "threshold at 0.5": lambda g, x: aten.threshold_backward(g, x, 0.5),
    "leaky_relu": lambda g, x: aten.leaky_relu_backward(g, x, 0.1, False),
    "hardtanh": lambda g, x: aten.hardtanh_backward(g, x, -1.0, 1.0),
    "sigmoid": lambda g, x: aten.sigmoid_backward(g, torch.sigmoid(x)),
    "tanh": lambda g, x: aten.tanh_backward(g, torch.tanh(x)),
    "silu": lambda g, x: aten.silu_backward(g, x),
    "gelu": lambda g, x: aten.gelu_backward(g, x),
    "gelu, tanh": lambda g, x: aten.gelu_backward(g, x, approximate="tanh"),
    "softmax": lambda g, x: aten._softmax_backward_data(g, torch.softmax(x, -1), -1, x.dtype),
    "log_softmax": lambda g, x: aten._log_softmax_backward_data(g, torch.log_softmax(x, -1), -1, x.dtype),
    "log_softmax below": lambda g, x: aten._log_softmax(x, -1, False) * g,
}
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11, torch.bfloat16: 4e-2, torch.float16: 4e-3}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", TWO_OPERANDS)
def test_operators(name, dtype):
    def fn(g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return TWO_OPERANDS[name](g * 2, x)

    torch.manual_seed(0)
    g = torch.randn(5, 37).to(dtype)
    x = (torch.randn(5, 37) * 3).to(dtype)
    x[0, :6] = torch.tensor([0.0, -0.0, 0.5, -1.0, 1.0, 40.0])
    with torch.no_grad():
        graph, want = _C._graph_record(fn, g, x)
        (got,) = graph.run_native(g, x)
    assert got.dtype == want.dtype and got.stride() == want.stride()
    tolerance = TOLERANCE[dtype]
    assert torch.allclose(got, want, rtol=tolerance, atol=tolerance)
    counted = flashpoint.counters()
    assert counted["kernels_run"] == counted["kernels_compiled"] == 1
    assert counted["ops_lowered"] >= 2


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layer_norm_with_its_statistics(dtype, affine):
    def fn(x, w, b):
        return torch.native_layer_norm(x * 2, (37,), w if affine else None, b if affine else None, 1e-5)

    x, w, b = torch.randn(4, 5, 37).to(dtype), torch.randn(37).to(dtype), torch.randn(37).to(dtype)
    with torch.no_grad():
        graph, want = _C._graph_record(fn, x, w, b)
        given = [x, w, b]
        got = graph.run_native(*given)
    for a, e in zip(got, want, strict=True):
        assert a.shape == e.shape and a.stride() == e.stride() and a.dtype == e.dtype
        assert torch.allclose(a, e, rtol=1e-5, atol=1e-5)
    assert flashpoint.counters()["kernels_run"] == 1


def test_special_values_pass_as_in_eager():
    values = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1.0, -1.0, 100.0, -100.0])
    g, x = [t.reshape(-1) for t in torch.meshgrid(values, values, indexing="ij")]
    with torch.no_grad():
        for name in ("threshold", "leaky_relu", "hardtanh", "sigmoid", "tanh"):
            graph, want = _C._graph_record(TWO_OPERANDS[name], g, x)
            (got,) = graph.run_native(g, x)
            assert torch.allclose(got, want, rtol=1e-5, atol=1e-6, equal_nan=True), name
    assert flashpoint.counters()["kernels_run"] == 5


def test_a_step_below_autograd_has_them():
    """Forward and backward of a block in one graph; gradients are eager's."""
    torch.manual_seed(0)
    w = torch.randn(16, 16, requires_grad=True)

    def fn(x: torch.Tensor) -> torch.Tensor:
        loss = F.gelu(F.layer_norm(x @ w, (16,))).softmax(-1).log().sum()
        loss.backward()
        return loss

    x = torch.randn(6, 16)
    compiled = flashpoint.compile(fn, backend="native")
    for _ in range(5):
        w.grad = None
        got = compiled(x)
        gradient, w.grad = w.grad, None
        want = fn(x)
        assert torch.allclose(got, want, rtol=1e-5) and torch.allclose(gradient, w.grad, rtol=1e-3, atol=1e-4)
    counted = flashpoint.counters()
    assert counted["hits"] >= 2 and counted["kernels_run"] >= 4 and counted["ops_lowered"] >= 6
