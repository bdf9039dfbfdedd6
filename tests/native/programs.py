"""Random tensor programs for the native backend, as Python source, and their comparison with eager mode.

A program is `def fn(x0, ...)` over tensors of random shapes, dtypes and strides; it mixes pointwise
operators, broadcasts, views, reductions, in-place writes and library calls. Values that only exact operators
made (whose result is defined to the last bit) are compared bit by bit, the others within a tolerance;
operators that turn a small difference into a big one are applied to exact values only.

To add an operator: a row in one of the tables, or a method of Generator that `step` can choose.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import torch
from torch import Tensor

FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
INTS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]

EXACT_UNARY = ["-{0}", "{0}.abs()", "torch.relu({0})", "{0}.square()", "{0}.clamp(-1.5, 2)", "{0}.clone()"]
EXACT_FLOAT_UNARY = [
    "{0}.floor()",
    "{0}.ceil()",
    "{0}.trunc()",
    "{0}.round()",
    "torch.nn.functional.hardtanh({0}, -1., 1.)",
    "torch.nn.functional.relu6({0})",
    "torch.isnan({0})",
]
SMOOTH_UNARY = [
    "{0}.abs().sqrt()",
    "torch.sigmoid({0})",
    "torch.tanh({0})",
    "torch.erf({0})",
    "torch.sin({0})",
    "torch.cos({0})",
    "torch.exp({0}.clamp(-20, 5))",
    "torch.log1p({0}.abs())",
    "torch.nn.functional.gelu({0}.clamp(-50, 50))",
    "torch.nn.functional.gelu({0}.clamp(-50, 50), approximate='tanh')",
    "torch.nn.functional.silu({0})",
    "torch.nn.functional.softplus({0})",
    "torch.nn.functional.elu({0})",
    "torch.nn.functional.leaky_relu({0}, 0.1)",
    "torch.nn.functional.hardswish({0})",
    "torch.nn.functional.mish({0})",
    "torch.rsqrt({0}.abs() + 0.5)",
    "{0}.clamp(-30, 30).pow(3)",
]
EXACT_BINARY = ["{0} + {1}", "{0} - {1}", "{0} * {1}", "torch.maximum({0}, {1})", "torch.minimum({0}, {1})"]
EXACT_SCALAR = ["{0} + 1", "{0} * 2", "3 - {0}", "{0} * 0.5", "{0} + 0.25", "{0} / 3", "2 / {0}", "{0} - 1.5"]
COMPARE = ["{0} < {1}", "{0} >= {1}", "{0} == {1}", "{0} != {1}", "{0} > 0.5", "{0} <= 1"]
LOGICAL = ["{0} & {1}", "{0} | {1}", "{0} ^ {1}", "~{0}", "torch.logical_or({0}, {1})"]
BITWISE = ["{0} & {1}", "{0} | {1}", "{0} ^ {1}", "~{0}"]
IN_PLACE = [
    "{0}.add_(1)",
    "{0}.mul_(2)",
    "{0}.clamp_(-1, 1)",
    "{0}.copy_({0} * 3)",
    "{0}.zero_()",
    "{0}.neg_()",
]
# With another value, or with what rounds differently when it is fused.
IN_PLACE_BINARY = [
    "{0}.add_({1})",
    "{0}.mul_({1})",
    "{0}.copy_({1})",
    "{0}.sub_({1})",
    "torch.add({0}, {1}, out={0})",
    "torch.maximum({1}, {0}, out={0})",
    "torch.mul({1}, {1}, out={0})",
    "torch.neg({1}, out={0})",
]
IN_PLACE_SMOOTH = [
    "{0}.add_({1}, alpha=0.3)",
    "{0}.lerp_({1}, 0.1)",
    "{0}.lerp_({1}, 0.9)",
    "{0}.addcmul_({1}, {1}, value=0.25)",
    "{0}.addcdiv_({1}, {1}.abs() + 1, value=-0.5)",
    "{0}.sub_({0}.mean())",
    "{0}.tanh_()",
]
IN_PLACE_LISTS = [
    "torch._foreach_add_([{0}], [{1}])",
    "torch._foreach_mul_([{0}], 0.75)",
    "torch._foreach_copy_([{0}], [{1}])",
]


@dataclass
class Value:
    name: str
    tensor: Tensor  # what it is in one eager run
    exact: bool


@dataclass
class Program:
    source: str
    inputs: list[Tensor]
    exact: list[bool]  # per output
    scale: float  # the largest finite magnitude met


@dataclass
class Generator:
    rng: random.Random
    lines: list[str] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    namespace: dict = field(default_factory=lambda: {"torch": torch})

    def shape(self) -> list[int]:
        rank = self.rng.choice([0, 1, 1, 2, 2, 2, 3, 3, 4])
        sizes = [1, 2, 3, 4, 5, 7, 8, 16, 17, 33, 64]
        shape = [self.rng.choice(sizes) for _ in range(rank)]
        if self.rng.random() < 0.04 and shape:
            shape[self.rng.randrange(rank)] = 0
        while math.prod(shape) > 5000:
            shape[shape.index(max(shape))] = 2
        return shape

    def data(self, shape: list[int], dtype: torch.dtype) -> Tensor:
        if dtype == torch.bool:
            return torch.randint(0, 2, shape).bool()
        if not dtype.is_floating_point:
            return torch.randint(0 if dtype == torch.uint8 else -9, 10, shape).to(dtype)
        values = torch.randn(shape, dtype=torch.float64) * self.rng.choice([0.1, 1, 1, 10])
        if self.rng.random() < 0.25 and values.numel():
            flat = values.view(-1)
            for special in (math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-40):
                flat[self.rng.randrange(flat.numel())] = special
        return values.to(dtype)

    def input(self) -> None:
        dtype = self.rng.choice(self.dtypes)
        shape = self.shape() if not self.inputs or self.rng.random() < 0.3 else self.broadcastable()
        tensor = self.data(shape, dtype)
        kind = self.rng.random()
        if shape and kind < 0.15:  # the same values in another order of memory
            order = list(range(len(shape)))
            self.rng.shuffle(order)
            back = [order.index(i) for i in range(len(order))]
            tensor = tensor.permute(order).contiguous().permute(back)
        elif shape and kind < 0.25:  # every second element of something bigger, not at its start
            big = self.data([*shape[:-1], 2 * shape[-1] + 1], dtype)
            tensor = big[..., 1::2]
        self.inputs.append(tensor)
        self.values.append(Value(f"x{len(self.inputs) - 1}", tensor, True))

    def broadcastable(self) -> list[int]:
        shape = list(self.rng.choice(self.inputs).shape)
        shape = [1 if self.rng.random() < 0.2 else s for s in shape]
        return shape[self.rng.randrange(len(shape)) :] if shape and self.rng.random() < 0.3 else shape

    def pick(
        self, *, floating: bool | None = None, exact: bool | None = None, boolean: bool = False
    ) -> Value:
        def fits(v: Value) -> bool:
            dtype = v.tensor.dtype
            if boolean != (dtype == torch.bool) or (exact and not v.exact):
                return False
            return floating is None or dtype.is_floating_point == floating

        found = [v for v in self.values if fits(v)]
        if not found:
            raise LookupError
        return found[-1] if self.rng.random() < 0.5 else self.rng.choice(found)

    def emit(self, expression: str, exact: bool) -> None:
        scope = {**self.namespace, **{v.name: v.tensor for v in self.values}}
        result = eval(expression, scope)  # noqa: S307
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if tensor.is_complex() or tensor.numel() > 20000:
                raise LookupError
        name = f"v{len(self.lines)}"
        if isinstance(result, (tuple, list)):
            names = [f"{name}_{i}" for i in range(len(result))]
            self.lines.append(f"{', '.join(names)}, = {expression}")
            self.values += [Value(n, t, exact) for n, t in zip(names, result, strict=True)]
        else:
            self.lines.append(f"{name} = {expression}")
            self.values.append(Value(name, result, exact))

    # ---- kinds of steps

    def unary(self) -> None:
        if self.rng.random() < 0.5:
            v = self.pick(floating=True)
            self.emit(self.rng.choice(SMOOTH_UNARY).format(v.name), False)
            return
        v = self.pick(exact=True)
        table = EXACT_UNARY + (EXACT_FLOAT_UNARY if v.tensor.is_floating_point() else [])
        self.emit(self.rng.choice(table).format(v.name), True)

    def binary(self) -> None:
        a, b = self.pick(), self.pick()
        self.emit(self.rng.choice(EXACT_BINARY).format(a.name, b.name), a.exact and b.exact)

    def scalar(self) -> None:
        v = self.pick()
        expression = self.rng.choice(EXACT_SCALAR)
        if expression.startswith("2 /") and not v.exact:  # a small difference near zero becomes a big one
            raise LookupError
        self.emit(expression.format(v.name), v.exact)

    def divide(self) -> None:
        a, b = self.pick(), self.pick(exact=True)
        self.emit(f"{a.name} / ({b.name}.abs() + 0.5)", a.exact and b.exact)

    def compare(self) -> None:
        a, b = self.pick(exact=True), self.pick(exact=True)
        self.emit(self.rng.choice(COMPARE).format(a.name, b.name), True)

    def logical(self) -> None:
        a, b = self.pick(boolean=True), self.pick(boolean=True)
        self.emit(self.rng.choice(LOGICAL).format(a.name, b.name), True)

    def bitwise(self) -> None:
        a, b = self.pick(floating=False), self.pick(floating=False)
        self.emit(self.rng.choice(BITWISE).format(a.name, b.name), True)

    def where(self) -> None:
        m, a = self.pick(boolean=True), self.pick()
        if self.rng.random() < 0.5:
            b = self.pick()
            self.emit(f"torch.where({m.name}, {a.name}, {b.name})", a.exact and b.exact)
        else:
            fill = self.rng.choice(["-1", "0", "1"])
            self.emit(f"{a.name}.masked_fill({m.name}, {fill})", a.exact)

    def cast(self) -> None:
        v = self.pick(exact=True, boolean=self.rng.random() < 0.2)
        dtype = self.rng.choice(FLOATS + [torch.bool] + ([] if v.tensor.is_floating_point() else INTS))
        self.emit(f"{v.name}.to({dtype})", True)

    def view(self) -> None:
        v = self.pick(boolean=self.rng.random() < 0.1)
        t = v.tensor
        choices = ["{0}.unsqueeze(0)", "{0}.reshape(-1)", "{0}.contiguous()", "{0}.unsqueeze(-1)"]
        if t.dim() >= 1 and t.shape[0] > 0:
            choices += ["{0}[0]", "{0}[1:]", "{0}[:-1]", "{0}.flatten()"]
            choices += [f"{{0}}.expand({[3, *t.shape]})", "{0}[..., ::2]"]
            half = max(1, t.shape[-1] // 2)
            choices += [f"{{0}}.split({half}, -1)", "{0}.chunk(2, 0)"]
        if t.dim() >= 2:
            choices += [
                "{0}.transpose(0, 1)",
                "{0}.transpose(-1, -2)",
                "{0}.movedim(0, -1)",
                "{0}.flatten(0, 1)",
            ]
        for divisor in (2, 4):
            if t.dim() >= 1 and t.shape[-1] % divisor == 0 and t.shape[-1] > 0:
                choices.append(f"{{0}}.reshape({[*t.shape[:-1], divisor, t.shape[-1] // divisor]})")
        if t.dim() == 4:
            choices.append("{0}.contiguous(memory_format=torch.channels_last)")
        self.emit(self.rng.choice(choices).format(v.name), v.exact)

    def reduce(self) -> None:
        v = self.pick(floating=True)
        if v.tensor.dim() == 0 or v.tensor.numel() == 0:
            raise LookupError
        n = v.tensor.shape[-1]
        keep = self.rng.choice(["", ", keepdim=True"])
        exact = self.rng.choice([f"{{0}}.amax(-1{keep})", f"{{0}}.amin(-1{keep})"])
        if v.exact and self.rng.random() < 0.3:
            self.emit(exact.format(v.name), True)
            return
        choices = [
            f"{{0}}.sum(-1{keep})",
            f"{{0}}.mean(-1{keep})",
            "{0}.sum()",
            "{0}.mean()",
            f"{{0}}.sum(0{keep})",
            "torch.softmax({0}, -1)",
            "torch.softmax({0}, 0)",
            "torch.log_softmax({0}, -1)",
            f"torch.nn.functional.layer_norm({{0}}, ({n},))",
        ]
        if n > 1:
            choices += [f"{{0}}.var(-1{keep})", f"{{0}}.std(-1{keep})"]
        if v.tensor.dim() >= 2:
            choices += [f"{{0}}.mean((-1, -2){keep})", f"{{0}}.sum((-2, -1){keep})"]
            choices += [f"{{0}}.mean(-2{keep})", f"{{0}}.amax(0{keep})", f"({{0}} * 0.5).sum(0{keep})"]
            choices.append(f"({{0}} + 1).sum({self.rng.sample(range(v.tensor.dim()), 2)}{keep})")
            if v.tensor.shape[-2] > 1:
                choices.append(f"{{0}}.var(-2{keep})")
        self.emit(self.rng.choice(choices).format(v.name), False)

    def norm(self) -> None:
        v = self.pick(floating=True)
        if v.tensor.dim() == 0 or v.tensor.numel() == 0:
            raise LookupError
        n = v.tensor.shape[-1]
        weights = [w for w in self.values if w.tensor.shape == (n,) and w.tensor.dtype == v.tensor.dtype]
        if not weights:
            raise LookupError
        w = self.rng.choice(weights).name
        call = self.rng.choice(["layer_norm({0}, ({1},), {2}, {2})", "rms_norm({0}, ({1},), {2}, 1e-5)"])
        self.emit("torch.nn.functional." + call.format(v.name, n, w), False)

    def library(self) -> None:
        v = self.pick(floating=True)
        if v.tensor.dim() < 2 or v.tensor.numel() == 0:
            raise LookupError
        choices = [
            "{0} @ {0}.transpose(-1, -2)",
            "torch.cumsum({0}, -1)",
            "torch.cat([{0}, {0}], -1)",
            "{0}.flip(0)",
        ]
        self.emit(self.rng.choice(choices).format(v.name), False)

    def join(self) -> None:
        """Tensors side by side: equal ones, of different sizes, of different dtypes, computed or not."""
        v = self.pick()
        if v.tensor.dim() == 0:
            raise LookupError
        dim = self.rng.randrange(v.tensor.dim())
        beside = [u for u in self.values if u.tensor.dim() == v.tensor.dim()]
        beside = [
            u
            for u in beside
            if all(
                a == b
                for i, (a, b) in enumerate(zip(u.tensor.shape, v.tensor.shape, strict=True))
                if i != dim
            )
        ]
        parts = [self.rng.choice([v, *beside]) for _ in range(self.rng.choice([1, 2, 2, 2, 3, 3, 4, 6]))]
        names = [
            self.rng.choice(
                ["{0}", "{0}", "{0}.abs()", "({0} != 1)", f"{{0}}.narrow({dim}, 0, {{1}} // 2)"]
            ).format(u.name, u.tensor.shape[dim])
            for u in parts
        ]
        if self.rng.random() < 0.25:
            names = [f"{v.name}" if i % 2 else f"torch.relu({v.name})" for i in range(len(names))]
            self.emit(f"torch.stack([{', '.join(names)}], {self.rng.randrange(-1, dim + 1)})", v.exact)
            return
        self.emit(f"torch.cat([{', '.join(names)}], {dim})", all(u.exact for u in parts))

    def repeat(self) -> None:
        v = self.pick()
        rank = v.tensor.dim()
        choices = [f"{{0}}.repeat({', '.join(['2', *['1'] * rank])})"]
        if rank:
            choices.append(
                f"{{0}}.repeat_interleave({self.rng.choice([2, 3, 4])}, {self.rng.randrange(rank)})"
            )
            choices.append(
                "torch.stack([{0}, -{0}], -1)" if v.tensor.dtype != torch.bool else "{0}.repeat_interleave(2)"
            )
        if 3 <= rank <= 5 and v.tensor.dtype in FLOATS and v.tensor.numel():
            mode = self.rng.choice(["nearest", "nearest-exact"])
            scale = self.rng.choice([1.0, 2.0, 2.0, 3.0, 4.0])
            choices += [f"torch.nn.functional.interpolate({{0}}, scale_factor={scale}, mode='{mode}')"] * 3
        self.emit(self.rng.choice(choices).format(v.name), v.exact)

    def fill(self) -> None:
        v = self.pick()
        choices = ["torch.zeros_like({0})", "torch.ones_like({0})", "torch.full({1}, 2.5)"]
        choices.append("torch.arange({2})")
        n = v.tensor.shape[-1] if v.tensor.dim() else 3
        self.emit(self.rng.choice(choices).format(v.name, list(v.tensor.shape), n), True)

    def in_place(self) -> None:
        v = self.pick(boolean=False)
        if any(s == 0 for s in v.tensor.stride()):
            raise LookupError
        target = v.name
        if v.tensor.dim() and v.tensor.shape[0] > 1 and self.rng.random() < 0.4:
            target = self.rng.choice([f"{v.name}[0]", f"{v.name}[1:]", f"{v.name}[..., 0]"])
        scope = {**self.namespace, **{u.name: u.tensor for u in self.values}}
        shape = eval(target, scope).shape  # noqa: S307
        others = [
            u for u in self.values if u.tensor.shape == shape and storage_of(u.tensor) != storage_of(v.tensor)
        ]
        exact = v.exact
        table = IN_PLACE
        other = target
        if others and self.rng.random() < 0.6:
            u = self.rng.choice(others)
            other = u.name
            exact = exact and u.exact
            table = IN_PLACE_BINARY if self.rng.random() < 0.6 else IN_PLACE_LISTS
            floating = v.tensor.is_floating_point() and u.tensor.dtype == v.tensor.dtype
            if floating and self.rng.random() < 0.5:
                table, exact = IN_PLACE_SMOOTH, False
        statement = self.rng.choice(table).format(target, other)
        exec(statement, scope)  # noqa: S102
        self.lines.append(statement)
        if not exact:  # whatever shares its memory is as inexact
            for u in self.values:
                u.exact = u.exact and storage_of(u.tensor) != storage_of(v.tensor)

    def build(self, steps: int, dtypes: list[torch.dtype], mutate: bool) -> Program:
        self.dtypes = dtypes
        for _ in range(self.rng.randint(1, 4)):
            self.input()
        storages = [clone_layout(t) for t in self.inputs]
        kinds = [
            *[self.unary] * 5,
            *[self.binary] * 5,
            *[self.scalar] * 4,
            *[self.view] * 4,
            *[self.reduce] * 2,
            *[self.cast] * 2,
            *[self.compare] * 1,
            self.divide,
            self.logical,
            self.bitwise,
            self.where,
            self.where,
            self.norm,
            self.library,
            self.fill,
            *[self.join] * 2,
            self.repeat,
        ]
        if mutate:
            kinds += [self.in_place] * 3
        tries = 0
        while len(self.lines) < steps and tries < 20 * steps:
            tries += 1
            try:
                self.rng.choice(kinds)()
            except (LookupError, RuntimeError, IndexError):
                continue
        made = [v for v in self.values if not v.name.startswith("x")] or self.values
        chosen = {
            v.name: v for v in [made[-1], *self.rng.sample(made, min(len(made), self.rng.randint(1, 3)))]
        }
        if mutate and self.rng.random() < 0.2:
            chosen["x0"] = self.values[0]
        names = list(chosen)
        parameters = ", ".join(f"x{i}" for i in range(len(self.inputs)))
        body = "".join(f"    {line}\n" for line in self.lines)
        source = f"def fn({parameters}):\n{body}    return [{', '.join(names)}]\n"
        scale = 1.0
        for v in self.values:
            finite = v.tensor.detach().to(torch.float64)
            finite = finite[finite.isfinite()]
            scale = max(scale, float(finite.abs().max()) if finite.numel() else 0.0)
        return Program(source, storages, [v.exact for v in chosen.values()], scale)


def storage_of(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def clone_layout(tensor: Tensor) -> Tensor:
    """A tensor with the same values, strides and offset in a storage of its own."""
    storage = tensor.untyped_storage().clone()
    result = torch.empty(0, dtype=tensor.dtype)
    result.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())
    return result


def generate(seed: int, *, steps: int = 12, mutate: bool | None = None) -> Program:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    few = rng.random()
    if few < 0.5:
        dtypes = [torch.float32]
    elif few < 0.75:
        dtypes = [rng.choice(FLOATS)]
    else:
        dtypes = FLOATS + INTS + [torch.bool]
    mutate = rng.random() < 0.3 if mutate is None else mutate
    return Generator(rng).build(rng.randint(3, steps), dtypes, mutate)


TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12, torch.bfloat16: 2e-2, torch.float16: 3e-3}


def compare(got: Tensor, want: Tensor, exact: bool, scale: float, loosest: float) -> str | None:
    """What differs, or None: metadata and NaN always as eager, values as `exact` says."""
    if got.dtype != want.dtype or got.shape != want.shape:
        return f"{got.dtype}{list(got.shape)} instead of {want.dtype}{list(want.shape)}"
    if got.stride() != want.stride():
        return f"strides {got.stride()} instead of {want.stride()}"
    if got.numel() == 0 or torch.equal(got, want):
        return None
    if not want.is_floating_point():
        return first_difference(got, want, got != want)
    a, b = got.double(), want.double()
    if not torch.equal(a.isnan(), b.isnan()):
        return "NaN: " + first_difference(got, want, a.isnan() != b.isnan())
    a, b = a.nan_to_num(posinf=1e308, neginf=-1e308), b.nan_to_num(posinf=1e308, neginf=-1e308)
    bound = 0 if exact else loosest * b.abs() * 10 + loosest * scale
    wrong = (a - b).abs() > bound
    return ("exact: " if exact else "") + first_difference(got, want, wrong) if wrong.any() else None


def first_difference(got: Tensor, want: Tensor, wrong: Tensor) -> str:
    at = tuple(wrong.nonzero()[0].tolist())
    count = f"{int(wrong.sum())} of {wrong.numel()} differ"
    return f"{count}; at {at}: {got[at].item()} instead of {want[at].item()}"
