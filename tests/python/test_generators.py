"""Generators: run inside one recording, suspended across breaks, advanced for their owner, broken inside.

Eager is the oracle for results, order of side effects and what is left of a generator afterwards.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import flashpoint
from flashpoint import _C
from tests.support import check_calls

PRELUDE = """
import collections.abc, gc
from torch import nn
LOG = []
def brk(*what):
    print(end='')
    LOG.extend(what)
def blocks(x, n=3):
    for i in range(n):
        yield x * i + 1
def broken(x, n=3):
    for i in range(n):
        y = x * i
        brk(i)
        yield y + 1
def delegating(x):
    yield from broken(x, 2)
    result = yield from answering(x)
    yield result
def answering(x):
    yield x
    brk('answer')
    return x * 5
def nested(x, d):
    if d == 0:
        brk('bottom')
        yield x
        return
    for t in nested(x + 1, d - 1):
        yield t * 2
        brk(d)
    yield x * d
def total():
    s = 0
    while True:
        v = yield s
        brk('got')
        if v is None: return s
        s = s + v
def closing(x):
    try:
        for i in range(3):
            yield x * i
            brk(i)
    finally:
        LOG.append('closed')
def catching(x):
    while True:
        try:
            brk('c')
            yield x
        except ValueError as e:
            brk(str(e))
            x = x + 1
@contextlib.contextmanager
def managed(x):
    brk('in')
    try:
        yield x + 1
    except KeyError as e:
        brk('caught', str(e))
    finally:
        brk('out')
        LOG.append('left')
class Tree:
    def __init__(self, x, kids=()): self.x, self.kids = x, kids
    def __iter__(self):
        brk('node')
        yield self.x
        for kid in self.kids: yield from kid
class Lazy:
    def __init__(self, x): self.x = x
    @property
    def value(self):
        brk('value')
        return self.x + 1
class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3) for _ in range(3)])
    def steps(self, x):
        for layer in self.layers:
            x = layer(x)
            yield x
    def forward(self, x):
        s = x
        for t in self.steps(x): s = s + t
        return s
