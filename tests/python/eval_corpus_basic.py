# ruff: noqa: B015, B016, B018, B021, B030, E714, F821, F841, UP003, UP032, UP037  (on purpose)
"""Corpus: expressions, statements, containers, calls, scopes, classes.

To add one: write a deterministic function without arguments, decorated with @case.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import types

from tests.python.eval_corpus_common import GLOBAL_NUMBER, Point, case


@case
def loops():
    total = 0
    for i in range(7):
        for j in (1, 2, 3):
            if (i + j) % 2:
                continue
            total += i * j
            if total > 40:
                break
        else:
            total -= 1
    while total > 3:
        total //= 2
    while True:
        total += 1
        if not total < 9:
            break
    return total


@case
def arithmetic():
    a, b = 7, 3
    c = 2.5
    out = [a + b, a - b, a * b, a / b, a // b, a % b, a**b, a << b, a >> b, a & b, a | b, a ^ b, -a, +a, ~a]
    out += [not a, not 0, a < b, a <= b, a == b, a != b, a > b, a >= b, c * a, c + c, c - a]
    for operand in (2, 3):
        a += operand
        a -= 1
        a *= operand
        a //= 2
        a %= 17
        a **= 2
        a <<= 1
        a >>= 1
        a &= 255
        a |= 8
        a ^= 5
    c /= 2
    return out, a, c


class Matrix:
    def __matmul__(self, other):
        return "matmul"

    def __imatmul__(self, other):
        return "imatmul"


@case
def matmul():
    m = Matrix()
    r = m @ m
    m @= 1
    return r, m


@case
def strings():
    s = ""
    for i in range(6):
        s += str(i)
        s = s + "x"
    t = s
    t += "end"
    name, width = "pad", 8
    return s, t, f"{name}{width!r:>4}{name!s}{name!a}{3.14159:.{2}f}{name:>{width}}", f"{s}", "ab"


@case
def containers():
    a = [1, 2, 3]
    b = (*a, 4)
    c = [*a, *b]
    d = {1, 2, *a}
    e = {"k": 1, **{"l": 2}, "m": 3}
    f = {"x": a, "y": b}
    a[0] = 10
    del a[1]
    f["z"] = a[-1]
    del f["x"]
    x, y = a
    (p, q), r = (1, 2), 3
    first, *middle, last = c
    *head, tail = "abc"
    u, v, w = (z for z in range(3))
    big = [a[0:1], a[::2], c[1:3:1], c[:], b[1:]]
    empty = {}
    consts = {"one": x, "two": y, "three": p}
    return (
        a,
        b,
        c,
        sorted(d),
        e,
        f,
        x,
        y,
        p,
        q,
        r,
        first,
        middle,
        last,
        head,
        tail,
        u,
        v,
        w,
        big,
        empty,
        consts,
    )


@case
def comprehensions():
    n = 4
    a = [i * n for i in range(5) if i != 2]
    b = {i % 3 for i in range(9)}
    c = {i: [j for j in range(i)] for i in range(3)}
    d = list(i + 1 for i in a)
    return a, b, c, d, [[i, j] for i in range(2) for j in range(2)]


@case
def calls():
    def f(a, b=2, *args, c, d=4, **kwargs):
        return a, b, args, c, d, sorted(kwargs.items())

    args = (1, 2, 3)
    kwargs = {"c": 5, "e": 6}
    out = [f(1, c=2), f(1, 2, 3, c=4, d=5, e=6), f(*args, c=1), f(*args, **kwargs), f(0, *[9], **kwargs)]
    out += [f(*"ab", **{"c": 0}, d=1), len(args), isinstance(1, int), type(1), str(5), tuple([1])]
    out += [list(map(lambda v: v * 2, args)), sorted([3, 1, 2], key=lambda v: -v), max(args, default=None)]
    out.append("a-b".split("-"))
    out.append("{a}{b}".format(a=1, b=2))
    out.append([].append(1))
    out.append(dict(a=1, b=2))
    bound = out.append
    bound("bound")
    p = Point(1, 2)
    method = p.moved
    out += [method(1).x, p.moved(dy=5).y, Point.moved(p, 3).x, functools.partial(f, 1, c=3)(4), p.norm, p[1]]
    return out


@case
def methods_and_attributes():
    p = Point(1, 2)
    p.z = 5
    p.z += 1
    del p.y
    try:
        p.y
    except AttributeError as error:
        text = str(error)
    with contextlib.suppress(AttributeError):
        del p.y
    return p.__dict__, text, sys.maxsize > 0, types.SimpleNamespace(a=1).a, Point.__name__.upper()


@case
def closures():
    total = 0
    late = 1

    def outer(k):
        local = k

        def inner(v):
            nonlocal total, local
            total += v * k + late
            local -= 1
            return local

        return inner, lambda: local

    inner, get = outer(3)
    out = [inner(i) for i in range(3)]
    late = 5
    out.append(inner(1))
    return out, total, get()


@case
def deleted_cell():
    x = 1

    def read():
        return x

    first = read()
    del x
    try:
        read()
    except NameError as error:
        return first, str(error)


@case
def deleted_own_cell():
    x = 1

    def read():
        return x

    del x
    try:
        del x
    except UnboundLocalError as error:
        text = str(error)
    x = read
    return text, x is read


@case
def unbound_local():
    if not GLOBAL_NUMBER:
        value = 1
    out = []
    try:
        out.append(value)
    except UnboundLocalError as error:
        out.append(str(error))
    other = 2
    del other
    try:
        del other
    except UnboundLocalError as error:
        out.append(str(error))
    return out


@case
def global_statements():
    global _corpus_temporary
    _corpus_temporary = GLOBAL_NUMBER + 1
    value = _corpus_temporary
    del _corpus_temporary
    out = [value]
    try:
        del _corpus_temporary
    except NameError as error:
        out.append((str(error), error.name))
    try:
        no_such_name_anywhere  # noqa: B018, F821
    except NameError as error:
        out.append((str(error), error.name))
    return out


@case
def classes():
    scale = 4

    class Meta(type):
        def __call__(cls, *args):
            made = super().__call__(*args)
            made.tagged = cls.__name__
            return made

    class Base(metaclass=Meta):
        field: int = scale
        other: "str"
        doubled = [scale * 2 for _ in range(2)]

        def __init__(self, v):
            self.v = v

        def __init_subclass__(cls, flag=False):
            cls.flag = flag

    class Child(Base, flag=True):
        field = Base.field + 1
        del_me = 1
        del del_me
        scale = scale + 1

        def __init__(self, v):
            super().__init__(v + 1)

        def who(self):
            return __class__.__name__, self.v

    child = Child(3)
    return (
        child.who(),
        child.tagged,
        Child.flag,
        Child.field,
        Child.scale,
        sorted(Base.__annotations__),
        Base.doubled,
    )


class_scope = "global"


@case
def class_dereference():
    class_scope = "enclosing"

    class Holder:
        if class_scope:
            seen = class_scope
        class_scope = "own"
        later = class_scope

    def reader():
        class Inner:
            value = class_scope

        return Inner.value

    return Holder.seen, Holder.later, reader()


@case
def module_level_code():
    source = """
