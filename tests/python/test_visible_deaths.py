"""Objects whose death the program notices, behind breaks: closed and finalized when eager mode does it.

A recording keeps what it was given alive, a replay commits its effects before the frames let go of anything, and a
snapshot leaves out locals that nothing reads any more; none of it may be seen. The log of each of six calls is eager's.
"""

from __future__ import annotations

import pytest
import torch

import flashpoint
from tests.support import Call, check_calls

PRELUDE = """
import contextlib, functools, weakref
LOG = []
def brk(*what):
    print(end='')
    LOG.extend(what)
def closing(x):
    try:
        for i in range(3):
            yield x * i
            brk(i)
    finally:
        LOG.append('closed')
@contextlib.contextmanager
def managed(x):
    brk('in')
    try:
        yield x + 1
    finally:
        brk('out')
class D:
    def __init__(self, name='D'): self.name = name
    def __del__(self): LOG.append(self.name)
class Owner: pass
HELD = []
FACTORY = [int]
def make(n): return D()
"""

DEATHS = {
    "finalizer in a broken generator": "def o():\n  brk('o')\n  d=D()\n  yield x\n  yield x\nfor t in o(): break\nLOG.append('after')\nreturn x+1",
    "finalizer yielded from a broken generator": "def o():\n  brk('o')\n  d=[D()]\n  yield d\n  yield d\nfor t in o(): break\nLOG.append('after')\nt=None\nLOG.append('end')\nreturn x+1",
    "finalizer in a generator that is run on": "def o():\n  yield x\n  d=D()\n  yield x\n  yield x\ng=o()\nnext(g)\nbrk()\nnext(g)\ng=None\nLOG.append('after')\nreturn x+1",
    "finalizer let go of by a generator that is run on": "def o():\n  d=D()\n  yield x\n  d=None\n  LOG.append('gone')\n  yield x\ng=o()\nnext(g)\nbrk()\nnext(g)\nLOG.append('after')\nreturn x+1",
    "finalizer made and let go of": "def o():\n  yield x\n  d=D()\n  yield x\n  d=None\n  LOG.append('gone')\n  yield x\ng=o()\nnext(g)\nbrk()\nnext(g)\nnext(g)\nLOG.append('after')\nreturn x+1",
    "finalizer on the stack of a generator": "def o():\n  yield x\n  for i in [D(),1]: yield x\ng=o()\nnext(g)\nbrk()\nnext(g)\ng=None\nLOG.append('after')\nreturn x+1",
    "ended by its owner": "def o():\n  brk('o')\n  yield D()\n  LOG.append('o')\n  yield D()\nfor t in o(): pass\nLOG.append('after')\nt=None\nLOG.append('end')\nreturn x+1",
    "closing generator in an expression": "g=(t for t in closing(x))\nnext(g)\nbrk()\ng=None\nLOG.append('after')\nreturn x+1",
    "zip of closing after a break": "brk()\nfor t,k in zip(closing(x),[1]):\n  LOG.append('t')\n  brk()\nLOG.append('after')\nreturn t+1",
    "delegated to behind a break": "def o():\n  brk('o')\n  yield from closing(x)\ng=o()\nnext(g)\ng=None\nLOG.append('after')\nreturn x+1",
    "returned by a frame behind a break": "def f():\n  g=blocks(x)\n  next(g)\n  brk()\n  return g\ndef blocks(x):\n  d=D()\n  yield x\n  yield x\ng=f()\nLOG.append('f')\ng=None\nLOG.append('after')\nreturn x+1",
    "in a list": "pair=[closing(x)]\nnext(pair[0])\nbrk()\npair=None\nLOG.append('after')\nreturn x+1",
    "started behind the break": "pair=[closing(x)]\nbrk()\nnext(pair[0])\npair=None\nLOG.append('after')\nreturn x+1",
    "in a dict": "d={'a':closing(x)}\nnext(d['a'])\nbrk()\ndel d['a']\nLOG.append('after')\nreturn x+1",
    "dict cleared": "d={'a':closing(x)}\nbrk()\nnext(d['a'])\nd.clear()\nLOG.append('after')\nreturn x+1",
    "in an attribute": "o=Owner()\no.g=closing(x)\nbrk()\nnext(o.g)\no.g=None\nLOG.append('after')\nreturn x+1",
    "object dropped": "o=Owner()\no.g=closing(x)\nnext(o.g)\nbrk()\no=None\nLOG.append('after')\nreturn x+1",
    "finalizer in a list": "pair=[D()]\nbrk()\npair=None\nLOG.append('after')\nreturn x+1",
    "popped": "pair=[D(),D()]\nbrk()\npair.pop()\nLOG.append('after')\npair.clear()\nLOG.append('after2')\nreturn x+1",
    "popped from a dict": "d={'k':(D(),1)}\nbrk()\nt=d.pop('k')\nLOG.append('popped')\nt=None\nLOG.append('after')\nreturn x+1",
    "attribute replaced": "o=Owner()\no.d=D()\nbrk()\no.d=None\nLOG.append('after')\nreturn x+1",
    "in a cell": "d=D()\ndef f():\n  return d\nbrk()\nd=None\nLOG.append('after')\nreturn x+1",
    "gen breaks then left": "def g():\n  try:\n    brk('g')\n    yield x\n  finally: LOG.append('f')\nfor t in g(): break\nLOG.append('after')\nreturn t+1",
    "delegating": "def o():\n  yield from closing(x)\ng=o()\nnext(g)\nbrk()\ndel g\nLOG.append('after')\nreturn x+1",
    "delegating in a list": "def o():\n  for t in closing(x): yield t\ng=[o()]\nnext(g[0])\nbrk()\ndel g[0]\nLOG.append('after')\nreturn x+1",
    "made in a broken generator": "def o():\n  brk('o')\n  for t in closing(x): yield t\nfor t in o(): break\nLOG.append('after')\nreturn x+1",
    "with in gen": "def g():\n  with managed(x) as y:\n    brk('g')\n    yield y\nfor t in g(): break\nLOG.append('after')\nreturn t+1",
    "with in gen2": "def g():\n  with managed(x) as y:\n    yield y\nfor t in g():\n  brk('q')\n  break\nLOG.append('after')\nreturn t+1",
    "exitstack": "with contextlib.ExitStack() as s:\n  a=s.enter_context(managed(x))\n  brk('b')\n  c=s.enter_context(managed(a))\nLOG.append('after')\nreturn c+1",
    "manager dropped": "m=managed(x)\ny=m.__enter__()\nbrk('b')\nm=None\nLOG.append('after')\nreturn y",
    "manager dropped2": "m=managed(x)\nbrk('a')\ny=m.__enter__()\nm=None\nLOG.append('after')\nreturn y",
    "manager dropped3": "m=managed(x)\ny=m.__enter__()\nm=None\nLOG.append('after')\nreturn y",
    "enumerated": "e=enumerate(closing(x))\nnext(e)\nbrk()\ne=None\nLOG.append('after')\nreturn x+1",
    "zip": "for t,k in zip(closing(x),[1]):\n  LOG.append('t')\n  brk()\nLOG.append('after')\nreturn t+1",
    "frame dies": "def f(y):\n  g=closing(y)\n  next(g)\n  brk()\n  return y*2\nr=f(x)\nLOG.append('after')\nreturn r",
    "frame dies2": "def f(y):\n  g=[closing(y)]\n  next(g[0])\n  brk()\n  return y*2\nr=f(x)\nLOG.append('after')\nreturn r",
    "frame dies3": "def f(y):\n  g=[closing(y),closing(y+1)]\n  next(g[0])\n  next(g[1])\n  brk()\n  return y*2\nr=f(x)\nLOG.append('after')\nreturn r",
    "frame raises": "def f(y):\n  g=closing(y)\n  next(g)\n  brk()\n  raise KeyError('z')\ntry: f(x)\nexcept KeyError as e: LOG.append('h')\nLOG.append('after')\nbrk()\nreturn x+1",
    "weakly referred": "w=[Owner()]\nr=weakref.ref(w[0])\nbrk()\nw=None\nreturn x+1, r() is None",
    "weakly referred attribute": "o=Owner()\no.w=Owner()\nr=weakref.ref(o.w)\nbrk()\no.w=None\nreturn x+1, r() is None",
    "dead local finalizer": "d=[D()]\nbrk()\nLOG.append('after')\nreturn x+1",
    "two in a list": "pair=[closing(x),closing(x)]\nbrk()\nnext(pair[0])\nnext(pair[1])\nbrk()\npair.clear()\nLOG.append('after')\nreturn x+1",
    "consumed behind the break": "brk()\ns=x\nfor t in closing(x): s=s+t\nLOG.append('after')\nreturn s",
    "bound method": "class B:\n  def __del__(s): LOG.append('B')\n  def go(s): return 1\nm=B().go\nbrk()\nm=None\nLOG.append('after')\nreturn x+1",
    "shared": "d=D()\na=[d];b=[d]\nd=None\nbrk()\na=None\nLOG.append('a')\nb=None\nLOG.append('after')\nreturn x+1",
    "tuple": "t=(1,(D(),))\nbrk()\nt=None\nLOG.append('after')\nreturn x+1",
    "slot direct": "d=D()\nbrk()\nd=None\nLOG.append('after')\nreturn x+1",
    "partial": "p=functools.partial(len,D())\nbrk()\np=None\nLOG.append('after')\nreturn x+1",
    "lambda default": "p=lambda d=D(): 1\nbrk()\np=None\nLOG.append('after')\nreturn x+1",
    "iterator": "p=iter([D(),D()])\nbrk()\np=None\nLOG.append('after')\nreturn x+1",
    "popped global over": "d=HELD.pop()\nbrk()\nd=None\nLOG.append('after')\nreturn x+1",
    "popped global dead": "d=HELD.pop()\nbrk()\nLOG.append('after')\nreturn x+1",
    "weak callback": "o=[Owner()]\nr=weakref.ref(o[0], lambda _: LOG.append('cb'))\nbrk()\no=None\nLOG.append('after')\nreturn x+1",
    "finalize": "o=[Owner()]\nweakref.finalize(o[0], LOG.append, 'fin')\nbrk()\no=None\nLOG.append('after')\nreturn x+1",
    "kinds": "pair=[make(len(LOG)) for _ in range(1)]\nbrk()\npair=None\nLOG.append('after')\nreturn x+1",
    "exc": "try:\n  raise ValueError(D())\nexcept ValueError as e:\n  brk()\n  LOG.append('in')\nLOG.append('after')\nreturn x+1",
    "exc frame": "def f():\n  d=[D()]\n  raise ValueError(1)\ntry:\n  f()\nexcept ValueError as e:\n  brk()\n  LOG.append('in')\nLOG.append('after')\nreturn x+1",
    "init arg": "class O2:\n  def __init__(s,a):\n    brk()\n    a=None\n    LOG.append('in')\nr=O2([D()])\nLOG.append('after')\nreturn x+1",
    "init self": "class O3:\n  def __init__(s):\n    brk()\n    LOG.append('in')\n  def __del__(s): LOG.append('O3')\nO3()\nLOG.append('after')\nreturn x+1",
    "init self in list": "class O3:\n  def __init__(s):\n    brk()\n    LOG.append('in')\n  def __del__(s): LOG.append('O3')\nl=[O3()]\nLOG.append('mid')\nl=None\nLOG.append('after')\nreturn x+1",
    "global flips": "pair=[FACTORY[0]()]\nbrk()\npair=None\nLOG.append('after')\nreturn x+1",
    "flip dead": "pair=[FACTORY[0]()]\nbrk()\nLOG.append('after')\nreturn x+1",
}


