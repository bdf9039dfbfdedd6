"""Every reason for which a recording of operators breaks: one program each, whose result stays eager's."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing._internal.two_tensor import TwoTensor

from flashpoint import _C
from tests.python.graph_harness import breaks, record

X = torch.randn(4, 6)
ARRAY = np.ones((4, 6), dtype=np.float32)
OTHER = torch.ones(4, 6)


class TwoTimes(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        return grad * 2


def with_mode(x):
    from torch.utils._python_dispatch import TorchDispatchMode

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    with Mode():
        return x + 1


def set_hook(x):
    y = x * 2
    y.register_hook(lambda g: g * 10)
    return y + 1


def set_requires_grad(x):
    y = x * 2
    y.requires_grad_()
    return y * 3


def assign_data(x):
    y = x * 2
    y.data = torch.zeros(4, 6)
    return y + 1


def change_default_dtype(x):
    try:
        torch.set_default_dtype(torch.float64)
        return x + torch.ones(6)
    finally:
        torch.set_default_dtype(torch.float32)


def saved_on_cpu(x):
    with torch.autograd.graph.save_on_cpu():
        return x.sin()


def catch(x):
    try:
        torch.linalg.cholesky(-torch.eye(3))
    except RuntimeError:
        pass
    return x + 1


def dual(x):
    with torch.autograd.forward_ad.dual_level():
        return torch.autograd.forward_ad.unpack_dual(torch.autograd.forward_ad.make_dual(x, x) * 2).primal


def backward(w):
    (w * 2).sum().backward()
    return w + 1


def ambiguous(x):
    y = x[x > -100].view(-1, 6).t()
    z = y.contiguous() if y.shape[0] != 6 else y.to(torch.float32)
    z.add_(1)
    return y


GRAD = torch.randn(4, 6, requires_grad=True)

CASES = {
    "item": ("tensor_data_read", lambda x: x * x.sum().item(), X),
    "float": ("tensor_data_read", lambda x: x * float(x[0, 0]), X),
    "truth": ("tensor_data_read", lambda x: x if x.sum() > 1e6 else x + 1, X),
    "equal": ("tensor_data_read", lambda x: x if torch.equal(x, x) else x + 1, X),
    "allclose": ("tensor_data_read", lambda x: x if torch.allclose(x, x) else x + 1, X),
    "arange_of_tensor": ("tensor_data_read", lambda x: torch.arange(x[0, 0].abs() + 3), X),
    "slice_by_tensor": ("tensor_data_read", lambda x: x[: torch.ones((), dtype=torch.long)], X),
    "data": ("unknown_tensor", lambda x: x.data + 1, X),
    "closed_over": ("unknown_tensor", lambda x: x + OTHER, X),
    "from_numpy": ("unknown_tensor", lambda x: x + torch.from_numpy(ARRAY), X),
    "returned_unknown": ("unknown_tensor", lambda x: OTHER, X),
    "numpy": ("unknown_tensor", lambda x: torch.from_numpy(x.numpy() + 1), X),
    "torch_tensor": ("invisible_fill", lambda x: x[:, :2] + torch.tensor([1.0, 2.0]), X),
    "torch_tensor_0d": ("invisible_fill", lambda x: x + torch.tensor(2.0), X),
    "new_tensor": ("invisible_fill", lambda x: x[:, :2] + x.new_tensor([1.0, 2.0]), X),
    "as_tensor": ("invisible_fill", lambda x: x[:, :2] + torch.as_tensor([1, 2]), X),
    "legacy_tensor": ("invisible_fill", lambda x: x[:, :2] + torch.Tensor([1, 2]), X),
    "list_index": ("invisible_fill", lambda x: x[[1, 0]], X),
    "number_store": ("invisible_fill", lambda x: x.clone().index_put_((x > 0,), torch.tensor(1.0)), X),
    "set_": ("set_data", lambda x: torch.empty(0).set_(x + 1) + 1, X),
    "own_generator": (
        "unsupported_argument",
        lambda x: x + torch.rand(4, 6, generator=torch.Generator().manual_seed(3)),
        X,
    ),
    "requires_grad_op": ("requires_grad_changed", lambda x: torch.ops.aten.requires_grad_(x * 2), X),
    "requires_grad": ("seal_broken", set_requires_grad, X),
    "requires_grad_factory": ("seal_broken", lambda x: x * torch.ones(6, requires_grad=True), X),
    "parameter": ("seal_broken", lambda x: torch.nn.Parameter(x) * 2, X),
    "hook": ("seal_broken", set_hook, GRAD),
    "assign_data": ("seal_broken", assign_data, X),
    "custom_function": ("seal_broken", lambda x: TwoTimes.apply(x) + 1, GRAD),
    "custom_function_returned": ("seal_broken", lambda x: TwoTimes.apply(x), GRAD),
    "backward": ("autograd_engine", backward, GRAD),
    "autograd_grad": ("autograd_engine", lambda x: torch.autograd.grad(x.sin().sum(), x)[0], GRAD),
    "saved_tensor_hooks": ("saved_tensor_hooks", saved_on_cpu, GRAD),
    "checkpoint": (
        "saved_tensor_hooks",
        lambda x: torch.utils.checkpoint.checkpoint(torch.sin, x, use_reentrant=False),
        GRAD,
    ),
    "vmap": ("dispatch_keys", lambda x: torch.vmap(lambda r: r + 1)(x), X),
    "func_grad": ("dispatch_keys", lambda x: torch.func.grad(lambda r: r.sin().sum())(x), X),
    "dispatch_mode": ("dispatch_keys", with_mode, X),
    "subclass": ("tensor_subclass", lambda x: (TwoTensor(x, x) + 1).a, X),
    "sparse": ("unsupported_layout", lambda x: x.to_sparse().to_dense(), X),
    "forward_ad": ("forward_ad", dual, X),
    "caught": ("op_raised", catch, X),
    "default_dtype": ("global_state_changed", change_default_dtype, X),
    "dynamic_count": ("dynamic_count", lambda x: x.nonzero().unbind(0)[0], X),
    "ambiguous_alias": ("ambiguous_alias", ambiguous, X),
}


@pytest.mark.parametrize("name", CASES)
def test_break(name):
    reason, fn, *inputs = CASES[name]
    assert breaks(fn, *inputs) == reason


def test_foreign_thread():
    """An operator of another thread that inherited the switch."""

    def run(x):
        def work():
            _C._graph_enable(True)  # what at::ThreadLocalState would have copied
            torch.ones(3) + 1
            _C._graph_enable(False)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return x + 1

    assert breaks(run, X) == "foreign_thread"


def test_plain_threads_do_not_matter():
    def run(x):
        thread = threading.Thread(target=lambda: torch.ones(3) + 1)
        thread.start()
        thread.join()
        return x + 1

    assert breaks(run, X) is None


def test_budgets():
    graph, _ = _C._graph_record(lambda x: [x := x + 1 for _ in range(50)][-1], X, max_nodes=20)
    assert graph.break_reason == "too_many_nodes"
    graph, _ = _C._graph_record(lambda x: x + _C._graph_constant(lambda: torch.ones(1 << 20)).sum(), X)
    assert graph.break_reason == "constant_too_large"


def test_every_reason_is_tested():
    table = Path(__file__).parents[2] / "csrc/record/graph_breaks.def"
    names = set(re.findall(r"^X\((\w+)", table.read_text(), re.M))
    elsewhere = {"foreign_thread", "too_many_nodes", "constant_too_large"}
    # Results that are no tensors come from operators that need devices or builds we do not have here;
    # internal_error is our own bug.
    # `stopped` is how the object side ends a recording.
    untestable = {"non_tensor_result", "internal_error", "stopped"}
    assert {case[0] for case in CASES.values()} | elsewhere | untestable == names


def test_after_a_break_operators_just_run():
    def run(x):
        y = x * x.sum().item()
        z = torch.tensor([1.0, 2.0])
        return y, z + 1

    assert breaks(run, X) == "tensor_data_read"
    graph, _ = record(run, X)
    with pytest.raises(RuntimeError, match="tensor_data_read"):
        graph.text()


def test_exception_of_the_program_passes_through():
    with pytest.raises(ZeroDivisionError):
        _C._graph_record(lambda x: 1 // 0, X)
    assert not _C._graph_enabled()
    graph, _ = record(lambda x: x + 1, X)
    assert graph.node_count == 1


def test_switch_semantics():
    assert not _C._graph_enabled()
    _C._graph_enable(True)
    assert _C._graph_enabled()

    def inside():
        assert not _C._graph_enabled()
        with pytest.raises(RuntimeError, match="within the scope of NoTracerDispatchMode"):
            _C._graph_enable(True)

    _C._graph_hidden(inside)
    _C._graph_enable(False)
    assert not _C._graph_enabled()


def test_hidden_operators_leave_no_trace():
    def run(x):
        _C._graph_hidden(lambda: x * 3)
        return x + 1

    graph, _ = record(run, X)
    assert graph.node_count == 1
    assert breaks(lambda x: _C._graph_hidden(lambda: x * 3) + 1, X) == "unknown_tensor"