import math as m, os.path
from math import *
from math import floor as fl, ceil
x: int = 1
y = x
del y
try:
    del y
except NameError as error:
    text = str(error)
class K:
    a = x
    b: str = "s"
result = (m.floor(2.5), fl(sqrt(16)), ceil(0.2), x, text, K.a, sorted(K.__annotations__), os.path.sep)
"""
    namespace = {"__name__": "corpus"}
    exec(compile(source, "<corpus module>", "exec"), namespace)
    return namespace["result"], sorted(namespace["__annotations__"])


@case
def interactive_code():
    shown = []
    old, sys.displayhook = sys.displayhook, shown.append
    try:
        exec(compile("1 + 1; 'text'", "<corpus>", "single"), {})
        exec(compile("None", "<corpus>", "single"), {})
    finally:
        sys.displayhook = old
    return shown


@case
def mapping_namespace():
    class Names(dict):
        def __missing__(self, key):
            if key.startswith("virtual"):
                return key.upper()
            raise KeyError(key)

    names = Names()
    exec("a = virtual_x\nb = len(a)\ndel a\nfrom math import pi\nimport_star = 1", {}, names)
    try:
        exec("missing_one", {}, names)
    except NameError as error:
        text = str(error)
    exec("from math import *\nz: int = 2", {"__name__": "n"}, names)
    return names["b"], sorted(names)[:4], text


@case
def import_errors():
    out = []
    try:
        import no_such_module_for_corpus  # noqa: F401
    except ImportError as error:
        out.append((type(error).__name__, str(error)))
    try:
        from math import no_such_function  # noqa: F401
    except ImportError as error:
        out.append((str(error), error.name, error.path is None))
    return out


@case
def short_circuits():
    out = []
    for a in (0, 1, "", "x", None, [], Point(0, 1), Point(1, 1), True, False):
        out.append((a or "or", a and "and", a if a else "else", a is None, a is not None))
        if a is None:
            out.append("none")
        if a is not None:
            out.append("some")
        if a and out or not a:
            out.append(0 < len(out) < 1000)
        if (a or out) and not (a and out):
            out.append("mixed")
    return out


@case
def backward_conditional_jumps():
    out = []
    i = 0
    while i < 4:
        i += 1
    truthy = [1, 1, 0]
    while truthy.pop():
        out.append(len(truthy))
    values = [1, None, 2, None]
    value = values.pop()
    while value is None:
        value = values.pop()
    while value is not None:
        value = values.pop() if values else None
        out.append(value)
    flag = True
    while not (flag is False):
        flag = False
    n = 3
    while n:
        n -= 1
    k = 0
    while not k:
        k = 1
    empty = []
    while not empty:
        empty.append(0)
    return out, i, flag, n, k, empty


@case
def containment():
    data = [1, "a", None]
    return 1 in data, 2 in data, "a" not in data, 5 not in {5: 1}, 3 in range(4), "b" in "abc"


@case
def frames_and_locals():
    a = 1
    frame = sys._getframe()
    seen = [sorted(locals()), frame.f_code.co_name, frame.f_lineno - frame.f_code.co_firstlineno]

    def inner():
        b = a
        caller = sys._getframe(1)
        return (
            sorted(locals()),
            caller is frame,
            caller.f_locals["a"],
            caller.f_lineno - frame.f_code.co_firstlineno,
            b,
        )

    seen.append(inner())
    exec("seen.append(len(locals()))")
    return seen


@case
def decorators_and_defaults():
    def twice(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs), function(*args, **kwargs)

        return wrapper

    @twice
    def f(a: int, b: "str" = "b", *, c: float = 1.0) -> tuple:
        return a, b, c

    return f(1), f(1, c=2), sorted(f.__annotations__), f.__wrapped__.__kwdefaults__


@case
def walrus_and_ternary():
    if (n := GLOBAL_NUMBER) > 2 and (m := n * 2):
        return [y := 1, y**2, n, m, "a" if n else "b", x if (x := 0) else -1]


@case
def recursion():
    def fib(n):
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    def depth(n):
        return 0 if n == 0 else 1 + depth(n - 1)

    return fib(8), depth(60)


@case
def long_jumps():
    # Enough constants, names and code for extended arguments on loads, jumps and calls.
    body = ["def f(k):", "    total = 0", "    for i in range(2):", "        if k:"]
    body += [f"            total += v{j} if i else {j}.5" for j in range(300)]
    body += ["            total += g(" + ", ".join(f"a{j}={j}" for j in range(300)) + ")"]
    body += ["        else:", "            total -= 1", "    return total"]
    names = {f"v{j}": j for j in range(300)}
    names["g"] = lambda **kwargs: len(kwargs) + kwargs["a299"]
    exec("\n".join(body), names)
    wide = ", ".join(f"x{j}" for j in range(300))
    names["h"] = lambda *args: sum(args)
    exec(f"def w():\n    {wide}, = range(300)\n    return h({wide}), [{wide}][-1]", names)
    return names["f"](1), names["f"](0), names["w"]()


@case
def destructor_order():
    log = []

    class Noisy:
        def __init__(self, name):
            self.name = name

        def __del__(self):
            log.append(self.name)

    def run():
        a = Noisy("a")
        b = Noisy("b")
        a = Noisy("c")
        del b
        Noisy("temporary")
        [Noisy("in list")]
        return a.name

    log.append(run())
    return log


@case
def descriptors():
    log = []

    class Field:
        def __set_name__(self, owner, name):
            self.name = name

        def __get__(self, instance, owner):
            log.append(("get", self.name, instance is None))
            return 5

        def __set__(self, instance, value):
            log.append(("set", value))

        def __delete__(self, instance):
            log.append("delete")

    class Owner:
        field = Field()

        @classmethod
        def make(cls):
            return cls()

        @staticmethod
        def plain(v):
            return v

        def __getattr__(self, name):
            return name

    o = Owner.make()
    o.field = 1
    v = o.field + Owner.field
    del o.field
    return v, o.plain(2), o.other, o.third.upper(), log
