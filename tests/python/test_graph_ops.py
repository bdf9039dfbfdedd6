"""Operator patterns: recorded once, replayed on new inputs, equal to eager bit for bit."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from flashpoint import _C
from tests.python.graph_harness import check, record

X = torch.randn(4, 6)
Y = torch.randn(4, 6)
SQ = torch.randn(6, 6)
IDX = torch.tensor([2, 0, 1, 3])
IMG = torch.randn(2, 3, 8, 8)


def inplace_chain(x):
    y = x * 2
    y.add_(1).mul_(3)
    y -= x
    return y


def out_argument(x, y):
    buffer = torch.empty(4, 6)
    torch.add(x, y, out=buffer)
    return buffer


def write_through_view(x):
    y = x.clone()
    y[1:3].t().mul_(0)
    y.view(-1)[5:7].add_(10)
    return y


def write_input_through_view(x):
    x.view(-1)[::2].mul_(2)
    return x.sum()


def scatter_assign(x, idx):
    y = torch.zeros(4, 6)
    y[idx] = x
    y[:, None, 1:3] = x[:, None, 1:3]
    return y


def foreach(x, y):
    a, b = torch._foreach_add([x, y], 1.5)
    torch._foreach_mul_([a, b], [2.0, 3.0])
    return a, b, torch._foreach_norm([a, b])


def batch_norm_train(x, mean, var):
    return F.batch_norm(x, mean, var, training=True, momentum=0.3)


def autocast_region(x, w):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = x @ w
        with torch.autocast("cpu", enabled=False):
            z = x @ w
        v = F.layer_norm(y, (6,))
    return y, z, v, x @ w


def autocast_no_cache(x, w):
    with torch.autocast("cpu", dtype=torch.float16, cache_enabled=False):
        return x @ w + x @ w


def no_grad_region(x):
    y = x * 2
    with torch.no_grad():
        z = y * 3
        with torch.enable_grad():
            v = y * 4
    return y, z, v


def inference_region(x):
    with torch.inference_mode():
        y = x + 1
        y.mul_(2)
        with torch.inference_mode(False):
            z = x * 2
    return y, z


def mutate_view_of_graph_value(x):
    y = x + 1
    v = y[0]
    v.fill_(7)
    w = y.transpose(0, 1)
    y.mul_(2)
    return y, v, w


def no_grad_checkpoint(x):
    with torch.no_grad():
        return torch.utils.checkpoint.checkpoint(torch.sin, x, use_reentrant=False)


def foreach_on_inputs(x, y):
    torch._foreach_add_([x, y], [1.0, 2.0])
    torch._foreach_copy_([x], [y])


def adam_step(param, grad, mean, square):
    with torch.no_grad():
        mean.lerp_(grad, 0.1)
        square.mul_(0.99).addcmul_(grad, grad.conj(), value=0.01)
        param.addcdiv_(mean, square.sqrt().add_(1e-8), value=-0.5)


def chunks(x):
    a, b = x.chunk(2, dim=1)
    c, d, e = x.split([1, 2, 3], 1)
    return a + b, c, d, torch.cat([a, b, e], 1), torch.stack(x.unbind(0))


def lstm(x, h, c, w1, w2, b1, b2):
    return torch.lstm(x, (h, c), [w1, w2, b1, b2], True, 1, 0.0, False, False, True)


def sdpa_mask(q, k, v):
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def optional_tensors(x, idx):
    return x[:, idx[:2]], x[idx, :][None], torch.ops.aten.index.Tensor(x, [None, idx])


def index_put_none(x, idx):
    y = x.clone()
    return torch.ops.aten.index_put_(y, [None, idx[:2]], torch.zeros(4, 2), True)


QKV = [torch.randn(2, 2, 5, 4) for _ in range(3)]
LSTM = [torch.randn(2, 5, 3), torch.randn(1, 2, 4), torch.randn(1, 2, 4)] + [
    torch.randn(*s) for s in [(16, 3), (16, 4), (16,), (16,)]
]

PATTERNS = {
    "add_scalar": (lambda x: x + 1, X),
    "radd_float": (lambda x: 2.5 - x, X),
    "numbers_f32": (lambda x: ((x + 16777217) * 0.1 - 3) / 7, X),
    "numbers_f64": (lambda x: ((x.double() + 9007199254740993) * 0.1 - 3) / 7, X),
    "numbers_bf16": (lambda x: (x.bfloat16() + 0.123456789) * 1.0001 - (1 - x.half()) / 3, X),
    "number_autograd": (lambda x: (x * 0.1) * (2 - x), X.clone().requires_grad_()),
    "number_0dim": (lambda x: x.sum() * 0.1 + x.double().sum(), X),
    "number_meta": (lambda x: x * 0.1, torch.empty(4, 6, device="meta")),
    "int_tensor_plus_float": (lambda i: i + 0.5, IDX),
    "int_tensor_times_int": (lambda i: i * 3, IDX),
    "int_tensor_truediv": (lambda i: i / 2, IDX),
    "half_times_wrapped": (lambda x: x.half() * 0.1, X),
    "compare_scalar": (lambda x: (x > 0) & (x < 1), X),
    "pow_scalar_base": (lambda x: 2**x, X),
    "where_scalars": (lambda x: torch.where(x > 0, 1.0, x), X),
    "complex_scalar": (lambda x: x * (1 + 2j), X),
    "linear": (lambda x, w, b: F.linear(x, w, b), X, SQ, torch.randn(6)),
    "addmm": (lambda x, y, w: torch.addmm(x, y, w, beta=0.5), X, Y, SQ),
    "einsum": (lambda x, y: torch.einsum("ij,kj->ik", x, y), X, Y),
    "bmm": (lambda q, k: q.flatten(0, 1) @ k.flatten(0, 1).mT, *QKV[:2]),
    "lstm": (lstm, *LSTM),
    "gru_cell": (
        lambda x, h, a, b: torch.gru_cell(x, h, a, b),
        torch.randn(2, 3),
        torch.randn(2, 4),
        torch.randn(12, 3),
        torch.randn(12, 4),
    ),
    "sdpa": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), *QKV),
    "sdpa_mask": (sdpa_mask, *QKV),
    "sdpa_dropout": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, dropout_p=0.5), *QKV),
    "multi_head": (
        lambda x, w, b, o: F.multi_head_attention_forward(
            x, x, x, 6, 2, w, b, None, None, False, 0.0, o, None, training=False
        )[0],
        torch.randn(5, 2, 6),
        torch.randn(18, 6),
        torch.randn(18),
        SQ,
    ),
    "cross_entropy": (lambda x, i: F.cross_entropy(x, i, label_smoothing=0.1), X, IDX),
    "mse": (lambda x, y: F.mse_loss(x, y), X, Y),
    "softmax_dtype": (lambda x: torch.softmax(x, -1, dtype=torch.float64), X),
    "layer_norm": (lambda x, w: F.layer_norm(x, (6,), w), X, torch.randn(6)),
    "group_norm": (lambda x: F.group_norm(x, 3), IMG),
    "batch_norm_train": (batch_norm_train, IMG, torch.zeros(3), torch.ones(3)),
    "batch_norm_eval": (lambda x, m, v: F.batch_norm(x, m, v), IMG, torch.zeros(3), torch.ones(3)),
    "instance_norm": (
        lambda x, m, v: F.instance_norm(x, m, v, use_input_stats=True),
        IMG,
        torch.zeros(3),
        torch.ones(3),
    ),
    "conv2d": (lambda x, w: F.conv2d(x, w, stride=2, padding=1), IMG, torch.randn(4, 3, 3, 3)),
    "conv_transpose": (lambda x, w: F.conv_transpose2d(x, w, stride=2), IMG, torch.randn(3, 4, 3, 3)),
    "channels_last": (lambda x: F.relu(x.to(memory_format=torch.channels_last)), IMG),
    "max_pool": (lambda x: F.max_pool2d(x, 2, return_indices=True), IMG),
    "interpolate": (lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"), IMG),
    "pad": (lambda x: F.pad(x, (1, 2, 0, 1), mode="constant", value=float("-inf")), IMG),
    "dropout": (lambda x: F.dropout(x, 0.5), X),
    "dropout_inplace": (lambda x: F.dropout(x, 0.5, inplace=True), X),
    "rand_like": (lambda x: torch.rand_like(x) + torch.randn(4, 6) + torch.randint(0, 9, (4, 6)), X),
    "bernoulli": (lambda x: torch.bernoulli(x.sigmoid()), X),
    "multinomial": (lambda x: torch.multinomial(x.softmax(-1), 3), X),
    "default_generator": (
        lambda x: x + torch.rand(4, 6, generator=torch.default_generator),
        X,
    ),
    "randperm": (lambda x: x[torch.randperm(4)], X),
    "inplace": (inplace_chain, X),
    "inplace_on_input": (lambda x: x.add_(1).relu_(), X),
    "out": (out_argument, X, Y),
    "out_resize": (lambda x, y: torch.mul(x, y, out=torch.empty(0)), X, Y),
    "foreach": (foreach, X, Y),
    "factories": (
        lambda x: (
            x
            + torch.zeros(6)
            + torch.arange(6)
            + torch.full((4, 1), 2.5)
            + torch.eye(4, 6, dtype=torch.float64)
            + torch.linspace(0, 1, 6)
        ),
        X,
    ),
    "new_factories": (lambda x: x.new_zeros(2, 3, dtype=torch.int32) + x.new_full((2, 3), 7), X),
    "like_factories": (lambda x: torch.empty_like(x).fill_(3) + torch.ones_like(x, dtype=torch.double), X),
    "index_tensor_none": (optional_tensors, X, IDX),
    "index_put_none": (index_put_none, X, IDX),
    "slices": (lambda x: (x[1:, ::2], x[..., None, -1], x[0], x[-1, 2:4]), X),
    "mask_index": (lambda x: x[x > 0].sum(), X),
    "scatter_assign": (scatter_assign, X, IDX),
    "gather": (lambda x, i: x.gather(0, i[:, None].expand(4, 6)), X, IDX),
    "scatter_add": (lambda x, i: torch.zeros(4, 6).scatter_add(0, i[:, None].expand(4, 6), x), X, IDX),
    "embedding": (lambda w, i: F.embedding(i, w, padding_idx=0), X, IDX),
    "embedding_bag": (lambda w, i: F.embedding_bag(i[None], w, mode="mean"), X, IDX),
    "one_hot": (lambda x, i: F.one_hot(i, 6) * x, X, IDX),
    "views": (lambda x: x.view(2, 12).t().reshape(3, 8).unsqueeze(0).expand(2, 3, 8), X),
    "as_strided": (lambda x: torch.as_strided(x, (2, 2), (3, 1), 1) * 2, X),
    "write_through_view": (write_through_view, X),
    "write_input_through_view": (write_input_through_view, X),
    "mutate_view_of_value": (mutate_view_of_graph_value, X),
    "chunks": (chunks, X),
    "sort_topk": (lambda x: (x.sort(-1), x.topk(2), x.max(0), x.median()), X),
    "cumsum_diff": (lambda x: (x.cumsum(0), torch.diff(x), x.logcumsumexp(1)), X),
    "std_mean": (lambda x: torch.std_mean(x, [0, 1], correction=0), X),
    "quantile": (lambda x: torch.quantile(x, 0.3, dim=1, interpolation="nearest"), X),
    "clamp": (lambda x: x.clamp(min=-0.5).clamp(-1, 1), X),
    "linalg": (lambda a: (torch.linalg.inv(a @ a.mT + torch.eye(6)), torch.linalg.qr(a)), SQ),
    "fft": (lambda x: torch.fft.irfft(torch.fft.rfft(x)), X),
    "conj": (lambda x: torch.complex(x, x).conj() * 2, X),
    "complex_view": (lambda x: torch.view_as_real(torch.complex(x, x).mH.resolve_conj()), X),
    "casts": (lambda x: (x.to(torch.bfloat16), x.int(), x.bool(), x.double().float()), X),
    "no_op_casts": (lambda x: x.to(torch.float32).contiguous().cpu(), X),
    "dropout_eval": (lambda x: F.dropout(x, 0.5, training=False) * 2, X),
    "autocast": (autocast_region, X, SQ),
    "autocast_no_cache": (autocast_no_cache, X, SQ),
    "no_grad": (no_grad_region, torch.randn(3, requires_grad=True)),
    "inference": (inference_region, X),
    "requires_grad": (lambda x, w: F.gelu(x @ w).mean(), X, SQ.clone().requires_grad_()),
    "inplace_autograd": (lambda x: (x * 1).mul_(2).exp_(), X.clone().requires_grad_()),
    "detach": (lambda x: (x.detach() * 2, (x * 2).detach()), X.clone().requires_grad_()),
    "meta": (lambda x: F.linear(x, x).softmax(-1), torch.empty(4, 6, device="meta")),
    "meta_factory": (lambda x: torch.empty(4, 6, device="meta") @ torch.ones(6, 2, device="meta"), X),
    "nested_lists": (lambda x, y: torch.cartesian_prod(x[0], y[0])[None], X, Y),
    "tensor_lists": (lambda x, y: torch.block_diag(x, y), X, Y),
    "meshgrid": (lambda x, y: torch.meshgrid(x[0], y[1], indexing="ij"), X, Y),
    "string_argument": (lambda x, y: torch.div(x, y, rounding_mode="floor"), X, Y),
    "string_list": (lambda x: torch.ops.fp_test.join(x, ["a", "b"]), X),
    "bool_list": (lambda x, w: torch.conv2d(x, w), IMG, torch.randn(1, 3, 1, 1)),
    "custom_op": (lambda x: torch.ops.fp_test.twice(x) + 1, X),
    "custom_op_mutating": (lambda x: (torch.ops.fp_test.bump_(x), x * 2)[1], X),
    "same_output_twice": (lambda x: (lambda y: (y, y, x))(x + 1), X),
    "input_returned": (lambda x, y: (y, x), X, Y),
    "no_inputs_used": (lambda x: torch.ones(3), X),
    "assert_async": (lambda x: (torch._assert_async(torch.ones(()) > 0), x + 1)[1], X),
    "record_function": (lambda x: profiled(x), X),
    "checkpoint_no_grad": (no_grad_checkpoint, X),
    "foreach_on_inputs": (foreach_on_inputs, X, Y),
    "adam": (adam_step, X, Y, torch.zeros(4, 6), torch.zeros(4, 6)),
}


def profiled(x):
    with torch.profiler.record_function("region"):
        return x + 1


@pytest.fixture(scope="module", autouse=True)
def test_library():
    library = torch.library.Library("fp_test", "DEF")
    library.define("twice(Tensor x) -> Tensor")
    library.define("bump_(Tensor(a!) x) -> ()")
    library.define("join(Tensor x, str[] names) -> Tensor")
    library.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")
    library.impl(
        "bump_", lambda x: x.add_(1) and None if False else (x.add_(1), None)[1], "CompositeExplicitAutograd"
    )
    library.impl("join", lambda x, names: x + len(names), "CompositeExplicitAutograd")
    yield library
    library._destroy()


@pytest.mark.parametrize("name", PATTERNS)
def test_pattern(name):
    fn, *inputs = PATTERNS[name]
    check(fn, *inputs)


def test_replay_is_differentiable():
    """Gradients taken outside, through a replayed graph, equal eager's."""
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 8), torch.nn.GELU(), torch.nn.LayerNorm(8), torch.nn.Linear(8, 2)
    )
    params = list(model.parameters())

    def run(x, *weights):
        return model(x).square().mean()

    graph, loss = record(run, X, *params)
    want = torch.autograd.grad(run(Y), params)
    got = torch.autograd.grad(graph.run(Y, *params)[0], params)
    assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))
    assert all(
        torch.equal(a, b)
        for a, b in zip(torch.autograd.grad(loss, params), torch.autograd.grad(run(X), params), strict=True)
    )


