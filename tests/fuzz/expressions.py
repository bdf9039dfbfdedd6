"""Random expressions by type, over the names a scope holds.

Types are letters: m (n, 3) tensor, r (3,) tensor, s scalar tensor, i int, f float, b bool, t str, L list of ints,
T list of m tensors, D dict of ints, O object of a class of the program, F function from m to m.
To add an expression: add an alternative to the method of its type.
"""
# fmt: off

from __future__ import annotations

import random

UNARY = ("sin", "cos", "tanh", "relu", "sigmoid", "abs", "neg", "exp2", "square", "atan")
KEYS = ("a", "b", "c", "key")
WORDS = ("a", "bc", "flash", "x", "")


class Scope:
    """The names of each type that can be read at a point; children see their parents' names."""

    def __init__(self, parent: Scope | None = None) -> None:
        self.parent = parent
        self.names: dict[str, list[str]] = {}

    def add(self, kind: str, name: str) -> str:
        self.names.setdefault(kind, []).append(name)
        return name

    def all(self, kind: str) -> list[str]:
        inherited = self.parent.all(kind) if self.parent else []
        return inherited + self.names.get(kind, [])


class Expressions:
    def __init__(self, rng: random.Random, risky: bool) -> None:
        self.rng = rng
        self.risky = risky  # whether to use what a recorder is not expected to keep in a graph
        self.scope = Scope()

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def name(self, kind: str) -> str | None:
        names = self.scope.all(kind)
        # Recent names are likelier: programs then use what they compute.
        return self.rng.choice(names[-5:] if self.chance(0.6) else names) if names else None

    def expr(self, kind: str, depth: int = 2) -> str:
        name = self.name(kind)
        if name and (depth <= 0 or self.chance(0.3)):
            return name
        make = {"m": self.matrix, "r": self.row, "s": self.scalar, "i": self.integer, "f": self.float, "b": self.bool,
                "t": self.text, "L": self.ints, "T": self.tensors, "D": self.dict, "F": self.function}[kind]
        return make(depth - 1)

    def number(self, depth: int) -> str:
        return self.expr(self.rng.choice("iif"), depth)

    def _pick(self, options: list, depth: int) -> str:
        """Each option is text, or a function that is only called when it is chosen."""
        chosen = self.rng.choice(options)
        return chosen() if callable(chosen) else chosen

    def matrix(self, d: int) -> str:
        m, r, c = (lambda: self.expr("m", d)), (lambda: self.expr("r", d)), self.rng.choice
        v = self.name("m") or "x"
        if d < 0:
            return c([v, f"({v} + 1)", f"{v} * 0.5"])
        options = [
            lambda: f"({m()} {c('+-*')} {m()})", lambda: f"({m()} {c('+-*')} {self.number(d)})",
            lambda: f"({self.number(d)} {c('+-*')} {m()})", lambda: f"({m()} {c('+-*')} {r()})",
            lambda: f"({m()} * {self.expr('s', d)})", lambda: f"torch.{c(UNARY)}({m()})",
            lambda: f"({m()}).{c(UNARY)}()", lambda: f"torch.where({m()} > {self.number(d)}, {m()}, {m()})",
            lambda: f"({m()}).clamp(-2, {c('1234')})", lambda: f"torch.cat([{v}, {m()}])[:{v}.shape[0]]",
            lambda: f"({m()}).reshape(-1).reshape(-1, 3)", lambda: f"({m()}).t().contiguous().t()",
            lambda: f"({m()}).flip({c(['0', '1', '-1'])})", lambda: f"({m()})[:, [2, 0, {self.expr('i', d)} % 3]]",
            lambda: f"torch.matmul({m()}, W)", lambda: f"F.linear({m()}, W, {r()})",
            lambda: f"F.layer_norm({m()}, (3,))", lambda: f"({m()}).softmax({c(['0', '1', '-1'])})",
            lambda: f"torch.full_like({m()}, {self.number(d)})", lambda: f"torch.ones({v}.shape[0], 3) * {self.expr('f', d)}",
            lambda: f"({m()}).double().float()", lambda: f"({m()} / ({self.number(d)} or 1))",
            lambda: f"({m()} if {self.expr('b', d)} else {m()})", lambda: f"torch.add({m()}, {m()}, alpha={self.number(d)})",
            lambda: f"torch.stack([{m()}, {m()}]).mean(0)", lambda: f"({m()}).masked_fill({m()} > 0, {self.number(d)})",
            lambda: f"F.dropout({m()}, 0.5, {c(['True', 'False'])})", lambda: f"({m()}).detach()",
            lambda: f"({m()}).cumsum({c('01')})", lambda: f"max([{m()}, {m()}], key=len)",
            lambda: f"({m()})[[0, {c(['-1', '0', '1'])}]]", lambda: f"({m()})[slice(None), slice(0, 3)]", lambda: f"functools.reduce(torch.add, [{m()}, {m()}])",
            lambda: f"P({m()}, {self.expr('i', d)})._replace(b=2).a",
        ]
        if self.name("F"):
            options += [lambda: f"{self.name('F')}({m()})"] * 4
        if self.name("T"):
            options += [lambda: f"sum({self.name('T')}, {m()})", lambda: f"sum([t * 0.5 for t in {self.name('T')}], {m()})",
                        lambda: f"({self.name('T')} or [{m()}])[-1]"]
        if self.name("O"):
            options += [lambda: f"{self.name('O')}.t", lambda: f"{self.name('O')}.scale({m()})", lambda: f"{self.name('O')}({m()})"] * 2
        if self.name("mod"):
            options += [lambda: f"{self.name('mod')}({m()})"] * 3
        if self.risky:
            options += [lambda: f"({m()} * {m()}.sum().item())", lambda: f"torch.rand_like({m()})",
                        lambda: f"({m()} if {m()}.sum() > 0 else {m()})", lambda: f"torch.from_numpy({m()}.detach().numpy() * 2)",
                        lambda: f"({m()}).requires_grad_(False)", lambda: f"torch.tensor({v}.tolist())"]
        return self._pick(options, d)

    def row(self, d: int) -> str:
        m, c = (lambda: self.expr("m", d)), self.rng.choice
        if d < 0:
            return self.name("r") or "torch.arange(3.)"
        return self._pick([
            lambda: f"({m()})[{c(['0', '-1', '1'])}]", lambda: f"({m()}).sum(0)", lambda: f"({m()}).mean(0)",
            lambda: f"({m()}).max(0).values", lambda: f"({self.expr('r', d)} {c('+-*')} {self.expr('r', d)})",
            lambda: f"({self.expr('r', d)} * {self.number(d)})", lambda: "torch.arange(3.)",
            lambda: f"torch.tensor([{self.expr('f', d)}, {self.number(d)}, 1.0])", lambda: f"torch.zeros(3) + {self.expr('i', d)}",
        ], d)

    def scalar(self, d: int) -> str:
        return self._pick([
            lambda: f"({self.expr('m', d)}).{self.rng.choice(['sum', 'mean', 'amax'])}()",
            lambda: f"({self.expr('r', d)}).mean()", lambda: f"torch.tensor({self.expr('f', d)})",
        ], d)

    def integer(self, d: int) -> str:
        c, i = self.rng.choice, (lambda: self.expr("i", d))
        if d < 0:
            return c([self.name("i") or "3", str(self.rng.randrange(-2, 6))])
        v = self.name("m") or "x"
        options = [
            lambda: str(self.rng.randrange(-3, 9)), lambda: f"(({i()} + {i()}) % 11)", lambda: f"(({i()} {c(['-', '*', '|', '&', '^'])} {i()}) % 7)",
            lambda: f"({i()} // {c('23')})", lambda: f"len({self.expr(c('LDt'), d)})", lambda: f"{v}.shape[{c(['0', '1', '-1'])}]",
            lambda: f"{v}.size(0)", lambda: f"{v}.dim()", lambda: f"(sum({self.expr('L', d)}) % 13)", lambda: f"max({self.expr('L', d)}, default=2)",
            lambda: f"int({self.expr('b', d)})", lambda: f"({i()} if {self.expr('b', d)} else {i()})", lambda: f"abs({i()})",
            lambda: f"({self.expr('L', d)} or [4])[{c(['0', '-1'])}]", lambda: f"{self.expr('D', d)}.get('{c(KEYS)}', {i()})",
            lambda: f"min({i()}, {i()})", lambda: f"round({self.expr('f', d)})", lambda: f"({self.expr('L', d)}).count({i()})",
            lambda: f"(sum(k * 2 for k in {self.expr('L', d)}) % 9)", lambda: f"(-{i()})", lambda: f"len({v})",
            lambda: f"len(max([{self.expr('L', d)}, {self.expr('L', d)}], key=len))", lambda: f"sum(map(len, [{self.expr('L', d)}, {self.expr('D', d)}]))",
            lambda: f"len({{{self.expr('m', 0)}, {v}, {self.expr('m', 0)}}})", lambda: f"len({{{self.expr('m', 0)}}} - {{{v}}})", lambda: f"{{{self.expr('m', 0)}: 1}}.get({v}, 2)",
            lambda: f"collections.Counter({self.expr('t', d)})['a']", lambda: f"next(iter({self.expr('L', d)}), 3)", lambda: f"cached({i()})", lambda: "C.__dict__['k']",
            lambda: f"len(collections.deque({self.expr('L', d)}, maxlen=2))", lambda: f"P({i()}, {i()}).b", lambda: "len(GQ)", lambda: f"getattr({v}, 'tag', {i()})",
        ]
        if self.name("O"):
            options += [lambda: f"{self.name('O')}.n", lambda: f"{self.name('O')}.twice", lambda: f"getattr({self.name('O')}, '{c(['n', 'z'])}', {i()})",
                        lambda: f"{self.name('O')}.add({i()})", lambda: f"len({self.name('O')})"] * 2
            options += [lambda: f"[{self.name('O')}, {self.name('O')}].index({self.name('O')})", lambda: f"len({{{self.name('O')}, {self.name('O')}}})",
                        lambda: f"len({{{self.name('O')}: 1}}.keys() & {{{self.name('O')}: 2}}.keys())", lambda: f"{self.name('O')}.held", lambda: "GR().n"]
        return self._pick(options, d)

    def float(self, d: int) -> str:
        i = lambda: self.expr("i", d)  # noqa: E731
        return self._pick([
            lambda: repr(self.rng.choice([0.5, 0.25, 1.5, -0.75, 2.0, 0.0])), lambda: f"({i()} * 0.25)", lambda: f"({i()} / 4)",
            lambda: f"math.sqrt(abs({i()}))", lambda: f"float({i()})", lambda: f"1 / (1 + abs({i()}))", lambda: f"({i()} - {self.expr('f', d)})",
        ], d)

    def bool(self, d: int) -> str:
        c, i = self.rng.choice, (lambda: self.expr("i", d))
        v = self.name("m") or "x"
        options = [
            lambda: f"({i()} {c(['<', '>', '==', '!=', '<=', '>='])} {i()})", lambda: f"({i()} % 2 == {c('01')})", lambda: f"(not {self.expr('b', d)})",
            lambda: f"({self.expr('b', d)} {c(['and', 'or'])} {self.expr('b', d)})", lambda: f"({self.expr('t', d)} == {self.expr('t', d)})",
            lambda: f"('{c(KEYS)}' {c(['in', 'not in'])} {self.expr('D', d)})", lambda: f"({i()} in {self.expr('L', d)})", lambda: f"bool({self.expr('L', d)})",
            lambda: f"isinstance({i()}, {c(['int', 'bool', 'str', '(int, float)'])})", lambda: f"{v}.requires_grad", lambda: f"{v}.is_contiguous()",
            lambda: f"({v}.dtype == torch.float32)", lambda: c(["True", "False"]), lambda: f"({self.expr('L', d)} == {self.expr('L', d)})",
            lambda: "torch.is_grad_enabled()", lambda: f"({i()} < {i()} <= {i()})", lambda: f"any(k > 1 for k in {self.expr('L', d)})",
            lambda: f"operator.is_({self.expr('m', 0)}, {v})", lambda: f"({self.expr('m', 0)} is {v})", lambda: f"operator.eq({i()}, {i()})",
        ]
        if self.name("O"):
            options += [lambda: f"hasattr({self.name('O')}, '{c(['z', 'n', 'extra'])}')", lambda: f"({self.name('O')} is {self.name('O')})",
                        lambda: f"(({self.name('O')}, 1) == ({self.name('O')}, 1))", lambda: f"({self.name('O')} in [{self.name('O')}])"]
        return self._pick(options, d)

    def text(self, d: int) -> str:
        c, i = self.rng.choice, (lambda: self.expr("i", d))
        if d < 0:
            return self.name("t") or repr(c(WORDS))
        return self._pick([
            lambda: repr(c(WORDS)), lambda: f"f'{{{self.name('i') or 4}}}-{{{self.name('t') or 1}!r}}'",
            lambda: f"f'{{{self.name('f') or 2.5}:.2f}}|{{{self.name('L') or 1}}}'", lambda: f"f'{{{self.name('D') or 7}}}{{{self.name('b') or 7:}}}'",
            lambda: f"({self.expr('t', d)}).upper()", lambda: f"('a' * ({i()} % 3))", lambda: f"str({i()})", lambda: f"'-'.join(map(str, {self.expr('L', d)}))",
            lambda: f"({self.expr('t', d)} + {self.expr('t', d)})", lambda: f"({self.expr('t', d)})[:2]", lambda: f"('%d' % ({i()}))",
            lambda: f"','.join(sorted({self.expr('D', d)}))",
            lambda: f"repr({self.expr('L', d)})", lambda: f"'{{!r}}-{{}}'.format({self.expr('t', d)}, {i()})", lambda: f"f'{{{self.name('m') or 'x'}.shape}}'",
            lambda: f"'%s' % ({self.expr('L', d)},)", lambda: f"','.join(sorted({self.expr('D', d)}, key=GD.get))" if self.chance(0.1) else "'k'",
        ], d)

    def ints(self, d: int) -> str:
        c, i, l = self.rng.choice, (lambda: self.expr("i", d)), (lambda: self.expr("L", d))  # noqa: E741
        if d < 0:
            return self.name("L") or f"[{self.rng.randrange(5)}, {self.rng.randrange(5)}]"
        return self._pick([
            lambda: f"[{i()}, {i()}, {i()}]", lambda: f"[k + {i()} for k in {l()}]", lambda: f"[k for k in {l()} if k > {i()}]", lambda: f"sorted({l()})",
            lambda: f"sorted({l()}, key=lambda k: {c(['-k', 'k % 3', 'abs(k)'])})", lambda: f"({l()})[{c(['1:', ':2', '::-1', '-2:'])}]", lambda: f"({l()} + [{i()}])",
            lambda: f"list(range({i()} % 4))", lambda: f"[*{l()}, {i()}]", lambda: f"list({self.expr('D', d)}.values())", lambda: f"list(map(abs, {l()}))",
            lambda: f"[a * b for a, b in zip({l()}, {l()})]", lambda: f"[j * k for j, k in enumerate({l()})]", lambda: f"list(gen({i()} % 4))",
            lambda: f"list(reversed({l()}))", lambda: f"sorted({{k % 3 for k in {l()}}})", lambda: f"({l()} * ({i()} % 3))", lambda: "[]",
        ], d)

    def tensors(self, d: int) -> str:
        m = lambda: self.expr("m", d)  # noqa: E731
        if d < 0:
            return self.name("T") or "[x]"
        return self._pick([
            lambda: f"[{m()}, {m()}]", lambda: f"[{m()} * k for k in {self.expr('L', d)}[:3]]", lambda: f"[t + 1 for t in {self.expr('T', d)}]",
            lambda: f"list({m()}.split(1))[:2]", lambda: f"[*{self.expr('T', d)}, {m()}][:4]", lambda: f"list(torch.chunk({m()}, 1))",
        ], d)

    def dict(self, d: int) -> str:
        c, i = self.rng.choice, (lambda: self.expr("i", d))
        if d < 0:
            return self.name("D") or "{'a': 1}"
        return self._pick([
            lambda: f"{{'{c(KEYS)}': {i()}, '{c(KEYS)}': {i()}}}", lambda: f"{{**{self.expr('D', d)}, '{c(KEYS)}': {i()}}}",
            lambda: f"{{k: v + 1 for k, v in {self.expr('D', d)}.items()}}", lambda: f"dict(zip('abc', {self.expr('L', d)}))",
            lambda: f"dict({self.expr('D', d)}, {c(KEYS)}={i()})", lambda: f"({self.expr('D', d)} | {self.expr('D', d)})", lambda: "{}",
        ], d)

    def function(self, d: int) -> str:
        names = [n for n in ("m", "i", "r") if self.name(n)]
        k = self.name(self.rng.choice(names)) if names else "2"
        return self.rng.choice([f"(lambda t: t * {k})", f"(lambda t, k={k}: t + k)", "torch.sin", "functools.partial(torch.add, alpha=2, other=1)",
                                "F.relu", f"functools.partial(torch.mul, {k if k.isidentifier() else 2})" if self.chance(0.3) else "(lambda t: t - 1)"])
