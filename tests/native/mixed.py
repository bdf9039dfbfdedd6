"""A second kind of random program, through the public interface: `python -m tests.native.mixed --count 1000`.

Where programs.py is about fusion, this is about what programs do with types and memory: promotion with Python
numbers that change from call to call, tensors without dimensions, integer division and shifts, arithmetic on
bool, expanded and sliced operands, writes through views and by index, empty tensors, reductions with every
argument, sorting, random numbers, and gradients, taken outside or within the compiled function.

The compiled function is called with several sets of values; results, what was written to the arguments, what
shares memory and the random state must be eager's.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

import flashpoint
from tests.native.programs import TOLERANCE, clone_layout, compare, storage_of

FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
INTS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]

# {0}, {1}, {2}: values; {i}, {n}: small constant ints, {n} not zero; {f}: a constant float; {d}: a dimension
# of {0}; {s}, {t}: the int and the float argument; {k}: ", keepdim=True" or nothing.
ANY = [
    "{0} + {i}",
    "{0} * {f}",
    "{i} - {0}",
    "{0} + {s}",
    "{0} * {t}",
    "{t} - {0}",
    "{0} / {i}",
    "{0} + {1}",
    "{0} * {1}",
    "torch.add({0}, {1}, alpha={i})",
    "torch.maximum({0}, {1})",
    "torch.minimum({0}, {1})",
    "torch.where({0} > {1}, {0}, {1})",
    "torch.where({0} != {1}, {f}, {1})",
    "torch.where({0} == {i}, {0}, {i})",
    "{0}.clamp({i} - 3, {i})",
    "{0}.clamp(min={f})",
    "torch.clamp({0}, max={s})",
    "torch.clamp({0}, {1}, {2})",
    "{0} < {1}",
    "{0} >= {f}",
    "{0} == {s}",
    "({0} < {1}) & ({1} <= {2})",
    "({0} < {1}) | ~({0} != {2})",
    "({0} > 0) ^ ({1} > 0)",
    "({0} > {i}) + ({1} > {i})",
    "({0} > {i}) * {1}",
    "({0} > 0).sum({d}{k})",
    "({0} > 0).any({d}{k})",
    "({0} == {1}).all()",
    "torch.logical_not({0})",
    "torch.logical_xor({0}, {1})",
    "torch.sign({0})",
    "torch.isfinite({0})",
    "torch.isnan({0}) | torch.isinf({1})",
    "{0}.masked_fill({1} > {i}, {i})",
    "{0}.to({dtype})",
    "{0}.type_as({1})",
    "{0}.bool()",
    "torch.count_nonzero({0}, {d})",
    "torch.full_like({0}, {i})",
    "torch.zeros_like({0}, dtype={dtype})",
    "torch.ones_like({0}).cumsum({d})",
    "{0}.amax({d}{k})",
    "{0}.amin({d}{k})",
    "{0}.argmax({d})",
    "{0}.max({d})[0]",
    "{0}.min({d})[1]",
    "{0}.sort({d}, stable=True)[0]",
    "{0}.argsort({d}, stable=True)",
    "torch.eq({0}, {0}.flip({d}))",
    "torch.cat([{0}, {0}], {d})",
    "torch.stack([{0}, {0} * 2])",
    "{0}.roll(1, {d})",
    "{0}.repeat_interleave(2, {d})",
    "torch.tril({0})",
    "{0}.index_select({d}, torch.arange({0}.shape[{d}] - 1, -1, -1))",
    "{0}.gather({d}, torch.zeros_like({0}, dtype=torch.int64))",
    "{0}[torch.arange({0}.shape[0]) // 2]",
    "{0}.take_along_dim({0}.argsort({d}, stable=True), {d})",
]
REAL = [  # floating point, to the last bit
    "{0}.floor() + {0}.frac() * 0",
    "{0}.round()",
    "{0}.trunc()",
    "torch.nan_to_num({0}, {f}, 9., -9.)",
    "torch.copysign({0}, {1})",
    "torch.signbit({0})",
    "torch.relu({0}) - torch.relu(-{0})",
    "torch.fmax({0}, {1})",
    "torch.fmin({0}, {1})",
    "torch.heaviside({0}, {0}.abs())",
    "{0}.remainder({f} + 4)",
    "torch.fmod({0}, {i} + 1)",
    "torch.floor_divide({0}, {i} + 0.5)",
    "{0} / ({1}.abs() + 1)",
    "torch.nn.functional.hardtanh({0})",
    "torch.nn.functional.threshold({0}, {f}, {i})",
    "{0}.square().neg()",
    "{0}.clamp(-100, 100).to(torch.int32).nan_to_num()",
    "torch.nextafter({0}, {0} + 1)",
]
INTEGER = [
    "{0} // {n}",
    "{0} % {n}",
    "{0} // -{n}",
    "{0} % -{n}",
    "torch.fmod({0}, -{n})",
    "torch.div({0}, {n}, rounding_mode='trunc')",
    "torch.div({0}, torch.where({1} == 0, 3, {1}), rounding_mode='floor')",
    "torch.remainder({0}, torch.where({1} == 0, 2, {1}))",
    "{0} // torch.where({1} == 0, 3, {1})",
    "{0} << ({1} & 3)",
    "{0} >> ({1} & 3)",
    "{0} << {i}",
    "{0} >> {i}",
    "{0} & {1}",
    "{0} | {i}",
    "{0} ^ {1}",
    "~{0}",
    "{0} * {0} * {0} + {1}",
    "{0} * 77 + 100",
    "-{0}",
    "{0}.abs()",
    "{0} ** 2",
    "{0}.sum({d}{k})",
    "{0}.sum({d}, dtype=torch.int16)",
    "{0}.prod({d}{k})",
    "{0}.sum()",
    "{0}.cumsum({d})",
    "{0}.cumprod({d})",
    "{0}.to(torch.uint8) - 1",
    "torch.bitwise_not({0}).to(torch.int8) * 3",
    "torch.gcd({0}, {1})",
    "{0} / {n}",
    "torch.sqrt({0}.abs().clamp(max=100)).floor()",
]
SMOOTH = [
    "torch.exp({0}.clamp(-9, 3))",
    "torch.tanh({0}) * {t}",
    "torch.sigmoid({0} + {t})",
    "torch.log({0}.abs() + 1)",
    "({0} * {0} + 1).rsqrt()",
    "torch.softmax({0}, {d})",
    "torch.log_softmax({0}, {d})",
    "torch.logsumexp({0}, {d}{k})",
    "{0}.sum({d}{k})",
    "{0}.mean({d}{k})",
    "{0}.sum()",
    "{0}.mean()",
    "{0}.sum({d}, dtype=torch.float64)",
    "{0}.mean({d}, dtype=torch.float32)",
    "{0}.clamp(-3, 3).prod({d}{k})",
    "{0}.var({d}, correction={i}{k})",
    "{0}.std({d}, correction=0{k})",
    "torch.var_mean({0}, {d})[1]",
    "{0}.norm(dim={d}{k})",
    "torch.linalg.vector_norm({0}, {i}, {d}{k})",
    "{0}.cumsum({d})",
    "torch.lerp({0}, {0} * 2, {f})",
    "torch.addcmul({0}, {0}, {0}, value={f})",
    "torch.addcdiv({0}, {0}, {0} * {0} + 1, value={t})",
    "torch.nn.functional.silu({0}) * {1}",
    "torch.nn.functional.gelu({0}.clamp(-30, 30))",
    "torch.nn.functional.softplus({0})",
    "torch.nn.functional.layer_norm({0}, {0}.shape[-1:])",
    "torch.nn.functional.normalize({0}, dim={d})",
    "torch.hypot({0}, {1})",
    "torch.atan2({0}, {1}.abs() + 1)",
    "{0}.abs() ** {f}",
    "{i} ** {0}.clamp(-3, 3)",
    "torch.rand_like({0}) + {0}",
    "torch.randn({0}.shape) * {0}",
    "torch.nn.functional.dropout({0}, 0.4)",
    "{0} * torch.bernoulli(torch.full_like({0}, 0.5))",
    "torch.mean({0} * {1}, {d}) - {0}.mean()",
    "torch.einsum('...i->...', {0})",
    "torch.logaddexp({0}, {1})",
    "torch.nn.functional.mse_loss({0}, {0} * {t})",
    "torch.nn.functional.smooth_l1_loss({0}, {0} + {t}, reduction='none')",
]
VIEWS = [
    "{0}.unsqueeze({d})",
    "{0}.transpose(0, {d})",
    "{0}.squeeze()",
    "{0}.select({d}, 0)",
    "{0}.select({d}, -1)",
    "{0}.narrow({d}, 0, 1)",
    "{0}[..., 1:]",
    "{0}[..., ::2]",
    "{0}[:0]",
    "{0}[None].expand(3, *{0}.shape)",
    "{0}[..., None].expand(*{0}.shape, 2)",
    "{0}.diagonal()",
    "{0}.unfold({d}, 2, 1)",
    "{0}.reshape(-1)",
    "{0}.flatten(0, {d})",
    "{0}.tensor_split(2, {d})[1]",
    "{0}.unbind({d})[-1]",
    "{0}.movedim({d}, 0)",
    "{0}.view({0}.shape)",
    "{0}.permute(*reversed(range({0}.dim())))",
    "{0}.contiguous()",
    "{0}.sum({d}).expand_as({0}.select({d}, 0))",
]
WRITES = [
    "{0} += {i}",
    "{0} *= {s}",
    "{0}.sub_({1})",
    "{0}.mul_({1})",
    "{0}.copy_({1})",
    "{0}[...] = {1}",
    "{0}[0] = {i}",
    "{0}[..., -1] += 1",
    "{0}[..., 1:] *= 2",
    "{0}[..., ::2] = {0}[..., ::2] + 1",
    "{0}.select({d}, 0).neg_()",
    "{0}.fill_({i})",
    "{0}.masked_fill_({0} > {i}, {i})",
    "{0}.masked_fill_({1} > {i}, {i})",
    "{0}.clamp_(-3, {i})",
    "{0}.unsqueeze(0).add_(1)",
    "{0}.transpose(0, {d}).mul_(-1)",
    "{0}.view(-1)[1:].add_(1)",
    "{0}.diagonal().zero_()",
    "{0}.index_fill_({d}, torch.tensor([0]), {i})",
    "{0}[torch.arange({0}.shape[0]) // 2] = {i}",
    "{0}.index_add_({d}, torch.zeros({0}.shape[{d}], dtype=torch.int64), {0}.clone())",
    "{0}.zero_().add_({i})",
    "{0}.flip(0).add_(1)",
    "{0}.where({0} > 0, {1}).add_(1)",
    "{0}.swapaxes(0, {d})[..., 0].copy_({1}.sum())",
    "{0}.add_({0})",
    "{0}.sub_({0}[0])",
]
WRITES_SMOOTH = [
    "{0}.tanh_()",
    "{0}.normal_()",
    "{0}.uniform_(-1, 1)",
    "{0}.add_({1}, alpha=0.3)",
    "{0}.sigmoid_()",
]


SHAPES = [(), (1,), (5,), (17,), (3, 5), (4, 17), (2, 3, 5), (33,), (2, 1, 17), (0, 3), (8, 64), (2, 3, 4, 5)]


@dataclass
class Value:
    name: str
    tensor: Tensor
    exact: bool


@dataclass
class Program:
    source: str
    kinds: list[tuple[tuple[int, ...], torch.dtype, str]]  # of the tensors: shape, dtype, layout
    exact: list[bool]
    grad: str  # "", "outside", "within"
    special: bool

    def inputs(self, seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        return [made(shape, dtype, layout, self.special) for shape, dtype, layout in self.kinds]


def made(shape: tuple[int, ...], dtype: torch.dtype, layout: str, special: bool) -> Tensor:
    if layout == "expanded" and shape:
        return made((1, *shape[1:]), dtype, "", special).expand(shape)
    if layout == "sliced" and shape:
        return made((*shape[:-1], 2 * shape[-1] + 1), dtype, "", special)[..., 1::2]
    if layout == "transposed" and len(shape) > 1:
        return made((*shape[:-2], shape[-1], shape[-2]), dtype, "", special).transpose(-1, -2)
    if dtype == torch.bool:
        return torch.rand(shape) > 0.5
    if not dtype.is_floating_point:
        low = 0 if dtype == torch.uint8 else -12
        result = torch.randint(low, 13, shape).to(dtype)
        if special and result.numel():
            limits = torch.iinfo(dtype)
            result.view(-1)[0], result.view(-1)[-1] = limits.min, limits.max
        return result
    result = torch.randint(-24, 25, shape).double() / 8
    if special and result.numel():
        flat = result.view(-1)
        for value in (math.nan, math.inf, -math.inf, -0.0, 1e-40):
            flat[torch.randint(0, flat.numel(), ())] = value
    return result.to(dtype)


@dataclass
class Generator:
    rng: random.Random
    lines: list[str] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)

    def scope(self) -> dict:
        return {"torch": torch, "s": 2, "t": 0.75, **{v.name: v.tensor for v in self.values}}

    def pick(self, fits: Callable[[Value], bool]) -> Value:
        found = [v for v in self.values if fits(v)]
        if not found:
            raise LookupError
        return found[-1] if self.rng.random() < 0.5 else self.rng.choice(found)

    def formatted(self, row: str, first: Value, fits: Callable[[Value], bool]) -> tuple[str, list[Value]]:
        def near(v: Value) -> bool:
            try:
                torch.broadcast_shapes(v.tensor.shape, first.tensor.shape)
            except RuntimeError:
                return False
            return fits(v)

        used = [first]
        for place in ("{1}", "{2}"):
            if place in row:
                used.append(self.pick(near))
        rank = max(first.tensor.dim(), 1)
        dim = self.rng.randrange(-rank, rank)
        text = row.format(
            *[v.name for v in used],
            i=self.rng.choice([0, 1, 2, 3]),
            n=self.rng.choice([1, 2, 3, 5, 7]),
            f=self.rng.choice([0.5, -1.5, 2.0, 0.1, 3.0]),
            d=dim,
            s="s",
            t="t",
            k=self.rng.choice(["", ", keepdim=True"]),
            dtype=self.rng.choice([*FLOATS, *INTS]),
        )
        if ".to(" in row and first.tensor.is_floating_point() and "torch.int" in text or "uint8" in text:
            if first.tensor.is_floating_point():  # what does not fit is undefined
                raise LookupError
        return text, used

    def emit(self, row: str, fits: Callable[[Value], bool], exact: bool | None = None) -> None:
        text, used = self.formatted(row, self.pick(fits), fits)
        result = eval(text, self.scope())  # noqa: S307
        if not isinstance(result, Tensor) or result.is_complex() or result.numel() > 6000:
            raise LookupError
        name = f"v{len(self.lines)}"
        self.lines.append(f"{name} = {text}")
        known = all(v.exact for v in used) and "{t}" not in row if exact is None else exact
        known = known or not result.is_floating_point()
        self.values.append(Value(name, result, known))

    def write(self) -> None:
        smooth = self.rng.random() < 0.2
        row = self.rng.choice(WRITES_SMOOTH if smooth else WRITES)

        def fits(v: Value) -> bool:
            # Comparisons of what is inexact come out differently.
            return (v.exact or not ("masked" in row or "where" in row)) and (
                v.tensor.is_floating_point() or not smooth
            )

        target = self.pick(lambda v: fits(v) and 0 not in v.tensor.stride())
        text, used = self.formatted(row, target, fits)
        saved = [(v, clone_layout(v.tensor)) for v in self.values]
        scope = self.scope()
        try:
            exec(text, scope)  # noqa: S102
        except Exception:
            for v, copy in saved:
                v.tensor.copy_(copy) if 0 not in v.tensor.stride() else None
            raise LookupError from None
        self.lines.append(text)
        if smooth or ".sum()" in row or not all(v.exact for v in used):
            for u in self.values:
                if storage_of(u.tensor) == storage_of(target.tensor):
                    u.exact = False

    def step(self, mutate: bool) -> None:
        def exact(v: Value) -> bool:
            return v.exact

        def real(v: Value) -> bool:
            return v.tensor.is_floating_point()

        def integer(v: Value) -> bool:
            return not v.tensor.is_floating_point() and v.tensor.dtype != torch.bool

        kind = self.rng.random()
        if mutate and kind < 0.25:
            self.write()
        elif kind < 0.5:
            self.emit(self.rng.choice(ANY), exact)
        elif kind < 0.62:
            self.emit(self.rng.choice(REAL), lambda v: exact(v) and real(v))
        elif kind < 0.75:
            self.emit(self.rng.choice(INTEGER), integer)
        elif kind < 0.88:
            self.emit(self.rng.choice(SMOOTH), real, False)
        else:
            self.emit(self.rng.choice(VIEWS), lambda v: True)


def generate(seed: int, steps: int = 12) -> Program:
    rng = random.Random(seed)
    grad = rng.choice(["", "", "", "outside", "within"])
    mutate = rng.random() < 0.4
    special = rng.random() < 0.3 and not grad
    generator = Generator(rng)
    kinds = []
    base = rng.choice(SHAPES)
    few = [torch.float32, torch.int64, torch.bool]
    dtypes = rng.choice([FLOATS, [*FLOATS, *INTS, torch.bool], INTS, few])
    if grad:
        dtypes = [torch.float32, torch.float64]
    for _ in range(rng.randint(1, 4)):
        shape = base if rng.random() < 0.6 else rng.choice([(), base[-1:], base, rng.choice(SHAPES)])
        layout = rng.choice(["", "", "", "expanded", "sliced", "transposed"])
        kinds.append((shape, rng.choice(dtypes), layout))
    program = Program("", kinds, [], grad, special)
    inputs = program.inputs(seed)
    for i, tensor in enumerate(inputs):
        generator.values.append(Value(f"x{i}", tensor, True))
    tries = 0
    count = rng.randint(3, steps)
    while len(generator.lines) < count and tries < 20 * count:
        tries += 1
        try:
            generator.step(mutate and not grad)
        except Exception:
            continue
    computed = [v for v in generator.values if v.name.startswith("v")] or generator.values
    chosen = {v.name: v for v in [computed[-1], *rng.sample(computed, min(len(computed), 3))]}
    if mutate and rng.random() < 0.3:
        chosen["x0"] = generator.values[0]
    names = list(chosen)
    parameters = ", ".join([*(f"x{i}" for i in range(len(kinds))), "s", "t"])
    lines = [*generator.lines]
    program.exact = [v.exact for v in chosen.values()]
    if grad == "within":
        leaves = [f"x{i}" for i in range(len(kinds))]
        total = " + ".join([f"{n}.double().sum()" for n in names] + [f"{n}.double().mean()" for n in leaves])
        lines.append(f"loss = {total}")
        lines.append(f"grads = torch.autograd.grad(loss, [{', '.join(leaves)}], allow_unused=True)")
        result = f"[{', '.join(f'{n}.detach()' for n in names)}, *grads]"
    else:
        result = f"[{', '.join(names)}]"
    body = "".join(f"    {line}\n" for line in lines)
    program.source = f"def fn({parameters}):\n{body}    return {result}\n"
    return program


NUMBERS = [(2, 0.75), (2, 0.75), (3, -0.5), (0, 1.25), (-7, 0.75)]


def outcome(fn: Callable, program: Program, seed: int, numbers: tuple[int, float]) -> tuple:
    inputs = [clone_layout(t) for t in program.inputs(seed)]
    if program.grad:
        inputs = [t.detach().requires_grad_() for t in inputs]
    torch.manual_seed(seed)
    gradients = []
    with torch.set_grad_enabled(bool(program.grad)):
        try:
            results = list(fn(*inputs, *numbers))
            error = ""
        except Exception as raised:
            return [], inputs, [], str(raised).splitlines()[0], None
        state = torch.get_rng_state()
        if program.grad == "outside":
            roots = [r for r in results if r.requires_grad]
            if roots:
                total = sum(r.double().sum() for r in roots)
                try:
                    gradients = list(torch.autograd.grad(total, inputs, allow_unused=True))
                except RuntimeError as raised:
                    error = str(raised).splitlines()[0]
    return results, inputs, gradients, error, state


def shared(tensors: list[Tensor]) -> list[int]:
    pointers = [storage_of(t) if t is not None and t.numel() else -1 - i for i, t in enumerate(tensors)]
    return [pointers.index(p) for p in pointers]


def loosest_of(program: Program) -> float:
    """The tolerance of the coarsest dtype that the program may compute in."""
    used = [d for d in FLOATS if str(d) in program.source or any(d == kind[1] for kind in program.kinds)]
    return max(TOLERANCE[d] for d in [torch.float32, *used])


def check(program: Program, seed: int) -> str | None:
    scope: dict = {"torch": torch}
    exec(program.source, scope)  # noqa: S102
    fn = scope["fn"]
    flashpoint.reset()
    compiled = flashpoint.compile(fn, backend="native")
    loosest = loosest_of(program)
    for call, numbers in enumerate(NUMBERS):
        values = seed if call < 2 else seed + call
        want = outcome(fn, program, values, numbers)
        got = outcome(compiled, program, values, numbers)
        where = f"call {call}, numbers {numbers}: "
        if want[3] or got[3]:
            if want[3] != got[3]:
                return where + f"error {got[3]!r} instead of {want[3]!r}"
            continue
        if not torch.equal(want[4], got[4]):
            return where + "random state"
        scale = 1.0
        for t in [*want[0], *want[1], *want[2]]:
            if t is not None and t.numel():
                scale = max(scale, float(t.detach().double().nan_to_num(0, 0, 0).abs().max()))
        exact = [*program.exact, *[False] * len(want[0])][: len(want[0])]
        named = [("output", want[0], got[0]), ("input", want[1], got[1]), ("gradient", want[2], got[2])]
        for what, theirs, mine in named:
            for i, (b, a) in enumerate(zip(theirs, mine, strict=True)):
                if (a is None) != (b is None):
                    return where + f"{what} {i} is None on one side"
                if b is None:
                    continue
                if a.requires_grad != b.requires_grad:
                    return where + f"{what} {i}: requires_grad {a.requires_grad}"
                found = compare(a.detach(), b.detach(), what == "output" and exact[i], scale, loosest)
                if found:
                    return where + f"{what} {i}: {found}"
                if what == "input" and a._version != b._version:
                    return where + f"input {i}: version {a._version} instead of {b._version}"
        if shared([*got[1], *got[0]]) != shared([*want[1], *want[0]]):
            return where + "outputs share storage differently"
    return None


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=12)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    flashpoint.config.native_patience = 0
    failures = 0
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        program = generate(seed, arguments.steps)
        message = check(program, seed)
        if message:
            failures += 1
            print(f"\nseed {seed}: {message[:600]}\n{program.source}{program.kinds}", flush=True)
    counters = flashpoint.counters()
    told = ", ".join(f"{name} {counters[name]}" for name in ("kernels_run", "ops_lowered", "hits"))
    print(f"\n{failures} failures; {told}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
