"""A graph break in every context a frame can be in: eager is the oracle, and in the steady state nothing records."""

from __future__ import annotations

import pytest

from flashpoint import _C
from tests.support import check_calls

PRELUDE = """
import collections, contextlib, copy, functools, logging, random, time, warnings
def brk(): print(end='')
@contextlib.contextmanager
def cm(v):
    global G; G=v
    yield v
class M:
    def __enter__(s): return 5
    def __exit__(s,*a): return False
class P:
    def __init__(s,v): s.v=v; brk(); s.w=v+1
    @property
    def p(s): brk(); return s.v
    def __add__(s,o): brk(); return s.v+o
    def __call__(s,y): brk(); return y+s.v
    def __len__(s): brk(); return 3
    def __getattr__(s,n): brk(); return 7
    def __getitem__(s,k): brk(); return k
    def __iter__(s): brk(); yield 1; brk(); yield 2
    def __eq__(s,o): brk(); return True
    def __bool__(s): brk(); return True
class D(dict):
    def get(s, k): return super().get(brk() or k)
class Q:
    def __init__(s, v): s.v = v
    def __deepcopy__(s, memo): brk(); return Q(s.v + 1)
def gen(y):
    for i in range(3):
        brk(); yield y*i
def deco(f):
    @functools.wraps(f)
    def w(*a,**k): return f(*a,**k)
    return w
@deco
def df(y): brk(); return y*2
"""

