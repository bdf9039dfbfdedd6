"""What programs do that has nothing to do with kernels, with backend="native": all as in eager mode."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import flashpoint
from flashpoint import counters


def native(fn):
    return flashpoint.compile(fn, backend="native")


def model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Linear(12, 24), nn.GELU(), nn.LayerNorm(24), nn.Linear(24, 24), nn.SiLU(), nn.Linear(24, 5)
    )


def close(got, want) -> None:
    torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("autocast", [False, True])
def test_training_with_the_backward_pass_outside(autocast):
    def train(net, forward):
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
        generator = torch.Generator().manual_seed(7)
        losses = []
        for _ in range(6):
            x = torch.randn(8, 12, generator=generator)
            y = torch.randint(0, 5, (8,), generator=generator)
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = forward(x, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses), [p.detach() for p in net.parameters()]

    ours, theirs = model(), model()
    got = train(ours, native(lambda x, y: F.cross_entropy(ours(x) * 2 + 1, y)))
    want = train(theirs, lambda x, y: F.cross_entropy(theirs(x) * 2 + 1, y))
    close(got, want)
    assert counters()["hits"] >= 4


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop])
def test_training_steps_as_one_function(kind):
    def make(net):
        optimizer = kind(net.parameters(), lr=1e-2)

        def step(x, y):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    ours, theirs = model(), model()
    compiled, plain = native(make(ours)), make(theirs)
    for n in range(7):
        x, y = torch.randn(8, 12), torch.randint(0, 5, (8,))
        close(compiled(x, y), plain(x, y))
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            close(p, q)
            close(p.grad, q.grad)
            assert p._version == q._version, n
    assert counters()["kernels_run"] > 0


def test_gradients_flow_through_parts_that_need_them_and_kernels_do_the_rest():
    def fn(x, w, m):
        scale = torch.sigmoid(m * 2 + 1)
        return (x * w * scale).sum(), scale.clone()

    compiled = native(fn)
    for _ in range(3):
        w = torch.randn(6, requires_grad=True)
        v = w.detach().clone().requires_grad_()
        x, m = torch.randn(4, 6), torch.randn(4, 6)
        (got, scale), (want, other) = compiled(x, w, m), fn(x, v, m)
        got.backward()
        want.backward()
        close((got, scale, w.grad), (want, other, v.grad))
        assert got.grad_fn is not None
        assert not scale.requires_grad
    assert counters()["kernels_run"] > 0


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_modes_and_dtypes(mode, dtype):
    def fn(x, y):
        z = x.mul(2).add_(y)
        return z, torch.relu(z - 1), z.t()

    compiled = native(fn)
    for _ in range(4):
        with mode():
            x, y = torch.randn(7, 9).to(dtype), torch.randn(9).to(dtype)
            got, want = compiled(x, y), fn(x, y)
        for a, b in zip(got, want, strict=True):
            assert torch.equal(a, b)
            assert (a.dtype, a.stride(), a.is_inference()) == (b.dtype, b.stride(), b.is_inference())
            if not a.is_inference():
                assert a._version == b._version
        assert got[2].data_ptr() == got[0].data_ptr()
    assert counters()["kernels_run"] > 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.randn(5, 3, dtype=torch.complex64),
        lambda: torch.randn(0, 3),
        lambda: torch.randn(5, 3).conj(),
        lambda: torch.randn(5, 3, dtype=torch.complex64).conj(),
        lambda: torch.randn(3, dtype=torch.complex64).imag,
        lambda: torch.randn(1, 3).expand(5, 3),
        lambda: torch.eye(5, 3, device="meta"),
        lambda: torch.randn(5, 3).to_sparse(),
        lambda: torch.randn(5, 3).to_mkldnn(),
    ],
)
def test_tensors_of_other_kinds(make):
    def fn(x):
        y = x + x
        return y * y

    compiled = native(fn)
    with torch.no_grad():
        for _ in range(4):
            x = make()
            got, want = compiled(x), fn(x)
            assert (got.shape, got.dtype, got.layout, got.device) == (
                want.shape,
                want.dtype,
                want.layout,
                want.device,
            )
            if got.layout == torch.strided:
                assert got.stride() == want.stride()
            if not got.is_meta:
                a, b = (t if t.layout == torch.strided else t.to_dense() for t in (got, want))
                assert torch.equal(a, b)
    assert counters()["hits"] >= 1


def test_quantized_tensors():
    def fn(q, x):
        return q.dequantize() * 2 + x, torch.relu(x + 1)

    compiled = native(fn)
    with torch.no_grad():
        for _ in range(4):
            q = torch.quantize_per_tensor(torch.randn(4, 4), 0.1, 3, torch.qint8)
            x = torch.randn(4, 4)
            close(compiled(q, x), fn(q, x))


class Tagged(torch.Tensor):
    """A subclass that says which functions it met."""

    seen: list = []

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.seen.append(func.__name__)
        return super().__torch_function__(func, types, args, kwargs or {})


def test_subclasses():
    def fn(x):
        return torch.relu(x * 2 + 1)

    compiled = native(fn)
    with torch.no_grad():
        for _ in range(4):
            x = torch.randn(4).as_subclass(Tagged)
            Tagged.seen.clear()
            got = compiled(x)
            seen = list(Tagged.seen)
            Tagged.seen.clear()
            want = fn(x)
            assert type(got) is type(want) is Tagged
            assert seen == Tagged.seen
            assert torch.equal(got.as_subclass(torch.Tensor), want.as_subclass(torch.Tensor))


def test_parameters_and_buffers_are_tensors():
    layer = nn.BatchNorm1d(6)
    other = copy.deepcopy(layer)
    compiled = native(lambda x: torch.relu(layer(x)) + layer.running_mean)
    for n in range(5):
        layer.train(n < 2)
        other.train(n < 2)
        x = torch.randn(9, 6)
        close(compiled(x), torch.relu(other(x)) + other.running_mean)
        close(layer.running_var, other.running_var)
        assert layer.num_batches_tracked == other.num_batches_tracked


def test_fake_tensors():
    def fn(x, y):
        return torch.relu(x * 2 + y)

    compiled = native(fn)
    with torch.no_grad():
        for _ in range(3):
            close(compiled(torch.ones(4), torch.ones(4)), torch.full((4,), 3.0))
        for _ in range(3):
            with FakeTensorMode() as mode:
                got = compiled(torch.empty(4), torch.empty(4))
                assert got.fake_mode is mode
                assert got.shape == (4,)
        close(compiled(torch.ones(4), torch.ones(4)), torch.full((4,), 3.0))


def test_modes_of_the_program_see_every_operator():
    class Functions(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func.__name__)
            return func(*args, **(kwargs or {}))

    class Dispatch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func.__name__)
            return func(*args, **(kwargs or {}))

    def fn(x):
        return torch.relu(torch.mul(x, 2) + 1)

    compiled = native(fn)
    x = torch.randn(4)
    with torch.no_grad():
        for _ in range(3):
            compiled(x)
        for mode in (Functions, Dispatch):
            for _ in range(3):
                seen: list[str] = []
                with mode():
                    got = compiled(x)
                ours, seen = seen, []
                with mode():
                    want = fn(x)
                assert ours == seen, mode
                close(got, want)


def test_transforms_around_the_call():
    def fn(x):
        return (torch.tanh(x * 2) * x).sum()

    compiled = native(fn)
    x = torch.randn(3, 4)
    with torch.no_grad():
        for _ in range(3):
            close(compiled(x[0]), fn(x[0]))
    for _ in range(3):
        close(torch.func.grad(compiled)(x[0]), torch.func.grad(fn)(x[0]))
        close(torch.func.vmap(compiled)(x), torch.func.vmap(fn)(x))
        close(torch.func.jacrev(compiled)(x[1]), torch.func.jacrev(fn)(x[1]))
        got = torch.autograd.functional.hessian(compiled, x[0])
        close(got, torch.autograd.functional.hessian(fn, x[0]))
        ours = torch.func.jvp(compiled, (x[0],), (x[1],))
        close(ours, torch.func.jvp(fn, (x[0],), (x[1],)))


def test_random_numbers_and_errors():
    def fn(x, n):
        y = torch.rand_like(x) * 2 + x
        if n:
            y = y @ torch.zeros(n, 2)
        return torch.relu(F.dropout(y, 0.5) + 1)

    compiled = native(fn)
    with torch.no_grad():
        for _ in range(4):
            x = torch.randn(4, 4)
            torch.manual_seed(1)
            got = compiled(x, 0)
            after = torch.get_rng_state()
            torch.manual_seed(1)
            want = fn(x, 0)
            assert torch.equal(got, want)
            assert torch.equal(after, torch.get_rng_state())
            with pytest.raises(RuntimeError, match="mat1 and mat2"):
                compiled(x, 3)
    assert counters()["kernels_run"] > 0


def test_memory_is_given_back():
    def fn(x, y):
        return torch.relu(x * 2 + y).sum(-1)

    compiled = native(fn)
    x, y = torch.randn(300, 300), torch.randn(300)
    storages = [x.untyped_storage(), y.untyped_storage()]
    with torch.no_grad():
        for _ in range(5):
            out = compiled(x, y)
    counts = [s._use_count() if hasattr(s, "_use_count") else 0 for s in storages]
    for _ in range(5):
        with torch.no_grad():
            out = compiled(x, y)
    assert counts == [s._use_count() if hasattr(s, "_use_count") else 0 for s in storages]
    assert out.untyped_storage().nbytes() == 300 * 4


DEFAULT = """
import torch, flashpoint
flashpoint.config.native_patience = 0
compiled = flashpoint.compile(lambda x: (x + 1).relu() * x)
x = torch.randn(64)
for _ in range(3):
    torch.testing.assert_close(compiled(x), (x + 1).relu() * x)
assert flashpoint.counters()["kernels_run"] > 0
assert [entry.backend for entry in flashpoint.code_state.entries(compiled)] == ["native"]
"""


def test_it_is_the_default(run_python):
    result = run_python("-c", DEFAULT)
    assert result.returncode == 0, result.stderr
