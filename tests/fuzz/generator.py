"""Random programs: `generate(seed)` gives the same one every time.

A program has classes, helpers and globals, and `fn`, built from the statements below over the types of
tests.fuzz.expressions. Each uses a random part of the kinds of statements (so that rare kinds meet often), and is
called several times with the same, new and changed inputs. Eager may raise: exceptions are compared too.
To add a statement: add a method and its row to `KINDS`.
"""
# fmt: off

from __future__ import annotations

import random
import re
from collections.abc import Callable

from tests.fuzz.expressions import KEYS, WORDS, Expressions, Scope
from tests.fuzz.program import Program, Stmt
from tests.support import Call

_CLASSES = """\
class Base:
  k = 2
  def add(self, v): return (self.n + v) % 7
  def __len__(self): return len(self.l)
class C{slots}:
  def __init__(self, n, t):
    self.n, self.t, self.l, self.d = n, t, [n], {{'a': n}}
  @property
  def twice(self): return self.n * self.k
  def scale(self, t):
    self.n {bump}
    return t * 0.5 + self.{use}
  def __call__(self, t): return {call}
  @functools.cached_property
  def held(self): return self.n + 1
class CM:
  depth = 0
  def __enter__(self):
    CM.depth += 1
    return CM.depth
  def __exit__(self, kind, value, tb):
    CM.depth -= 1
    return kind is not None and issubclass(kind, {swallows})
class Mod(nn.Module):
  def __init__(self):
    super().__init__()
    self.lin = nn.Linear(3, 3)
    self.drop = nn.Dropout(0.3)
    self.calls = 0
    self.register_buffer('mean', torch.zeros(3))
  def forward(self, t):
    {forward}
    return self.drop(self.lin(t).tanh())
  @functools.cached_property
  def kept(self): return self.calls
def gen2(t):
  yield t
  yield t + 1
  return 4
def gen(n):
  for j in range(n):
    yield j * 2
def ticking(t):
  n = 0
  while True:
    n += 1
    sent = yield t * n
    if sent is not None: t = t + sent
class P(typing.NamedTuple):
  a: object
  b: int = 2
@functools.lru_cache(4)
def cached(n): return n * 2
"""
_GLOBALS = """\
W = torch.eye(3) * 0.5 + 0.1
G = 3
GL = [1, 2]
GD = {'a': 1, 'b': 2}
GT = torch.ones(2, 3)
GTL = []
GQ = collections.deque([1], maxlen=3)
GG = ticking(torch.ones(2, 3))
o0, o1 = C(2, torch.full((2, 3), 0.5)), C(3, torch.ones(2, 3))
mod = Mod()
GR = weakref.ref(o0)
w = torch.full((2, 3), 0.25, requires_grad=True)
x0, x1, x2 = torch.arange(6.).reshape(2, 3) / 4, torch.linspace(-1, 1, 6).reshape(2, 3), torch.arange(12.).reshape(4, 3) / 8
xt, xv = torch.arange(6.).reshape(3, 2).t() / 5, torch.arange(12.).reshape(4, 3)[1:3] / 9
"""
_PARAMETERS = (
    ("x", "m", ("x0", "x0", "x1", "x2", "xt", "xv", "w", "x0.clone()", "GT", "x0.double()", "nn.Parameter(x1)")),
    ("z", "m", ("x1", "x1", "x0", "x2", "xv", "GT", "o0.t")),
    ("n", "i", ("2", "2", "3", "5", "True", "-1", "0")),
    ("f", "f", ("0.5", "0.5", "1.25", "-0.0", "2", "float('nan')")),
    ("s", "t", ("'a'", "'a'", "'flash'", "''")),
    ("l", "L", ("[1, 2, 3]", "[1, 2, 3]", "[2, 1]", "[]", "GL", "[True, 2.0]")),
    ("d", "D", ("{'a': 1, 'c': 2}", "{'a': 1, 'c': 2}", "{'c': 2, 'a': 1}", "{}", "GD")),
    ("o", "O", ("o0", "o0", "o1")),
    ("q", "T", ("[x0, x1]", "[x0, x1]", "[x1]", "[x0, x0]", "GTL")),
    ("g", "F", ("torch.sin", "torch.sin", "torch.cos", "lambda t: t + 1", "mod")),
)
_CHANGES = (
    "G = 5", "G = G + 1", "GL.append(4)", "GL.reverse()", "GD['c'] = 7", "GD.pop('a', None)", "GT = torch.zeros(2, 3)", "GT.add_(1)", "o0.n = 6",
    "o0.t = torch.zeros(2, 3)", "o0.l.append(9)", "o0.extra = 1", "o0.k = 5", "C.k = 4", "C.twice = property(lambda self: 11)", "Base.add = lambda self, v: 1",
    "o0.__class__ = C", "mod.eval()", "mod.train()", "mod.calls = 9", "mod.mean.add_(1)", "mod.lin.weight.data.mul_(0.5)", "mod.lin = nn.Linear(3, 3)",
    "torch.set_grad_enabled(False)", "torch.set_grad_enabled(True)", "torch.manual_seed(3)", "W = torch.ones(3, 3)", "o0.scale = lambda t: t", "o0.d['a'] = 3",
    "mod.register_forward_hook(lambda m, a, r: r * 2)", "helper.__defaults__ = (4,)", "len = lambda v: 2", "x0.add_(1)", "GTL.append(x1)", "w.grad = None",
    "GQ.append(7)", "C.k = 9", "o0.__dict__.pop('held', None)", "cached.cache_clear()", "x0.tag = 5", "GR = weakref.ref(o1)", "GQ = collections.deque(maxlen=2)",
    "gen = lambda n: iter([1])", "torch.set_default_dtype(torch.float64)", "x0 = x0.clone().requires_grad_()", "del o0.n",
)
_INTEGERS = ("2", "3", "5", "-1", "0", "1", "7", "11", "400")
_FLOATS = ("0.5", "1.25", "-0.0", "2.0", "1.0", "float('nan')", "-3.5", "0.1", "float('inf')")
_DRIFTS = (
    "G = G + 1", "o0.n = o0.n + 1", "mod.calls += 3", "GD['c'] = GD.get('c', 0) + 1", "o0.n = o0.n * 0.5", "G += 1; o0.n = 4", "G = 7; mod.calls = -1",
)


