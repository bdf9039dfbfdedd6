"""The FX graph of a recording: what its nodes call, in which state, and where they say they come from."""

from __future__ import annotations

import operator

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.amp.autocast_mode import _enter_autocast, _exit_autocast

import flashpoint
from tests.python.fx.support import Recording, check

SQUARE = torch.linspace(-1.0, 1.0, 16).reshape(4, 4)


@pytest.mark.parametrize(
    ("fn", "target"),
    [
        (lambda x: torch.relu(x), torch.relu),
        (lambda x: F.relu(x), F.relu),
        (lambda x: x.relu(), "relu"),
        (lambda x: x + 1, operator.add),
        (lambda x: 1 - x, operator.sub),
        (lambda x: x / 2.0, operator.truediv),
        (lambda x: x**2, "pow"),
        (lambda x: 2**x, operator.pow),
        (lambda x: x @ x, operator.matmul),
        (lambda x: x < 0, operator.lt),
        (lambda x: -x, operator.neg),
        (lambda x: x[1], operator.getitem),
        (lambda x: x[:, 1:3], operator.getitem),
        (lambda x: x[..., 0], operator.getitem),
        (lambda x: x.view(2, 8), "view"),
        (lambda x: x.transpose(0, 1), "transpose"),
        (lambda x: x.sum(-1, keepdim=True), "sum"),
        (lambda x: x.softmax(-1), "softmax"),
        (lambda x: F.softmax(x, dim=-1), F.softmax),
        (lambda x: F.gelu(x, approximate="tanh"), F.gelu),
        (lambda x: F.silu(x), F.silu),
        (lambda x: F.dropout(x, 0.25), F.dropout),
        (lambda x: F.dropout(x, 0.25, training=False), None),  # hands its argument on
        (lambda x: F.layer_norm(x, (4,)), F.layer_norm),
        (lambda x: F.linear(x, x), torch._C._nn.linear),
        (lambda x: F.scaled_dot_product_attention(x, x, x), F.scaled_dot_product_attention),
        (lambda x: F.cross_entropy(x, torch.softmax(x, 0), reduction="sum"), F.cross_entropy),
        (lambda x: F.mse_loss(x, x * 2), torch.ops.aten.mse_loss.default),  # its frame makes more than one
        (lambda x: torch.cat([x, x], dim=1), torch.cat),
        (lambda x: torch.where(x > 0, x, 0.0), torch.where),
        (lambda x: x.half(), "half"),
        (lambda x: x.to(torch.float64), "to"),
        (lambda x: x.float() + x.flatten().sum(), "flatten"),
        (lambda x: x.chunk(2)[1], "chunk"),
        (lambda x: torch.max(x, dim=1)[0], torch.max),
        (lambda x: torch.einsum("ij,jk->ik", x, x), torch.ops.aten.einsum.default),
    ],
)
def test_torch_level_targets(fn, target) -> None:
    backend = Recording()
    torch.manual_seed(0)
    check(fn, lambda: (SQUARE + 2,), backend)
    if target is None:
        assert backend.graphs == 0
        return
    assert target in backend.targets(), backend.modules[0].code


def test_aten_targets_on_demand() -> None:
    backend = Recording()
    with flashpoint.config.patch(fx_torch_targets=False):
        check(lambda x: F.relu(x + 1) @ x, lambda: (SQUARE.clone(),), backend)
    assert backend.targets() == [
        torch.ops.aten.add.Tensor,
        torch.ops.aten.relu.default,
        torch.ops.aten.matmul.default,
    ]


def test_in_place_calls_stay_what_they_are() -> None:
    backend = Recording()

    def f(x):
        x += 1
        x.mul_(2)
        x[0] = 3.0
        y = 0
        y += x
        return F.relu(y, inplace=True)

    check(f, lambda: (torch.randn(3, 3),), backend)
    assert backend.targets()[:2] == [operator.iadd, "mul_"]


def test_grad_mode_and_autocast_become_nodes() -> None:
    backend = Recording()

    def f(x, w):
        with torch.no_grad():
            a = x * 2
        with torch.autocast("cpu", dtype=torch.bfloat16):
            b = x @ w
            with torch.autocast("cpu", enabled=False):
                c = x @ w
        return a, b, c + 1

    check(f, lambda: (torch.randn(3, 3, requires_grad=True), torch.randn(3, 3)), backend)
    set_grad = torch._C._set_grad_enabled
    assert backend.targets() == [
        set_grad,
        operator.mul,
        _enter_autocast,
        set_grad,
        operator.matmul,
        _exit_autocast,
        operator.matmul,
        operator.add,
    ]
    check(f, lambda: (torch.randn(3, 3, requires_grad=True), torch.randn(3, 3)), "aot_eager")


