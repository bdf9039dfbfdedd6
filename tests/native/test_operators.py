"""Every operator with a lowering, across dtypes and layouts, against eager mode; each must run generated."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import flashpoint
from flashpoint import _C
from tests.native.programs import TOLERANCE, compare

FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
INTS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]

UNARY = {
    "exp": torch.exp,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "expm1": torch.expm1,
    "log": lambda x: torch.log(x.abs()),
    "log1p": lambda x: torch.log1p(x.abs()),
    "log2": lambda x: torch.log2(x.abs()),
    "log10": lambda x: torch.log10(x.abs()),
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "asin": lambda x: torch.asin(x.clamp(-1, 1)),
    "acos": lambda x: torch.acos(x.clamp(-1, 1)),
    "atan": torch.atan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "sqrt": lambda x: x.abs().sqrt(),
    "rsqrt": lambda x: x.abs().rsqrt(),
    "reciprocal": torch.reciprocal,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "gelu": lambda x: F.gelu(x) + x,  # of bfloat16 the sum alone
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": torch.relu,
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "leaky_relu": F.leaky_relu,
    "elu": lambda x: F.elu(x, 0.7),
    "selu": F.selu,
    "softplus": lambda x: F.softplus(x, 2.0, 3.0),
    "mish": F.mish,
    "square": torch.square,
    "neg": torch.neg,
    "abs": torch.abs,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "trunc": torch.trunc,
    "round": torch.round,
    "clamp": lambda x: x.clamp(-0.5, 1.25),
    "clamp_min": lambda x: x.clamp_min(0.25),
    "clamp_max": lambda x: x.clamp_max(0.25),
    "isnan": torch.isnan,
    "isinf": torch.isinf,
    "isfinite": torch.isfinite,
    "sign": torch.sign,
    "frac": torch.frac,
    "nan_to_num": torch.nan_to_num,
    "nan_to_num_given": lambda x: x.nan_to_num(0.1, 2.5, -7.0),
    "log_sigmoid": F.logsigmoid,
    "pow2": lambda x: x**2,
    "pow3": lambda x: x**3,
    "pow_half": lambda x: x.abs() ** 0.5,
    "pow_other": lambda x: x.abs() ** 1.7,
    "rsub": lambda x: 1 - x,
    "add_scalar": lambda x: x + 0.1,
    "mul_scalar": lambda x: x * 3,
    "div_scalar": lambda x: x / 3,
    "lt_scalar": lambda x: x < 0.3,
    "eq_scalar": lambda x: x == 1,
    "masked_fill": lambda x: x.masked_fill(x > 0, -math.inf),
    "where": lambda x: torch.where(x > 0, x, 2.0),
    "clone": torch.clone,
    "to_float32": lambda x: x.to(torch.float32, copy=True),
    "to_float64": lambda x: x.to(torch.float64, copy=True),
    "to_bfloat16": lambda x: x.to(torch.bfloat16, copy=True),
    "to_bool": lambda x: x.bool(),
    "zeros_like": torch.zeros_like,
    "full_like": lambda x: torch.full_like(x, 0.1),
    "softmax": lambda x: torch.softmax(x, -1),
    "log_softmax": lambda x: torch.log_softmax(x, -1),
    "softmax_to_float32": lambda x: torch.softmax(x, -1, dtype=torch.float32),
    "sum": lambda x: x.sum(-1),
    "sum_keepdim": lambda x: x.sum(-1, keepdim=True),
    "sum_all": lambda x: x.sum(),
    "sum_two": lambda x: x.sum((-1, -2)),
    "mean": lambda x: x.mean(-1, keepdim=True),
    "mean_all": lambda x: x.mean(),
    "amax": lambda x: x.amax(-1),
    "amin": lambda x: x.amin(-1, keepdim=True),
    "any": lambda x: (x > 0).any(-1),
    "all": lambda x: (x > -1).all(),
    "var": lambda x: x.var(-1),
    "var_biased": lambda x: x.var(-1, correction=0),
    "std": lambda x: x.std((-1, -2)),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "layer_norm_two": lambda x: F.layer_norm(x, x.shape[-2:]),
    "rms_norm": lambda x: F.rms_norm(x, x.shape[-1:], eps=1e-5),
}

INTEGER_UNARY = {
    "neg": torch.neg,
    "abs": lambda x: x.abs() if x.dtype != torch.uint8 else -x,
    "square": torch.square,
    "sign": torch.sign,
    "relu": torch.relu,
    "bitwise_not": torch.bitwise_not,
    "add": lambda x: x + 100,
    "mul": lambda x: x * x * x,
    "sub": lambda x: x - 7,
    "rsub": lambda x: 5 - x,
    "clamp": lambda x: x.clamp(1, 3),
    "maximum": lambda x: torch.maximum(x, x * 3),
    "minimum": lambda x: torch.minimum(x, x * 3),
    "and": lambda x: x & 6,
    "or": lambda x: x | (x + 1),
    "xor": lambda x: x ^ (x + 1),
    "lt": lambda x: x < 3,
    "lt_float": lambda x: x < 2.5,
    "eq": lambda x: x == x * x,
    "div": lambda x: x / 3,
    "to_float": lambda x: x.float(),
    "to_bfloat16": lambda x: x.to(torch.bfloat16),
    "to_bool": lambda x: x.bool(),
    "to_int8": lambda x: (x * 100).to(torch.int8) if x.dtype != torch.int8 else x + 0,
    "to_int64": lambda x: x.long() + 1,
    "exp": lambda x: torch.exp(x.clamp(max=3)),
    "sum": lambda x: x.sum(-1),
    "amax": lambda x: x.amax(-1),
    "mean": lambda x: x.float().mean(-1),
    "add_float": lambda x: x + 0.5,
    "where": lambda x: torch.where(x > 2, x, -1) if x.dtype != torch.uint8 else torch.where(x > 2, x, 1),
}


def layouts(x: Tensor) -> dict[str, Tensor]:
    """The same 4-dimensional data under different strides."""
    spread = torch.stack([x, x + 1], -1)[..., 0]
    return {
        "contiguous": x,
        "transposed": x.transpose(-1, -2).contiguous().transpose(-1, -2),
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "spread": spread,
        "offset": torch.cat([x, x], 0)[x.shape[0] :],
        "expanded": x[:, :1].expand(x.shape),
    }


def check(fn, *inputs: Tensor, exact: bool = False) -> None:
    with torch.no_grad():
        graph, _ = _C._graph_record(fn, *inputs)
        assert graph.break_reason is None, graph.break_detail
        (got,) = graph.run_native(*inputs)
        want = fn(*inputs)
    assert flashpoint.counters()["kernels_run"] > 0, graph.text()
    loosest = max(TOLERANCE.get(d, 0.0) for d in (want.dtype, *(t.dtype for t in inputs)))
    scale = float(want.double().nan_to_num(0, 0, 0).abs().max()) if want.numel() else 1.0
    message = compare(got, want, exact, 0.1 * max(1.0, scale), loosest or 1e-6)
    assert message is None, f"{message}\n{graph.text()}"


def data(dtype: torch.dtype, shape: tuple[int, ...] = (2, 3, 5, 19)) -> Tensor:
    if dtype.is_floating_point:
        return (torch.randn(shape, dtype=torch.float64) * 2).to(dtype)
    return torch.randint(0, 12, shape).to(dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", UNARY)
def test_float(name, dtype):
    x = data(dtype)
    for layout, tensor in layouts(x).items():
        flashpoint.reset_counters()
        if (
            name in ("zeros_like", "full_like", "clone", "to_float32", "to_float64", "to_bfloat16")
            and layout == "expanded"
        ):
            continue  # a result that overlaps itself is eager's business
        check(UNARY[name], tensor)
    if name not in ("layer_norm_two", "sum_two", "std"):
        flashpoint.reset_counters()
        check(UNARY[name], data(dtype, (160,)))


@pytest.mark.parametrize("dtype", INTS, ids=str)
@pytest.mark.parametrize("name", INTEGER_UNARY)
def test_integer(name, dtype):
    for tensor in layouts(data(dtype)).values():
        check(INTEGER_UNARY[name], tensor, exact=name not in ("exp", "mean", "div"))


SPECIAL = [
    0.0,
    -0.0,
    math.nan,
    math.inf,
    -math.inf,
    1e-40,
    -1e-40,
    3e38,
    -3e38,
    1.0,
    -1.0,
    88.0,
    -104.0,
    0.93,
    4.0,
]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(
    "name", [n for n in UNARY if n not in ("layer_norm_two", "sum_two", "std", "gelu", "gelu_tanh")]
)
def test_special_values(name, dtype):
    """NaN, infinities, signed zero, denormals: as eager has them. One special value per row."""
    rows = torch.randn(len(SPECIAL), 21, dtype=torch.float64)
    rows[torch.arange(len(SPECIAL)), torch.arange(len(SPECIAL))] = torch.tensor(SPECIAL, dtype=torch.float64)
    check(UNARY[name], rows.to(dtype))


def test_masked_softmax_rows():
    """A row of -inf gives NaN in softmax, as in eager; a row with some -inf gives zeros there."""
    x = torch.randn(4, 37)
    x[1] = -math.inf
    x[2, 5:] = -math.inf
    check(lambda x: torch.softmax(x, -1), x)


def test_signed_zero_keeps_its_sign():
    x = torch.tensor([0.0, -0.0] * 20)
    with torch.no_grad():
        for fn in (
            lambda x: x * 1.0,
            torch.neg,
            torch.abs,
            torch.tanh,
            torch.erf,
            torch.sin,
            lambda x: x.to(torch.bfloat16),
        ):
            graph, _ = _C._graph_record(fn, x)
            assert torch.equal(graph.run_native(x)[0].signbit(), fn(x).signbit())


BINARY = {
    "add": torch.add,
    "add_alpha": lambda a, b: torch.add(a, b, alpha=2),
    "sub": torch.sub,
    "mul": torch.mul,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "lt": torch.lt,
    "ne": torch.ne,
    "where": lambda a, b: torch.where(a > b, a, b),
    "addcmul": lambda a, b: (
        torch.addcmul(a, a, b, value=0.5) if a.dtype == b.dtype == torch.float32 else a * b
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BINARY)
def test_mixed_dtypes(name):
    """Type promotion, with tensors without dimensions as well."""
    kinds = [*FLOATS, torch.int64, torch.uint8, torch.bool]
    for left in kinds:
        for right in kinds:
            if left == right == torch.bool or (name == "sub" and torch.bool in (left, right)):
                continue
            for shape in [(3, 17), (1, 17), ()]:
                a, b = (
                    data(left, (3, 17)) if left != torch.bool else data(torch.int64, (3, 17)) > 5,
                    data(torch.int64, shape),
                )
                b = b > 5 if right == torch.bool else b.to(right)
                flashpoint.reset_counters()
                check(BINARY[name], a, b)


@pytest.mark.parametrize(
    "shapes", [((4, 1, 6), (5, 1)), ((1,), (3, 4)), ((), (7,)), ((2, 3), (2, 1)), ((1, 1), (1, 1))]
)
def test_broadcasts(shapes):
    check(lambda a, b: (a + b) * a - b, torch.randn(shapes[0]), torch.randn(shapes[1]))


@pytest.mark.parametrize("size", [1, 2, 7, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 1000])
def test_row_lengths(size):
    """Vector bodies, unrolled bodies and tails of every kind, flat and by rows."""
    check(lambda x: torch.exp(x) * 2 + x, torch.randn(size))
    check(lambda x: F.layer_norm(torch.tanh(x), (x.shape[-1],)), torch.randn(3, size))
    check(lambda x: torch.softmax(x, -1), torch.randn(3, size, dtype=torch.float64))


def test_batch_norm():
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 5, 7, 6).contiguous(memory_format=memory_format)
        mean, var, weight, bias = torch.randn(5), torch.rand(5) + 0.5, torch.randn(5), torch.randn(5)
        check(lambda *a: torch.relu(F.batch_norm(a[0], a[1], a[2], a[3], a[4])), x, mean, var, weight, bias)


def test_arange_and_fills():
    check(
        lambda x: torch.arange(3, 3 + 2 * x.shape[0], 2) + x.shape[0] - torch.zeros_like(x).long(),
        torch.randn(33),
    )
    check(lambda x: torch.full((3, 5), 2.5) + torch.ones(5) * x, torch.randn(3, 1))


def test_accuracy_of_inline_functions():
    """exp, tanh and erf of float32: units in the last place against float64, over all magnitudes."""
    bounds = {torch.exp: 1.5, torch.tanh: 2.0, torch.erf: 3.0}
    bits = torch.randint(0, 2**31 - 1, (400_000,), dtype=torch.int32)
    x = torch.cat([bits.view(torch.float32), -bits.view(torch.float32), torch.linspace(-20, 20, 200_001)])
    for fn, bound in bounds.items():
        graph, _ = _C._graph_record(fn, x)
        got, want = graph.run_native(x)[0], fn(x.double())
        assert torch.equal(got.isnan(), want.isnan())
        nearest = want.float()
        ulp = (torch.nextafter(nearest.abs(), torch.tensor(math.inf)) - nearest.abs()).double()
        error = ((got.double() - want).abs() / ulp)[ulp.isfinite() & (ulp > 0)]
        assert torch.equal(got.isinf(), nearest.isinf())
        assert float(error.nan_to_num(0).max()) <= bound, fn