torch.manual_seed(0)
module = Blocks()
"""

# One graph: nothing breaks.
INLINED = {
    "sum": "return sum(x[i] for i in range(2))",
    "for": "s = x\nfor t in blocks(x): s = s + t\nreturn s",
    "method": "return module(x)",
    "list": "return torch.cat(list(blocks(x)))",
    "stack": "return torch.stack([*blocks(x)])",
    "tuple": "return tuple(x * i for i in range(3))",
    "dict": "return dict((str(i), x * i) for i in range(3))",
    "zip": "s = x\nfor a, b in zip(blocks(x), blocks(x + 1)): s = s + a * b\nreturn s",
    "enumerate": "s = x\nfor i, b in enumerate(blocks(x)): s = s + i * b\nreturn s",
    "map": "return sum(map(lambda t: t * 2, (x * i for i in range(3))))",
    "any": "return x * (2 if any(t.shape[0] > 3 for t in blocks(x)) else 3)",
    "all": "return x * (2 if all(t.dim() == 2 for t in blocks(x)) else 3)",
    "max": "return x * max(t.shape[0] for t in blocks(x))",
    "join": "return x + len(','.join(str(i) for i in range(3)))",
    "parameters": "return sum(p.sum() for p in module.parameters()) + x",
    "named_modules": "return [n for n, m in module.named_modules()], x + 1",
    "yield from": "def g():\n  yield from blocks(x)\n  return 4\nreturn sum(g())",
    "unpack": "a, b, c = blocks(x)\nreturn a + b * c",
    "next": "g = blocks(x)\nreturn next(g) + next(g)",
    "next default": "g = blocks(x, 1)\nreturn next(g) + next(g, x)",
    "extend": "l = [x]\nl += blocks(x)\nl.extend(blocks(x))\nreturn l",
    "dropped": "g = blocks(x)\nnext(g)\ndel g\nreturn x * 2",
    "closed": "g = closing(x)\na = next(g)\ng.close()\nreturn a, list(g)",
    "left early": "for t in closing(x): break\nreturn t + 1",
    "islice": "return sum(itertools.islice(blocks(x), 2))",
    "chain": "return sum(itertools.chain(blocks(x), (x * i for i in range(2))))",
    "reduce": "return functools.reduce(lambda a, b: a + b, blocks(x))",
    "recursive": "def r(d):\n  if d: yield from r(d - 1)\n  yield x * d\nreturn sum(r(4))",
    "ModuleList": "return nn.ModuleList(l for l in module.layers)[0](x)",
    "manager": "@contextlib.contextmanager\ndef m():\n  try: yield x + 1\n  finally: LOG.append('m')\nwith m() as y: return y * 2",
}


# The body of fn(x); breaks are in the prelude's functions or here.
ACROSS = {
    "in the body": "s = x\nfor t in broken(x): s = s + t\nreturn s",
    "around": "s = x\nfor t in blocks(x):\n  s = s + t\n  brk(1)\nreturn s",
    "both": "s = x\nfor t in broken(x):\n  s = s + t\n  brk('o')\nreturn s",
    "expression": "s = x\nfor t in (x * i for i in range(3)):\n  s = s + t\n  brk()\nreturn s",
    "expression breaks": "s = x\nfor t in (x * i for i in range(3) if not brk(i)): s = s + t\nreturn s",
    "closure": "k = x + 1\ng = (k * i for i in range(3))\nbrk()\nk = k * 2\na = next(g)\nbrk()\nreturn a + next(g), k",
    "delegating": "s = x\nfor t in delegating(x):\n  s = s + t\n  brk('o')\nreturn s",
    "nested": "s = x\nfor t in nested(x, 3):\n  s = s + t\nreturn s",
    "nested and around": "s = x\nfor t in nested(x, 2):\n  s = s + t\n  brk('o')\nreturn s",
    "next": "g = broken(x)\na = next(g)\nbrk()\nb = next(g)\nreturn a + b",
    "next to the end": "g = broken(x, 1)\na = next(g)\ntry: next(g)\nexcept StopIteration as e: brk('end', e.args)\nreturn a",
    "send": "g = total()\nnext(g)\ng.send(x)\nbrk()\nreturn g.send(x * 2)",
    "returned": "g = total()\nnext(g)\ng.send(x)\ntry: g.send(None)\nexcept StopIteration as e: return e.value\nreturn 0",
    "throw": "g = catching(x)\na = next(g)\nb = g.throw(ValueError('v'))\nbrk('o')\nreturn a, b, next(g)",
    "throw through": "g = catching(x)\na = next(g)\ntry: g.throw(TypeError('v'))\nexcept TypeError as e: brk(str(e))\nreturn a + 1, list(g)",
    "close": "g = blocks(x)\na = next(g)\nbrk()\ng.close()\nreturn a, list(g)",
    "not started": "g = blocks(x)\nbrk()\nreturn sum(g)",
    "finished": "g = blocks(x, 1)\na = list(g)\nbrk()\nreturn a, list(g)",
    "two": "g = blocks(x)\nh = blocks(x + 1)\na = next(g)\nb = next(h)\nbrk()\nreturn a + next(h) * 2, b + next(g)",
    "aliased": "l = [x]\ndef g():\n  for i in range(3):\n    l.append(x * i)\n    yield l\nh = g()\nk = next(h)\nbrk()\nnext(h)\nreturn k is l, len(k), k[-1]",
    "twice the same": "g = blocks(x)\npair = [g, g]\nnext(g)\nbrk()\na = next(pair[0])\nb = next(pair[1])\nreturn a + b, pair[0] is g",
    "in a container": "d = {'g': blocks(x)}\nnext(d['g'])\nbrk()\nreturn next(d['g']), list(d['g'])",
    "holds itself": "def g():\n  me = yield\n  while True:\n    yield x, me\nh = g()\nnext(h)\na = h.send(h)[0]\nbrk()\nb, me = next(h)\nr = a + b, me is h\ng = h = me = None\nreturn r",
    "left early": "for t in blocks(x):\n  brk(1)\n  break\nreturn t + 1",
    "enumerate": "s = x\nfor i, t in enumerate(blocks(x)):\n  s = s + t * i\n  brk(i)\nreturn s",
    "zip": "s = x\nfor t, k in zip(blocks(x), [1, 2]):\n  s = s + t * k\n  brk(k)\nreturn s",
    "manager": "with managed(x) as y:\n  z = y * 2\nreturn z",
    "manager around": "with managed(x) as y:\n  z = y * 2\n  brk('body')\n  z = z + 1\nreturn z",
    "manager catches": "with managed(x) as y:\n  z = y * 2\n  raise KeyError('k')\nreturn z + 1",
    "manager passes": "try:\n  with managed(x) as y:\n    z = y * 2\n    raise ValueError('k')\nexcept ValueError as e: brk(str(e))\nreturn z + 1",
    "tree": "s = x\nfor t in Tree(x, [Tree(x + 1), Tree(x * 2, [Tree(x)])]): s = s + t\nreturn s",
    "list": "return torch.cat(list(broken(x)))",
    "in an except": "try: raise KeyError('a')\nexcept KeyError:\n  s = x\n  for t in broken(x): s = s + t\n  brk(repr(sys.exc_info()[1]))\nreturn s",
    "try in the generator": "def g():\n  try: raise KeyError('a')\n  except KeyError as e:\n    brk(repr(sys.exc_info()[1]))\n    yield x\n    brk(repr(sys.exc_info()[1]))\n    yield x + 1\n  brk(repr(sys.exc_info()[1]))\ns = x\nfor t in g():\n  s = s + t\n  brk(repr(sys.exc_info()[1]))\nreturn s",
    "raises": "def g():\n  yield x\n  brk('g')\n  raise ValueError('g')\ns = x\ntry:\n  for t in g(): s = s + t\nexcept ValueError as e: brk(str(e))\nreturn s",
    "local in a cell": "def g():\n  n = 0\n  def inc():\n    nonlocal n\n    n += 1\n    return n\n  while n < 3:\n    brk(inc())\n    yield x * n\nreturn [t + 1 for t in g()]",
    "many locals": "def g(a, *b, c=2, **d):\n  e = a + c\n  for f in b:\n    brk(f)\n    e = e + f + d['z']\n    yield e\nreturn [t + 1 for t in g(x, 1, 2, c=3, z=4)]",
    "inside a callee": "def f(y):\n  s = y\n  for t in broken(y): s = s + t\n  return s * 2\nreturn f(x) + f(x + 1)",
    "callee of a generator": "def f(y):\n  brk('f')\n  return y * 2\ndef g():\n  for i in range(2): yield f(x + i)\nreturn [t + 1 for t in g()]",
    "async for none": "g = blocks(x)\nbrk(g.gi_running)\nnext(g)\nreturn x + 1",
    "in its own closure": "def mk():\n  def g():\n    yield x\n    brk('g')\n    yield x + (h is me[0])\n  me = []\n  h = g()\n  me.append(h)\n  return h\nh = mk()\na = next(h)\nbrk()\nb = next(h)\nh.close()\nreturn a + b",
    "function in its own closure": "def mk():\n  def g(n):\n    yield x * n\n    brk(n)\n    if n: yield from g(n - 1)\n  return g(2)\nh = mk()\na = next(h)\nbrk()\nreturn sum(h, a)",
    "full stack": "def f(*a): return sum(a)\ndef g():\n  for i in range(3): yield f(x, f(x, f(x, f(i, brk(i) or 1))))\ns = x\nfor t in g(): s = s + t\nreturn s",
    "full stack of a property": "p = Lazy(x)\ndef g():\n  for i in range(3): yield x + (x * (x - (x * p.value)))\ns = x\nfor t in g(): s = s + t\nreturn s",
    "collected": "def g():\n  l = []\n  l.append(l)\n  for i in range(3):\n    brk(gc.collect(0) and None)\n    yield x * i + len(l)\ns = x\nfor t in g():\n  brk(gc.collect(0) and None)\n  s = s + t\nreturn s",
    "left in a loop": "s = x\nfor i in range(3):\n  for t in broken(x + i):\n    s = s + t\n    if i == 1: break\nreturn s",
    "two loops": "s = x\nfor t in broken(x, 2):\n  for u in broken(t, 2): s = s + u\nreturn s",
    "if on data": "def g():\n  for i in range(3):\n    y = x + i\n    if y.sum() > 20: yield y * 2\n    else: yield y * 3\ns = x\nfor t in g(): s = s + t\nreturn s",
}

# Nothing is recorded over these: closing them would run code of theirs, too late.
KEPT_ALIVE = {"throw", "throw through", "try in the generator"}

# Objects of the caller: arguments and results. (source of fn and what it needs, calls)
OWNED = {
    "argument": ("def fn(x, g): return x + next(g)", ["x, blocks(x)", "x + 1, blocks(x * 2)"], "list(a[1])"),
    "consumed": ("def fn(x, g): return x + sum(g)", ["x, blocks(x)", "x + 1, blocks(x * 2)"], "list(a[1])"),
    "to the end": (
        "def fn(x, g):\n  s = x\n  for t in g: s = s + t\n  return s",
        ["x, blocks(x)", "x + 1, blocks(x * 2)"],
        "list(a[1]), a[1].gi_frame",
    ),
    "twice": ("def fn(x, g, h): return next(g) + next(h)", ["x, blocks(x), blocks(x)", "x, *([blocks(x)] * 2)"], "list(a[1]), list(a[2])"),
    "broken": (
        "def fn(x, g):\n  s = x\n  for t in g: s = s + t\n  return s",
        ["x, broken(x)", "x + 1, broken(x * 2)"],
        "list(a[1])",
    ),
    "half way": (
        "def fn(x, g):\n  a = next(g)\n  brk()\n  b = next(g)\n  return a + b",
        ["x, broken(x)", "x + 1, broken(x * 2)"],
        "list(a[1]), a[1].gi_running",
    ),
    "sent": ("def fn(x, g): return g.send(x)", ["x, started(total())", "x + 1, started(total())"], "a[1].send(x)"),
    "closed": ("def fn(x, g):\n  g.close()\n  return x + 1", ["x, started(closing(x))", "x + 1, started(closing(x))"], "list(a[1]), LOG"),
    "thrown": ("def fn(x, g): return g.throw(ValueError('t'))", ["x, started(catching(x))"] * 2, "next(a[1])"),
    "returned": ("def fn(x): return blocks(x + 1)", ["x", "x + 1"], "list(r)"),
    "returned half way": ("def fn(x):\n  g = broken(x + 1)\n  return next(g), g", ["x", "x + 1"], "list(r[1]), r[1].gi_code.co_name, r[1].__qualname__"),
    "returned expression": ("def fn(x):\n  k = x + 1\n  return (k * i for i in range(3)), k", ["x", "x + 1"], "list(r[0])"),
    "returned finished": ("def fn(x):\n  g = blocks(x)\n  return list(g), g", ["x", "x + 1"], "list(r[1]), r[1].gi_frame, r[1].gi_running"),
    "returned with finally": (
        "def fn(x):\n  g = closing(x)\n  return next(g), g",
        ["x", "x + 1"],
        "(r[1].close(), list(LOG))",
    ),
    "stored": ("class H: pass\nh = H()\ndef fn(x):\n  h.g = blocks(x + 1)\n  return next(h.g)", ["x", "x + 1"], "list(h.g)"),
    "global": ("it = blocks(torch.ones(2), 9)\ndef fn(x): return x.sum() + next(it)", ["x", "x + 1"], "it.gi_running"),
    "weak reference": ("def fn(x):\n  g = blocks(x)\n  w = weakref.ref(g)\n  brk()\n  return next(g), w() is g", ["x", "x + 1"], "r"),
    "frame seen": ("def fn(x):\n  g = blocks(x)\n  next(g)\n  f = g.gi_frame\n  brk()\n  next(g)\n  return f.f_locals['i'], x + 1", ["x", "x + 1"], "r"),
    "finally at once": (
        "def fn(x):\n  brk()\n  for t in closing(x):\n    brk('t')\n    if len(LOG) > 2: break\n  LOG.append('after')\n  return t + 1",
        ["x", "x + 1"],
        "LOG",
    ),
    "dies in the call": (
        "def fn(x):\n  g = closing(x)\n  a = next(g)\n  brk('b')\n  del g\n  LOG.append('after')\n  return a + 1",
        ["x", "x + 1"],
        "LOG",
    ),
    "renamed": ("def fn(x):\n  g = blocks(x)\n  g.__name__ = 'other'\n  return g", ["x", "x + 1"], "r.__name__, list(r)"),
    "dropped before its end": (
        "class D:\n  def __del__(s): LOG.append('D')\ndef fn(x):\n  def g():\n    d = D()\n    yield x\n    yield x\n  h = g()\n  a = next(h)\n  brk('b')\n  h = None\n  LOG.append('after')\n  return a + 1",
        ["x", "x + 1"],
        "LOG",
    ),
}  # fmt: skip
STARTED = "def started(g):\n  next(g)\n  return g\n"


def source_of(body: str) -> str:
    return f"{PRELUDE}\ndef fn(x):\n  LOG.clear()\n  {body}".replace("\n", "\n").replace(
        body, body.replace("\n", "\n  ")
    )


@pytest.mark.parametrize("name", INLINED)
def test_inlined(name: str) -> None:
    calls = [f"x + {i}" for i in range(4)]
    outcomes = check_calls(source_of(INLINED[name]).replace("LOG.clear()\n  ", ""), calls)
    last = outcomes[-1].counters
    assert last["hits"] == 1 and last["captures_started"] == 0 and last["resume_hits"] == 0, last


@pytest.mark.parametrize("name", ACROSS)
@pytest.mark.parametrize("grad", [False, True])
def test_across_breaks(name: str, grad: bool) -> None:
    calls = [f"(x + {i}).requires_grad_({grad})" for i in range(6)]
    last = check_calls(source_of(ACROSS[name]), calls)[-1].counters
    if name in KEPT_ALIVE:
        assert last["hits"] == 1 and last["captures_started"] == 0, last
        return
    resumed = last["captures_started"] == 0 and last["hits"] == 1 and last["frames_handed_over"] == 0
    assert resumed, last
    assert not _C._graph_enabled()


@pytest.mark.parametrize("name", OWNED)
def test_owned(name: str) -> None:
    source, calls, post = OWNED[name]
    from tests.support import Call

    steps = []
    for i in range(6):
        args = calls[i % len(calls)]
        steps.append(Call("*a", pre=f"LOG.clear(); a = ({args},)", post=post))
    check_calls(PRELUDE + STARTED + source, steps)


def test_the_caller_sees_a_suspended_generator() -> None:
    """What replay has advanced runs on in plain Python, one element further at each call."""

    def numbers(x):
        i = 0
        while True:
            i += 1
            yield x * i

    def fn(g):
        return next(g) + 1

    compiled = flashpoint.compile(fn)
    x = torch.ones(2)
    for _ in range(3):
        generator = numbers(x)
        assert compiled(generator).tolist() == [2.0, 2.0]
        assert next(generator).tolist() == [2.0, 2.0]
        assert generator.gi_frame.f_locals["i"] == 2
    assert flashpoint.counters()["hits"] > 0


FULL_STACK = """
import torch, flashpoint
class Tree:
    def __init__(self, x, kids=()): self.x, self.kids = x, kids
    def __iter__(self):
        print(end="")
        yield self.x
        for kid in self.kids: yield from kid
def fn(x):
    s = x
    for t in Tree(x, [Tree(x + 1), Tree(x * 2, [Tree(x)])]): s = s + t
    return s
compiled = flashpoint.compile(fn, backend="eager")
for i in range(4):
    x = torch.ones(2) + i
    assert torch.equal(compiled(x), fn(x))
assert flashpoint.counters()["resume_hits"] > 0
"""


def test_a_generator_that_is_left_has_room_for_what_is_sent() -> None:
    """Python's allocator finds what is written behind the end of a generator's frame."""
    environment = {**os.environ, "PYTHONMALLOC": "debug"}
    done = subprocess.run([sys.executable, "-c", FULL_STACK], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