@pytest.mark.parametrize("backend", [Recording(), "aot_eager"], ids=["recording", "aot_eager"])
def test_inference_mode_inside(backend) -> None:
    def f(x):
        with torch.inference_mode():
            a = x * 2
        return x + 1, a.sum()

    check(f, lambda: (torch.randn(3, requires_grad=True),), backend)


@pytest.mark.parametrize("backend", ["recording", "aot_eager"])
@pytest.mark.parametrize(
    "region",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", dtype=torch.bfloat16)],
    ids=["no_grad", "inference_mode", "autocast"],
)
def test_callers_regions(region, backend) -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    compiled = flashpoint.compile(net, backend=Recording() if backend == "recording" else backend)
    for _ in range(2):
        for context in (region, torch.enable_grad):
            with context():
                x = torch.randn(3, 4)
                result, expected = compiled(x), net(x)
                torch.testing.assert_close(result, expected)
                assert result.dtype is expected.dtype
                assert result.requires_grad == expected.requires_grad
                assert result.is_inference() == expected.is_inference()
    assert flashpoint.counters()["hits"] == 2


def test_switches_of_backends_become_nodes() -> None:
    backend = Recording()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def f(x):
        with sdpa_kernel(SDPBackend.MATH):
            y = F.scaled_dot_product_attention(x, x, x)
        return y * 2

    check(f, lambda: (torch.randn(1, 2, 4, 8),), backend)
    names = backend.names()
    assert names.count("switch_flags") == 2
    assert torch.backends.cuda.flash_sdp_enabled()


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(x).tanh()


def test_nodes_say_where_they_come_from() -> None:
    backend = Recording()
    net = nn.Sequential(Block(), Block())
    flashpoint.compile(net, backend=backend)(torch.randn(2, 4))
    nodes = {n.name: n for n in backend.modules[0].graph.nodes}
    linear, tanh = nodes["linear_1"], nodes["tanh_1"]
    assert "return self.fc(x).tanh()" in linear.meta["stack_trace"]
    assert "torch/nn/modules" not in linear.meta["stack_trace"]
    assert linear.meta["stack_trace"].rstrip().splitlines()[-2].endswith("in forward")
    classes = [kind for _, kind in linear.meta["nn_module_stack"].values()]
    assert classes[-2:] == [Block, nn.Linear]
    assert [path for path, _ in linear.meta["nn_module_stack"].values()][-1] == "L['self'].1.fc"
    assert [kind for _, kind in tanh.meta["nn_module_stack"].values()][-1] is Block


def test_input_names() -> None:
    backend = Recording()

    def f(x, *rest, table, key="k"):
        return x + rest[0] + table[key] + GLOBAL

    flashpoint.compile(f, backend=backend)(torch.ones(2), torch.ones(2), table={"k": torch.ones(2)})
    assert sorted(backend.inputs()) == ["g_global_", "l_rest_0_", "l_table_k_", "l_x_"]


GLOBAL = torch.ones(2)


# The same tensor twice, and views of one tensor: graphs have one input for a tensor, and what is written to
# shares no memory with another input, so a backend needs no guards of its own for either.


@pytest.mark.parametrize("backend", ["recording", "aot_eager"])
@pytest.mark.parametrize("write", [False, True])
def test_one_tensor_as_two_arguments(backend, write) -> None:
    def f(x, y):
        if write:
            x.add_(1)
        return x * y

    compiled = flashpoint.compile(f, backend=Recording() if backend == "recording" else backend)

    def same():
        x = torch.randn(3)
        return x, x

    def different():
        return torch.randn(3), torch.randn(3)

    def overlapping():
        base = torch.randn(4)
        return base[:3], base[1:]

    for make in (same, different, overlapping, different, same, overlapping, same):
        torch.manual_seed(1)
        expected_inputs = make()
        torch.manual_seed(1)
        inputs = make()
        torch.testing.assert_close(compiled(*inputs), f(*expected_inputs))
        torch.testing.assert_close(inputs, expected_inputs)
    assert flashpoint.counters()["hits"] >= 2


@pytest.mark.slow
def test_graph_code_is_logged(run_python) -> None:
    code = """
import torch, flashpoint
flashpoint.compile(lambda x: torch.nn.functional.gelu(x), backend=lambda m, e: m)(torch.ones(2))
"""
    done = run_python("-c", code, TORCH_LOGS="graph_code")
    assert done.returncode == 0, done.stderr
    assert "torch._C._nn.gelu(l_x_)" in done.stderr