def before(body: str, call: int) -> str:
    """What the world does before a call."""
    text = f"a = (x + {call},)"
    if "HELD" in body:
        text += "; HELD.append(D())"
    if "FACTORY" in body:
        text += f"; FACTORY[0] = {'int' if call < 2 else 'D'}"
    return text


@pytest.mark.parametrize("name", DEATHS)
def test_death(name: str) -> None:
    body = DEATHS[name].replace("\n", "\n  ")
    source = f"{PRELUDE}\ndef fn(x):\n  LOG.clear()\n  {body}"
    outcomes = check_calls(source, [Call("*a", pre=before(body, i), post="LOG") for i in range(6)])
    assert any(o.counters["captures_started"] > 0 for o in outcomes)


# Nothing of theirs dies where it would be noticed: all of them keep their entries.
LIVING = {
    "a list": "l=[x,1]\nbrk()\nl.append(2)\nreturn l[0]+len(l)",
    "an object": "o=Owner()\no.x=x\nbrk()\no=o.x\nreturn o+1",
    "owned elsewhere": "d=KEPT\nbrk()\nd=None\nreturn x+1",
    "a closure": "def f():\n  return x\nbrk()\nreturn f()+1",
    "a manager": "with managed(x) as y:\n  y=y*2\nbrk()\nreturn y+1",
    "inside a manager": "with managed(x) as y:\n  brk()\n  y=y*2\nreturn y+1",
    "a generator without an end": "g=(x*i for i in range(3))\ny=next(g)\nbrk()\nreturn y+1",
    "no_grad": "with torch.no_grad():\n  y=x*2\n  brk()\n  y=y+1\nreturn y",
    "an exception": "try:\n  raise ValueError(1)\nexcept ValueError as e:\n  y=x+1\n  brk()\n  y=y*2\nreturn y",
    "a module": "y=MODULE(x)\nbrk()\nreturn MODULE(y)",
}