# The body of fn(x); brk() breaks.
PROGRAMS = {
    "plain": "y=x+1; brk(); return y*2",
    "with no_grad": "with torch.no_grad():\n  y=x+1; brk(); y=y*2\nreturn y+1",
    "with no_grad2": "with torch.no_grad():\n  y=x+1; brk(); y=y*2; brk()\nreturn y+1",
    "with enable_grad": "with torch.enable_grad():\n  y=x+1; brk(); y=y*2\nreturn y+1",
    "with autocast": "with torch.autocast('cpu',dtype=torch.bfloat16):\n  y=x@x.T; brk(); y=y*2\nreturn y+1",
    "with class": "with M() as m:\n  y=x+m; brk(); y=y*2\nreturn y+1",
    "with cm": "with cm(3) as m:\n  y=x+m; brk(); y=y*2\nreturn y+1",
    "with nested": "with M() as m, torch.no_grad():\n  y=x+m; brk(); y=y*2\nreturn y+1",
    "inference": "with torch.inference_mode():\n  y=x+1; brk(); y=y*2\nreturn y+1",
    "try": "try:\n  y=x+1; brk(); y=y*2\nexcept ValueError: y=x\nreturn y+1",
    "finally": "try:\n  y=x+1; brk(); y=y*2\nfinally: y=y+3\nreturn y+1",
    "except": "try:\n  raise ValueError\nexcept ValueError:\n  y=x+1; brk(); y=y*2\nreturn y+1",
    "raise": "y=x+1\ntry:\n  brk(); raise ValueError\nexcept ValueError:\n  y=y*2\nreturn y+1",
    "for": "y=x\nfor i in range(3):\n  y=y+i; brk()\nreturn y*2",
    "for list": "y=x\nfor i in [1,2,3]:\n  y=y+i; brk()\nreturn y*2",
    "enumerate": "y=x\nfor i,(a,b) in enumerate(zip([1,2],[3,4])):\n  y=y+i*a; brk()\nreturn y*2",
    "dict items": "y=x\nfor k,v in {'a':1,'b':2}.items():\n  y=y+v; brk()\nreturn y*2",
    "while": "y=x;i=0\nwhile i<3:\n  y=y+i; brk(); i+=1\nreturn y*2",
    "listcomp": "y=[brk() or x*i for i in range(3)]\nreturn y[0]+y[1]",
    "genexpr": "y=list(x*i for i in range(3) if not brk())\nreturn y[0]+y[1]",
    "sum genexpr": "return sum(x*i+len([brk()]) for i in range(3))",
    "generator": "y=x\nfor v in gen(x): y=y+v\nreturn y",
    "generator outer": "y=x\nfor v in (x*i for i in range(3)): y=y+v; brk()\nreturn y",
    "lambda": "f=lambda v: (brk(), v*2)[1]\nreturn f(x)+1",
    "closure": "def f(v):\n  brk(); return v*2+k\nk=2\nreturn f(x)+1",
    "nested": "def f(v):\n  def g(v): brk(); return v*2\n  return g(v)+1\nreturn f(x)+1",
    "deco": "return df(x)+1",
    "star": "def f(*a,**k): brk(); return a[0]*k['z']\nreturn f(x,1,z=3)+1",
    "init": "p=P(2); return x*p.v+p.w",
    "property": "p=P(2); return x*p.p",
    "add op": "p=P(2); return x*(p+1)",
    "call op": "p=P(2); return p(x)*2",
    "len": "p=P(2); return x*len(p)",
    "getattr": "p=P(2); return x*p.foo",
    "getitem": "p=P(2); return x*p[3]",
    "iter": "p=P(2); return x*sum(p)",
    "eq": "p=P(2); return x*(p==3)",
    "bool": "p=P(2); return x*2 if p else x",
    "sorted key": "return x*sorted([3,1,2],key=lambda v:(brk(),v)[1])[0]",
    "map": "return sum(map(lambda v:(brk(),x*v)[1],[1,2]))",
    "partial": "return functools.partial(lambda a,b:(brk(),a*b)[1],x)(3)+1",
    "recursion": "def r(v,n):\n  if n==0: brk(); return v\n  return r(v*2,n-1)+1\nreturn r(x,3)",
    "if tensor": "y=x*2\nif y.sum()>3: y=y+1\nelse: y=y-1\nreturn y*2",
    "while tensor": "y=x.abs()+1\nwhile y.sum()<200: y=y*2\nreturn y+1",
    "assert": "y=x*2\nassert (y>0).all()\nreturn y+1",
    "nonzero": "y=x.nonzero()\nz=y*2\nreturn z+1, x[x>0]*2",
    "logging": "logging.getLogger('q').info('v %s', x.shape)\nreturn x*2",
    "warn": "warnings.warn('w')\nreturn x*2",
    "random": "r=random.random()\nreturn x*2, r<2",
    "time": "t=time.time()\ny=x*2\nreturn y, time.time()-t<100",
    "global mode": "torch.set_grad_enabled(False); y=x*2; brk(); torch.set_grad_enabled(True); return y+1",
    "default dtype": "torch.set_default_dtype(torch.float64); brk(); y=torch.ones(2); torch.set_default_dtype(torch.float32); return y+1",
    "match": "match (1,2):\n  case (a,b): y=x*a; brk()\nreturn y+b",
    "walrus": "return (y:=x*2) + (brk() or 1)",
    "exitstack": "with contextlib.ExitStack() as s:\n  s.enter_context(torch.no_grad()); y=x*2; brk(); y=y+1\nreturn y",
    "suppress": "with contextlib.suppress(ValueError):\n  y=x*2; brk(); y=y+1\nreturn y",
    "catch warnings": "with warnings.catch_warnings():\n  warnings.simplefilter('ignore'); y=x*2; brk(); y=y+1\nreturn y",
    "dataclass": "d=dict(a=x*2); brk(); d['b']=d['a']+1\nreturn d",
    "defaultdict": "d=collections.defaultdict(list); d['a'].append(x*2); brk(); d['b'].append(x)\nreturn d",
    "deque": "d=collections.deque(maxlen=2); d.append(x*2); brk(); d.append(x)\nreturn list(d)",
    "set": "s={1,2}; brk(); s.add(3)\nreturn x*len(s)",
    "super after the break": "return x * D({1: 2}).get(1)",
    "inside deepcopy": "return x * copy.deepcopy([{'a': [Q(2)]}])[0]['a'][0].v",
    "module fn": "return torch.nn.functional.dropout(x,0.5,True)*(brk() or 1)",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_break(name: str) -> None:
    body = PROGRAMS[name].replace("\n", "\n  ")
    calls = [f"x + {i}" for i in range(6)]
    assert not _C._graph_enabled()
    last = check_calls(f"{PRELUDE}\ndef fn(x):\n  {body}", calls)[-1].counters
    resumed = last["captures_started"] == 0 and last["hits"] == 1 and last["frames_handed_over"] == 0
    assert resumed, last
    assert not _C._graph_enabled()