def test_mutated_inputs_are_named():
    """Through views, out= and undeclared writes alike."""

    def run(a, b, c, d):
        a.view(-1)[0].zero_()
        torch.add(b, 1, out=c)
        return F.batch_norm(d, b[0], c[0], training=True)

    graph, _ = record(run, X.clone(), torch.ones(2, 4), torch.ones(2, 4), torch.randn(3, 4))
    assert graph.mutated == [0, 1, 2]


def test_view_of_input_registered_as_input():
    """Two inputs on one storage: a write to one is a write to both."""
    base = torch.zeros(4)

    def run(a, b):
        b.add_(1)
        return a * 2

    graph, result = record(run, base, base[1:])
    assert graph.mutated == [0, 1]
    assert result.tolist() == [0, 2, 2, 2]
    again = torch.zeros(4)
    assert graph.run(again, again[1:])[0].tolist() == [0, 2, 2, 2]


def test_constants_are_cloned():
    """A literal mutated by the program is fresh in the next run."""

    def run(x):
        c = _C._graph_constant(lambda: torch.tensor([1.0, 2.0]))
        c.add_(x)
        return c

    graph, result = record(run, torch.ones(2))
    for _ in range(3):
        assert graph.run(torch.ones(2))[0].tolist() == [2, 3]
    assert result.tolist() == [2, 3]