@pytest.mark.parametrize("name", LIVING)
def test_ordinary_programs_keep_their_entries(name: str) -> None:
    body = LIVING[name].replace("\n", "\n  ")
    world = "KEPT = D()\nMODULE = torch.nn.Linear(3, 3)\n"
    source = f"{PRELUDE}{world}\ndef fn(x):\n  LOG.clear()\n  {body}"
    last = check_calls(source, [Call(f"x[0:2, 0:3] + {i}") for i in range(6)])[-1].counters
    assert last["hits"] == 1 and last["frames_handed_over"] == 0 and last["captures_started"] == 0, last
    assert last["resume_hits"] > 0


def test_torch_dynamos_own_references_are_no_witness() -> None:
    """Once it has run, it refers to each new module weakly, with a callback."""
    from torch._dynamo.mutation_guard import GenerationTracker

    module = torch.nn.Linear(2, 2)
    GenerationTracker.tag(module)

    def fn(m: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = m(x)
        print(end="")
        return m(y)

    compiled = flashpoint.compile(fn, backend="eager")
    for _ in range(3):
        before = flashpoint.counters()["resume_hits"]
        assert torch.equal(compiled(module, torch.ones(2)), fn(module, torch.ones(2)))
    assert flashpoint.counters()["resume_hits"] == before + 1
