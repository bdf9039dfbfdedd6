"""Objects whose death the program notices, behind breaks: closed and finalized when eager mode does it.

A recording keeps what it was given alive, and a snapshot leaves out locals that nothing reads any more; neither
may be seen. The log of each of six calls is eager's.
"""

from __future__ import annotations

import pytest

from tests.python.test_generators import PRELUDE
from tests.support import Call, check_calls

FINALIZED = """
import weakref
class D:
    def __init__(self, name='D'): self.name = name
    def __del__(self): LOG.append(self.name)
class Owner: pass
HELD = []
"""

DEATHS = {
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
    "loop in gen": "for t in closing(x):\n  if len(LOG)>1: break\nLOG.append('after')\nreturn t+1",
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
    "appended behind the break": "l=[]\nbrk()\nl.append(closing(x))\nnext(l[0])\nl=None\nLOG.append('after')\nreturn x+1",
    "global list": "HELD[:]=[closing(x)]\nnext(HELD[0])\nbrk()\nHELD.clear()\nLOG.append('after')\nreturn x+1",
    "dead local finalizer": "d=[D()]\nbrk()\nLOG.append('after')\nreturn x+1",
    "two in a list": "pair=[closing(x),closing(x)]\nbrk()\nnext(pair[0])\nnext(pair[1])\nbrk()\npair.clear()\nLOG.append('after')\nreturn x+1",
    "consumed behind the break": "brk()\ns=x\nfor t in closing(x): s=s+t\nLOG.append('after')\nreturn s",
}


@pytest.mark.parametrize("name", DEATHS)
def test_death(name: str) -> None:
    body = DEATHS[name].replace("\n", "\n  ")
    source = f"{PRELUDE}{FINALIZED}\ndef fn(x):\n  LOG.clear()\n  {body}"
    outcomes = check_calls(source, [Call("*a", pre=f"a = (x + {i},)", post="LOG") for i in range(6)])
    assert any(o.counters["captures_started"] > 0 for o in outcomes)