def test_number_store():
    def run(x):
        y = x.clone()
        _C._graph_number_store(True)
        y[0] = 5
        y[x > 1] = 2.5
        y[1, 1] = True
        _C._graph_number_store(False)
        return y

    check(run, X)


def test_wrapped_number_does_not_leak():
    """A result that shares a wrapped number's memory is the program's own."""

    def run(x):
        return torch.ops.aten.expand_as(torch.ops.aten.mul(x, 2), x)

    check(run, X)


def test_dead_code_goes_effects_stay():
    def run(x):
        x.sin()
        torch.rand(3)
        x.to(torch.float32).contiguous()
        dead = x.cos()
        dead.add_(1)
        return x + 1

    graph, _ = record(run, X)
    text = graph.text()
    assert "aten.sin" not in text and "contiguous" not in text and "aten.to" not in text
    assert "aten.rand" in text and "aten.add_" in text and "aten.cos" in text


def test_unused_inputs_are_left_out():
    graph, _ = record(lambda x, y, z: y + 1, X, Y, SQ)
    assert graph.sources == [1]
    assert "src=1" in graph.text()


def test_location_and_state_text():
    def run(x):
        _C._graph_location("model.py:12")
        with torch.no_grad():
            return x + 1

    graph, _ = record(run, torch.randn(2))
    assert graph.text() == (
        "graph f(%0: f32[2] cpu) {\n"
        "  %1 = aten.add.Tensor(%0, wrap(1), alpha=1) : f32[2] cpu {grad=off}  # model.py:12\n"
        "  return %1\n"
        "}\n"
    )


def test_failure_before_and_after_a_visible_mutation():
    def clean(x, y):
        return torch.linalg.cholesky(x) + y

    def dirty(x, y):
        y.add_(1)
        return torch.linalg.cholesky(x) + y

    good, bad = torch.eye(3), -torch.eye(3)
    for fn, visible in ((clean, False), (dirty, True)):
        graph, _ = record(fn, good, torch.ones(3, 3))
        with pytest.raises(torch.linalg.LinAlgError):
            graph.run(bad, torch.ones(3, 3))
        assert graph.status[1] is visible
        assert torch.equal(graph.run(good, torch.ones(3, 3))[0], fn(good, torch.ones(3, 3)))


def test_state_is_restored_after_a_failure():
    def run(x):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            return torch.linalg.cholesky(x @ x)

    graph, _ = record(run, torch.eye(3))
    with torch.inference_mode():
        with pytest.raises(RuntimeError):
            graph.run(torch.full((3, 3), float("nan")))
        assert torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    with pytest.raises(RuntimeError):
        graph.run(torch.full((3, 3), float("nan")))
    assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    assert torch.ones(1, requires_grad=True).mul(1).requires_grad