class Generator(Expressions):
    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        super().__init__(rng, risky=rng.random() < 0.15)
        self.breaking = rng.random() < 0.3  # statements that end a graph, and what comes behind them
        self.drifting = random.Random(-1 - seed).random() < 0.2  # numbers change from call to call
        self.seed = seed
        self.counter = 0
        self.loops = 0
        self.globals_written: set[str] = set()
        self.depth = 0
        self.nesting = 0
        self.in_helper = True
        self.kinds: list[Callable[[], Stmt | None]] = []

    def fresh(self) -> str:
        self.counter += 1
        return f"v{self.counter}"

    def assign(self) -> Stmt:
        kind = self.rng.choice("mmmmmrsiiifbtLLTDF")
        value = self.expr(kind, 3)
        return Stmt(f"{self.scope.add(kind, self.fresh())} = {value}")

    def reassign(self) -> Stmt | None:
        kind = self.rng.choice("mmmiifLTD")
        names = self.scope.names.get(kind)
        return Stmt(f"{self.rng.choice(names)} = {self.expr(kind, 3)}") if names else None

    def augment(self) -> Stmt | None:
        kind = self.rng.choice("mmiiLt")
        names = self.scope.names.get(kind)
        if not names:
            return None
        name = self.rng.choice(names)
        op = {"m": "+-*", "i": "+-*", "L": "+", "t": "+"}[kind]
        value = self.expr(self.rng.choice("mrif") if kind == "m" else kind, 1)
        return Stmt(f"{name} {self.rng.choice(op)}= {value}")

    def inplace(self) -> Stmt | None:
        v, c = self.name("m"), self.rng.choice
        return Stmt(c([
            f"{v}.add_({self.expr('m', 1)})", f"{v}.mul_({self.number(1)})", f"{v}[0] = {self.expr('r', 1)}", f"{v}[:, {c('012')}] = {self.number(1)}",
            f"{v}[0].add_({self.expr('r', 1)})", f"{v}.copy_({self.expr('m', 1)})", f"{v}.clamp_(-1, 1)", f"torch.add({self.expr('m', 1)}, 1, out={v})",
            f"{v}[{v} > 0] = {self.number(1)}", f"{v}.t().mul_(2)", f"{v}.view(-1)[:2].zero_()", f"{v}[0, 1] += {self.number(1)}",
        ])) if v else None

    def unpack(self) -> Stmt:
        a, b, c = self.fresh(), self.fresh(), self.rng.choice
        if c([True, False]):
            text = f"{a}, *{b} = {self.expr('L', 1)} + [{self.expr('i', 1)}]"
            self.scope.add("i", a), self.scope.add("L", b)
        else:
            text = f"{a}, {b} = {self.expr('m', 2)}, {self.expr('i', 2)}"
            self.scope.add("m", a), self.scope.add("i", b)
        return Stmt(text)

    def swap(self) -> Stmt | None:
        names = self.scope.names.get(self.rng.choice("mi"), [])
        if len(names) < 2:
            return None
        a, b = self.rng.sample(names, 2)
        return Stmt(f"{a}, {b} = {b}, {a}")

    def object_write(self) -> Stmt | None:
        o, c = self.name("O"), self.rng.choice
        return Stmt(c([
            f"{o}.n = {self.expr('i', 2)}", f"{o}.n += 1", f"{o}.t = {self.expr('m', 2)}", f"{o}.l.append({self.expr('i', 1)})", f"{o}.z = {self.expr('i', 1)}",
            f"{o}.d['{c(KEYS)}'] = {self.expr('i', 1)}", f"{o}.t.add_({self.number(1)})", f"setattr({o}, 'z', {self.expr('i', 1)})", f"{o}.l = {self.expr('L', 1)}",
            f"{o}.__dict__['z'] = {self.expr('i', 1)}", f"{o}.last = {self.expr('m', 1)}", f"type({o}).k = {self.expr('i', 1)}",
        ])) if o else None

    def attribute_delete(self) -> Stmt | None:
        o = self.name("O")
        return Stmt(clauses=[(f"if hasattr({o}, 'z'):", [Stmt(f"del {o}.z")])]) if o else None

    def list_write(self) -> Stmt | None:
        v, c, i = self.name("L"), self.rng.choice, (lambda: self.expr("i", 1))
        return Stmt(c([
            f"{v}.append({i()})", f"{v}.insert(0, {i()})", f"{v}.sort()", f"{v}.reverse()", f"{v}.extend({self.expr('L', 1)})", f"{v}[1:] = [{i()}]",
            f"{v}[:] = {self.expr('L', 1)}", f"{v}.append(len({v}))", f"{v}.sort(key=lambda k: -k)",
            f"GQ.append({i()})", f"{v}[:] = [*GQ]", f"list(map({v}.append, [{i()}]))", f"{v}.remove({i()}) if {i()} in {v} else None",
        ])) if v else None

    def list_take(self) -> Stmt | None:
        v = self.name("L")
        if not v:
            return None
        name = self.fresh()
        stmt = Stmt(f"{name} = {v}.pop({self.rng.choice(['', '0'])}) if {v} else {self.expr('i', 1)}")
        self.scope.add("i", name)
        return stmt

    def tensors_write(self) -> Stmt | None:
        v = self.name("T")
        return Stmt(self.rng.choice([f"{v}.append({self.expr('m', 1)})", f"{v}[-1:] = [{self.expr('m', 1)}]", f"{v}.reverse()"])) if v else None

    def dict_write(self) -> Stmt | None:
        v, c, i = self.name("D"), self.rng.choice, (lambda: self.expr("i", 1))
        return Stmt(c([
            f"{v}['{c(KEYS)}'] = {i()}", f"{v}.pop('{c(KEYS)}', None)", f"{v}.update({c(KEYS)}={i()})", f"{v}.setdefault('{c(KEYS)}', {i()})",
            f"{v}.update({self.expr('D', 1)})", f"{v}['n'] = {v}.get('n', 0) + 1",
            f"{v}['{c(KEYS)}'] = len({v})", f"{v}['{c(KEYS)}'] = {v}.pop('{c(KEYS)}', 1)",
        ])) if v else None

    def global_write(self) -> Stmt:
        name, text = self.rng.choice([
            ("G", f"G = {self.expr('i', 2)}"), ("G", "G += 1"), ("GT", f"GT = {self.expr('m', 2)}"), ("", "GL.append(G)"), ("", "GD['c'] = G"),
            ("", f"GTL.append({self.expr('m', 1)})"), ("", "GT.mul_(0.5)"), ("GL", f"GL = {self.expr('L', 1)}"), ("", "C.k += 1"), ("", "mod.calls += 1"),
            ("", f"C.k = {self.expr('i', 1)}"), ("", "GQ.popleft() if GQ else None"), ("", f"GT.tag = {self.expr('i', 1)}"),
            ("made", f"made = {self.expr('i', 1)}"),
        ])
        if name and self.depth == 0:
            self.globals_written.add(name)
        elif name:
            return Stmt("GL.append(1)")
        return Stmt(text)

    def block(self, size: int, extra: dict[str, str] | None = None) -> list[Stmt]:
        outer, self.scope = self.scope, Scope(self.scope)
        self.nesting += 1
        for name, kind in (extra or {}).items():
            self.scope.add(kind, name)
        body = self.statements(size)
        self.nesting -= 1
        self.scope = outer
        return body

    def branch(self) -> Stmt:
        clauses = [(f"if {self.expr('b', 2)}:", self.block(2))]
        if self.chance(0.3):
            clauses.append((f"elif {self.expr('b', 2)}:", self.block(2)))
        if self.chance(0.6):
            clauses.append(("else:", self.block(2)))
        return Stmt(clauses=clauses)

    def loop(self) -> Stmt | None:
        if self.loops >= 2:
            return None
        a, b, c = self.fresh(), self.fresh(), self.rng.choice
        header, names = c([
            (f"for {a} in range({self.expr('i', 1)} % 4):", {a: "i"}), (f"for {a} in {self.expr('L', 1)}[:4]:", {a: "i"}),
            (f"for {a}, {b} in enumerate({self.expr('T', 1)}[:3]):", {a: "i", b: "m"}), (f"for {a} in gen({self.expr('i', 1)} % 4):", {a: "i"}),
            (f"for {a}, {b} in list({self.expr('D', 1)}.items()):", {a: "t", b: "i"}), (f"for {a} in {self.expr('m', 1)}:", {a: "r"}),
            (f"for {a}, {b} in zip({self.expr('L', 1)}[:3], {self.expr('T', 1)}):", {a: "i", b: "m"}),
        ])
        self.loops += 1
        body = self.block(2, names)
        self.loops -= 1
        if self.chance(0.3):
            body.insert(self.rng.randrange(len(body) + 1), Stmt(clauses=[(f"if {self.expr('b', 1)}:", [Stmt(c(["break", "continue"]))])]))
        clauses = [(header, body)]
        if self.chance(0.15):
            clauses.append(("else:", self.block(1)))
        return Stmt(clauses=clauses)

    def while_loop(self) -> Stmt | None:
        if self.loops >= 2:
            return None
        n = self.fresh()
        self.loops += 1
        body = [Stmt(f"{n} -= 1", fixed=True), *self.block(2)]
        self.loops -= 1
        return Stmt(f"{n} = {self.expr('i', 1)} % 4", [(f"while {n} > 0:", body)])

    def attempt(self) -> Stmt:
        c = self.rng.choice
        body = self.block(1)
        failing = c([f"raise {c(['ValueError', 'KeyError', 'IndexError'])}({self.expr('i', 1)})", f"{self.expr('L', 1)}[{self.expr('i', 1)}]",
                     f"{self.expr('D', 1)}['{c(KEYS)}']", f"1 // {self.expr('i', 1)}", f"{self.expr('m', 1)} @ {self.expr('m', 1)}", "undefined_name"])
        guard = Stmt(clauses=[(f"if {self.expr('b', 1)}:", [Stmt(failing)])]) if self.chance(0.6) else Stmt(failing)
        body.insert(self.rng.randrange(len(body) + 1), guard)
        name = self.fresh()
        clauses = [("try:", body), (f"except {c(['ValueError', 'LookupError', 'Exception', 'ZeroDivisionError', '(KeyError, ValueError)'])} as {name}:",
                                    [Stmt(f"GL.append(len({name}.args))"), *self.block(1)])]
        if self.chance(0.2):
            clauses.append(("else:", self.block(1)))
        if self.chance(0.4):
            clauses.append(("finally:", self.block(1)))
        return Stmt(clauses=clauses)

    def with_block(self) -> Stmt:
        name = self.fresh()
        header, names = self.rng.choice([
            ("with torch.no_grad():", {}), ("with torch.enable_grad():", {}), (f"with CM() as {name}:", {name: "i"}),
            ("with contextlib.suppress(ValueError, RuntimeError):", {}), (f"with torch.set_grad_enabled({self.expr('b', 1)}):", {}),
            (f"with CM() as {name}, torch.no_grad():", {name: "i"}),
        ])
        return Stmt(clauses=[(header, self.block(2, names))])

    def nested_function(self) -> Stmt | None:
        if self.depth >= 2:
            return None
        name, t, k, c = self.fresh(), self.fresh(), self.fresh(), self.rng.choice
        signature, names = c([(f"{t}", {}), (f"{t}, {k}={self.expr('i', 0)}", {k: "i"}), (f"{t}, *{k}, scale={self.expr('f', 0)}, **kw", {k: "L"})])
        outer_ints = list(self.scope.names.get("i", [])) if self.depth else []
        self.depth += 1
        loops, self.loops = self.loops, 0
        body = self.block(2, {t: "m", **names})
        self.loops = loops
        self.depth -= 1
        if outer_ints and self.chance(0.4):
            body[:0] = [Stmt(f"nonlocal {outer_ints[-1]}", fixed=True), Stmt(f"{outer_ints[-1]} += 1")]
        body.append(Stmt(f"return {t} * {self.number(0)}", fixed=True))
        self.scope.add("F", name)
        return Stmt(clauses=[(f"def {name}({signature}):", body)])

    def call_with_extras(self) -> Stmt | None:
        if self.in_helper:  # they would call themselves without end
            return None
        name = self.fresh()
        text = self.rng.choice([
            f"{name} = helper({self.expr('m', 1)}, {self.expr('i', 1)})", f"{name} = helper({self.expr('m', 1)})", f"{name} = helper(t={self.expr('m', 1)}, k={self.expr('i', 1)})",
            f"{name} = variadic({self.expr('m', 1)}, *{self.expr('L', 1)}, **{self.expr('D', 1)})", f"{name} = variadic({self.expr('m', 1)}, {self.expr('i', 1)}, b={self.expr('i', 1)})",
            f"{name} = deep({self.expr('m', 1)}, {self.expr('i', 1)} % 4)",
        ])
        self.scope.add("m", name)
        return Stmt(text)

    def make_object(self) -> Stmt:
        name = self.fresh()
        stmt = Stmt(f"{name} = C({self.expr('i', 1)}, {self.expr('m', 1)})")
        self.scope.add("O", name)
        return stmt

    def early_return(self) -> Stmt:
        return Stmt(clauses=[(f"if {self.expr('b', 2)}:", [Stmt(f"return {self.result()}")])])

    def deliberate_raise(self) -> Stmt:
        return Stmt(clauses=[(f"if {self.expr('b', 2)} and {self.expr('b', 1)}:", [Stmt(f"raise ValueError({self.expr('t', 1)}, {self.expr('i', 1)})")])])

    def text_building(self) -> Stmt:
        name = self.fresh()
        stmt = Stmt(f"{name} = {self.expr('t', 3)}")
        self.scope.add("t", name)
        return stmt

    def backward(self) -> Stmt:
        return Stmt(self.rng.choice(["w.grad = None", f"(({self.expr('m', 1)}).mean() * w.sum()).backward()"]))

    def output(self) -> Stmt:
        return Stmt(f"print({self.expr(self.rng.choice('itLD'), 1)})")

    def pause(self) -> Stmt:
        return Stmt(self.rng.choice(["print(end='')", "print('x')", "torch._dynamo.graph_break()", f"assert ({self.expr('m', 1)}).sum() > -1e9",
                                     f"print('%.2f %s' % ({self.number(1)}, {self.expr('t', 1)}))"]))

    def pause_while_handling(self) -> Stmt:
        c, name = self.rng.choice, self.fresh()
        failing = c([f"raise ValueError({self.expr('t', 1)}, {self.expr('i', 1)})", "raise KeyError('k')", "undefined_name", f"int({self.expr('t', 1)})",
                     "warnings.warn('w', 3)", "[][2]"])
        seen = c([f"print(repr({name}), repr({name}.__context__))", "print(repr(sys.exc_info()[1]))", f"print({name}.__traceback__.tb_lineno)", "print(end='')"])
        handler = [self.pause(), *self.block(1), Stmt(seen), *self.block(1)]
        handler.append(Stmt(c(["pass", "raise", f"raise {name}", f"raise RuntimeError('again') from {name}", "raise LookupError('other')"])))
        inner = [("try:", [*self.block(1), Stmt(failing), *self.block(1)]), (f"except {c(['Exception', '(ValueError, NameError)'])} as {name}:", handler)]
        if self.chance(0.4):
            inner.append(("finally:", [self.pause(), *self.block(1)]))
        if self.chance(0.3):
            inner = [(c(["with CM():", "with contextlib.suppress(LookupError):"]), [Stmt(clauses=inner)])]
        return Stmt(clauses=[("try:", [Stmt(clauses=inner)]), ("except Exception:", [Stmt("print(repr(sys.exc_info()[1]))"), *self.block(1)])])

    def pause_in_region(self) -> Stmt:
        body = [*self.block(1), self.pause(), *self.block(1)]
        region = self.rng.choice(["torch.inference_mode()", "torch.inference_mode(False)", "torch.no_grad(), torch.inference_mode()"])
        return Stmt(clauses=[(f"with {region}:", body)])

    def pause_in_generator(self) -> Stmt:
        name, v = self.fresh(), self.fresh()
        make = Stmt(clauses=[(f"def {name}(t):", [Stmt(clauses=[("for j in range(2):", [Stmt("t = t + j"), self.pause(), Stmt("yield t")])])])])
        walk = Stmt(self.rng.choice([f"GL.append(len([v for v in {name}({self.expr('m', 1)})]))", f"GT = GT + sum({name}({self.expr('m', 1)})).sum()",
                                     f"{v} = {name}({self.expr('m', 1)}); GT = next({v}); print(end=''); GT = GT + next({v}).sum()"]))
        self.globals_written.add("GT")
        return Stmt(clauses=[("if True:", [make, walk])])

    def make_generator(self) -> Stmt | None:
        if self.depth >= 2:
            return None
        make, t, v, c = self.fresh(), self.fresh(), self.fresh(), self.rng.choice
        self.depth += 1
        loops, self.loops = self.loops, 0

        def pause() -> list[Stmt]:
            return [self.pause()] if self.breaking and self.chance(0.4) else []

        def step() -> list[Stmt]:
            text = c([f"yield {t}", f"yield {t} * 2", f"{v} = yield {t}", f"GL.append((yield {t}) is None)", f"yield from (u * {t} for u in range(2))",
                      f"{v} = yield from gen2({t})"])
            return [*self.block(1, {t: "m"}), *pause(), Stmt(text), *pause()]

        left = [*pause(), Stmt("GL.append(7)"), *self.block(1, {t: "m"})]
        body = c([
            [(f"for j in range({c('123')}):", [*step(), Stmt(f"{t} = {t} + j")])], [("try:", [*step(), *step()]), ("finally:", left)],
            [("try:", [*step(), *step()]), (f"except {c(['ValueError', 'GeneratorExit', 'Exception'])} as e:", [*left, Stmt(c(["raise", "return 5", "pass", f"yield {t}"]))])],
            [("with CM():", [*step(), *step()])], [("if True:", [*step(), *step(), Stmt(c(["return 3", "pass", f"return {t}"]))])],
        ])
        self.loops = loops
        self.depth -= 1
        name = self.fresh()
        arg, k = self.expr("m", 1), self.number(0)
        made = Stmt(f"{name} = " + c([f"{make}({arg})", f"(u + {k} for u in {make}({arg}))"]))
        self.scope.add("N", name)
        return Stmt(clauses=[("if True:", [Stmt(clauses=[(f"def {make}({t}):", [Stmt(clauses=body)])]), made])])

    def use_generator(self) -> Stmt | None:
        g, a, b, c = self.name("N") or "GG", self.fresh(), self.fresh(), self.rng.choice
        endless = g == "GG"
        walk = self.block(1, {a: "m"})
        if endless or self.chance(0.3):
            walk.append(Stmt("break"))
        if self.breaking and self.chance(0.4):
            walk.insert(0, self.pause())
        texts = [f"{a} = next({g}, {self.expr('m', 0)})", f"GL.append(len([{b} for {b} in itertools.islice({g}, 2)]))", f"{a} = {g}.gi_running", f"{a} = [{g}, {g}]"]
        if not endless:
            texts += [f"{g}.close()", f"{a} = list({g})", f"GL.append(sum(1 for {b} in {g}))", f"{a}, *{b} = [*{g}, 1]", f"{g} = None if {self.expr('b', 1)} else {g}"]
        attempt = c([f"{g}.send({c(['1', 'None', self.expr('m', 0)])})", f"next({g})", f"{g}.throw(ValueError('t'))" if not endless else f"next({g})", f"{g}.send(None)"])
        failing = [("try:", [Stmt(attempt)]), (f"except (StopIteration, ValueError, TypeError) as {b}:", [Stmt(f"GL.append(type({b}).__name__)")])]
        clauses = c([[(f"for {a} in {g}:", walk)], [(f"for {b}, {a} in {c(['enumerate', 'zip'])}({g}):".replace("zip(", "zip([1, 2], "), walk)], failing, []])
        return Stmt(clauses=clauses) if clauses else Stmt(c(texts))

    def read_tensor(self) -> Stmt:
        kind, text = self.rng.choice([
            ("f", "({m}).sum().item()"), ("i", "int(({m}).abs().sum() * 4) % 5"), ("b", "bool(({m}).sum() > {f})"), ("s", "({m})[({m}) > 0].sum()"),
            ("L", "(({m}) > 0).sum(0).tolist()"), ("m", "torch.from_numpy(({m}).detach().numpy() * 2)"), ("t", "str(({m}).mean().item())[:4]"),
            ("i", "({m}).nonzero().shape[0]"), ("f", "float(({m}).max())"), ("i", "len([1 for v in ({m}).flatten().tolist() if v > 0])")])
        value = text.replace("{m}", self.expr("m", 1)).replace("{f}", self.expr("f", 0))
        return Stmt(f"{self.scope.add(kind, self.fresh())} = {value}")

    def tensor_loop(self) -> Stmt:
        i, value = self.fresh(), self.fresh()
        body = [Stmt(f"{value} += ({self.expr('m', 1)}).sum().item() * {i}"), *self.block(2, {i: "i", value: "f"})]
        return Stmt(clauses=[(f"for {i}, {value} in enumerate([0.5, {self.expr('f', 0)}]):", body)])

    def tensor_branch(self) -> Stmt:
        return Stmt(clauses=[(f"if ({self.expr('m', 1)}).sum() > {self.number(0)}:", self.block(2)), ("else:", self.block(1))])

    def matching(self) -> Stmt:
        a, b = self.fresh(), self.fresh()
        subject = self.expr(self.rng.choice("LDit"), 1)
        return Stmt(clauses=[(f"match {subject}:", [Stmt(clauses=[
            (f"case [{a}, *{b}]:", self.block(1, {a: "i", b: "L"})), (f"case {{'a': {a}}}:", self.block(1, {a: "i"})), ("case 2 | 'a':", self.block(1)), (f"case C(n={a}):", self.block(1, {a: "i"})),
            ("case _:", self.block(1))], fixed=True)])])

    def statements(self, size: int) -> list[Stmt]:
        out: list[Stmt] = []
        for _ in range(self.rng.randint(1, size)):
            stmt = (self.rng.choice(self.kinds) if self.nesting < 3 else self.assign)()
            if stmt is not None:
                out.append(stmt)
        return out

    def result(self) -> str:
        parts = [self.expr(kind, 1) for kind in self.rng.sample("mmmriiftLTDb", self.rng.randint(1, 3))]
        shape = self.rng.choice(["{}", "[{}]", "({},)", "{{'r': [{}]}}"])
        if self.chance(0.35):
            return self.expr("m", 2)
        if self.chance(0.1) and self.name("O"):
            return f"{self.name('O')}, {self.expr('m', 1)}"
        return shape.format(", ".join(parts))

    def choose_kinds(self) -> None:
        often = [self.assign] * 6 + [self.reassign] * 2
        some = [self.augment, self.inplace, self.unpack, self.swap, self.object_write, self.attribute_delete, self.list_write, self.list_take,
                self.tensors_write, self.dict_write, self.global_write, self.branch, self.loop, self.while_loop, self.attempt, self.with_block,
                self.nested_function, self.call_with_extras, self.make_object, self.early_return, self.deliberate_raise, self.text_building, self.matching,
                self.make_generator, self.use_generator]
        if self.risky:
            some += [self.backward, self.output, self.tensor_branch]
        if self.breaking:
            often += [self.pause, self.read_tensor] * 2
            some += [self.tensor_branch, self.tensor_loop, self.pause_while_handling, self.pause_in_region, self.pause_in_generator]
        chosen = self.rng.sample(some, self.rng.randint(2, min(12, len(some))))
        if self.chance(0.25):
            chosen += [self.make_generator, self.use_generator, self.use_generator]
        self.kinds = often + chosen + chosen

    def module(self) -> list[Stmt]:
        c = self.rng.choice
        classes = _CLASSES.format(
            slots=c(["(Base)", "(Base)", "(Base)"]), bump=c(["+= 1", "= self.n", "= (self.n * 2) % 5"]), use=c(["t", "n", "k"]), swallows=c(["KeyError", "()"]),
            call=c(["t + self.n", "self.scale(t)", "t - self.t", "t"]), forward=c(["self.calls += 1", "pass", "self.mean = self.mean + t.detach().mean(0)", "self.mean.add_(1)"]))
        body = [Stmt(text) for text in re.split(r"\n(?=\S)", (classes + _GLOBALS).strip())]
        for name, kind in (("G", "i"), ("GL", "L"), ("GD", "D"), ("GT", "m"), ("o0", "O"), ("W", "W"), ("mod", "mod"), ("w", "m")):
            if self.chance(0.3):
                self.scope.add(kind, name)
        self.depth = 1
        outer, self.scope = self.scope, Scope(self.scope)
        self.scope.add("m", "t"), self.scope.add("i", "k")
        body.append(Stmt(clauses=[("def helper(t, k=2):", [*self.statements(2), Stmt(f"return {self.expr('m', 2)}")])]))
        self.scope = Scope(outer)
        self.scope.add("m", "t"), self.scope.add("L", "args"), self.scope.add("D", "kw")
        body.append(Stmt(clauses=[("def variadic(t, *args, **kw):", [Stmt("args = list(args)"), *self.statements(2), Stmt(f"return {self.expr('m', 2)}")])]))
        body.append(Stmt("def deep(t, n): return t if n <= 0 else deep(t * 0.5 + n, n - 1)"))
        self.scope = outer
        self.depth = 0
        self.in_helper = False
        return body

    def parameters(self) -> list[tuple[str, str, tuple[str, ...]]]:
        chosen = [_PARAMETERS[0]] + self.rng.sample(_PARAMETERS[1:], self.rng.randint(0, 4))
        if self.drifting:
            chosen += [p for p in _PARAMETERS if p[0] in "nf" and p not in chosen]
        self.scope = Scope(self.scope)
        for name, kind, _ in chosen:
            self.scope.add(kind, name)
        return chosen

    def drifting_calls(self, parameters: list[tuple[str, str, tuple[str, ...]]]) -> list[Call]:
        """Calls that differ in numbers only: arguments, globals, attributes."""
        base = {name: values[0] for name, _, values in parameters}
        calls = []
        for _ in range(self.rng.randint(5, 7)):
            args = base | {"n": self.rng.choice(_INTEGERS), "f": self.rng.choice(_FLOATS)}
            pre = self.rng.choice(_DRIFTS) if self.chance(0.5) else ""
            calls.append(Call(", ".join(args[name] for name, _, _ in parameters), pre=pre))
        return calls

    def calls(self, parameters: list[tuple[str, str, tuple[str, ...]]]) -> list[Call]:
        if self.drifting:
            return self.drifting_calls(parameters)
        base = [values[0] if self.chance(0.7) else self.rng.choice(values) for _, _, values in parameters]
        calls = [Call(", ".join(base))]
        for _ in range(self.rng.randint(2, 3)):
            args, pre = list(base), ""
            what = self.rng.random()
            if what < 0.35:
                index = self.rng.randrange(len(args))
                args[index] = self.rng.choice(parameters[index][2])
            elif what < 0.6:
                pre = f"with contextlib.suppress(Exception): {self.rng.choice(_CHANGES)}"
            calls.append(Call(", ".join(args), pre=pre))
        return calls

    def program(self) -> Program:
        self.choose_kinds()
        body = self.module()
        parameters = self.parameters()
        statements: list[Stmt] = []
        for _ in range(self.rng.randint(3, 9)):
            stmt = self.rng.choice(self.kinds)()
            if stmt is not None:
                statements.append(stmt)
        statements.append(Stmt(f"return {self.result()}"))
        if self.globals_written:
            statements.insert(0, Stmt("global " + ", ".join(sorted(self.globals_written)), fixed=True))
        names = ", ".join(name for name, _, _ in parameters)
        body.append(Stmt(clauses=[(f"def fn({names}):", statements)], fixed=True))
        return Program(self.seed, body, self.calls(parameters), watch=self.rng.choice(["each", "end"]))


def generate(seed: int) -> Program:
    """The program of a seed."""
    return Generator(seed).program()


__all__ = ["WORDS", "generate"]
