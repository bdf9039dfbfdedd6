"""What C code compares or hashes by address: keys, searches, comparisons of elements, text of objects."""
# fmt: off

from tests.python.guards.case import Case

_O = "class A:\n  def __init__(self, v=0): self.v = v\na, b = A(), A()\n"
_Q = "class A:\n  def __eq__(self, o): return False\n  __hash__ = object.__hash__\na, b = A(), A()\n"
_F = "def make(): return lambda t: t\nf, g = make(), make()\nT = {f: 2.0, g: 3.0}\n"


def _two(name: str, source: str, expression: str, hit: str = "h") -> Case:
    """p and q are two objects first, then one."""
    return Case(name, f"{source}def fn(x, p, q): return x * ({expression})", "x, a, b", "x, a, a", hit=hit)


SETS = [
    _two("difference of sets", _O, "len({p} - {q}) + 1"),
    _two("intersection of sets", _O, "len({p} & {q}) + 1"),
    _two("equality of sets", _O, "2 if {p} == {q} else 3"),
    _two("set method", _O, "len({p}.difference([q])) + 1"),
    _two("set of a list", _O, "len(set([p, q]))"),
    _two("frozenset", _O, "len(frozenset((p, q)))"),
    _two("set discard", _O, "[s := {p, 1}, s.discard(q), len(s)][2]"),
    _two("set update", _O, "[s := {p}, s.update([q]), len(s)][2]"),
    _two("set add", _O, "[s := {p}, s.add(q), len(s)][2]"),
    Case("set of functions", "def make(): return lambda t: t\na, b = make(), make()\ndef fn(x, p, q): return x * len({p, q})", "x, a, b", "x, a, a", hit="h"),
    Case("set difference of tensors", "def fn(x, p, q): return x * (1 + len({p} - {q}))", "x, x, y", "x, y, y", hit="h"),
]
DICTS = [
    _two("iteration of a dict", _O, "len([k for k in {p: 1, q: 2}])"),
    _two("values of a dict", _O, "sum({p: 1, q: 2}.values())"),
    _two("items of a dict", _O, "len(list({p: 1, q: 2}.items()))"),
    _two("views of dicts", _O, "1 + len({p: 1}.keys() & {q: 2}.keys())"),
    _two("dict unpacked", _O, "len([*{p: 1, q: 2}])"),
    _two("dict copied", _O, "len(dict({p: 1, q: 2}))"),
    _two("dict from keys", _O, "len(dict.fromkeys([p, q]))"),
    _two("dict contains", _O, "2 if {p: 1}.__contains__(q) else 3"),
    _two("dict pop", _O, "{p: 1}.pop(q, 5)"),
    _two("dict setdefault", _O, "{p: 1}.setdefault(q, 5)"),
    _two("method as key", _O + "A.m = lambda self: 1\n", "{p.m: 1}.get(q.m, 5)"),
    _two("tuple as key", _O, "{(p, 1): 1}.get((q, 1), 5)"),
    _two("counter", _O, "len(collections.Counter([p, q]))"),
    Case("function as key", _F + "def fn(x, p, q): return x * {p: 1}.get(q, 5)", "x, f, g", "x, f, f", hit="h"),
    Case("function looked up", _F + "def fn(x, p): return x * T[p]", "x, f", "x, g", hit="h"),
    Case("function membership", _F + "h = make()\ndef fn(x, p): return x * (2 if p in T else 3)", "x, f", "x, h", hit="h"),
    Case("NaN looked up", "n, m = float('nan'), float('nan')\ndef fn(x, p, q): return x * {p: 2}.get(q, 3)", "x, n, m", "x, n, n", hit="."),
]
SEARCHES = [
    _two("list index", _O, "1 + [p, q].index(q)"),
    _two("list count", _O, "[p, q].count(q)"),
    _two("tuple index", _O, "1 + (p, q).index(q)"),
    _two("list remove", _O, "[l := [p, 1, q], l.remove(q), 2 if l[0] == 1 else 3][2]"),
    _two("membership in a list", _O, "2 if p in [q] else 3"),
    _two("membership despite __eq__", _Q, "2 if p in [q] else 3"),
    _two("membership in values", _O, "2 if p in {1: q}.values() else 3", hit="."),
    _two("deque", _O, "2 if p in collections.deque([q]) else 3"),
    _two("equality of tuples", _O, "2 if (p, 1) == (q, 1) else 3"),
    _two("equality of tuples despite __eq__", _Q, "2 if (p, 1) == (q, 1) else 3"),
    _two("equality of lists", _O, "2 if [p, 1] == [q, 1] else 3"),
    _two("equality of dicts", _O, "2 if {'a': [p]} == {'a': [q]} else 3"),
    _two("equality of methods", _O + "A.m = lambda self: 1\n", "2 if p.m == q.m else 3"),
    _two("operator.eq", _O, "2 if operator.eq(p, q) else 3"),
    _two("operator.is_", _O, "2 if operator.is_(p, q) else 3"),
    _two("object.__eq__", _O, "2 if object.__eq__(p, q) is True else 3"),
    _two("groupby", _O, "len(list(itertools.groupby([p, q])))"),
    Case("operator.is_ of tensors", "def fn(x, p): return x * (2 if operator.is_(x, p) else 3)", "x, y", "x, x", hit="h"),
    Case("NaN in a list", "n, m = float('nan'), float('nan')\ndef fn(x, p, q): return x * (2 if p in [q] else 3)", "x, n, m", "x, n, n", hit="."),
    Case("NaN in equal lists", "n, m = float('nan'), float('nan')\ndef fn(x, p, q): return x * (2 if [p] == [q] else 3)", "x, n, m", "x, n, n", hit="."),
    Case("__eq__ inside a list", "class A:\n  def __eq__(self, o): return True\nold = A.__eq__\na, b = A(), A()\ndef fn(x): return x * (2 if [a] == [b] else 3)",
         change="A.__eq__ = lambda s, o: False", undo="A.__eq__ = old", hit="h"),
    Case("__lt__ in sorted", "class A:\n  def __init__(self, v): self.v = v\n  def __lt__(self, o): return self.v < o.v\nold = A.__lt__\na, b = A(1), A(2)\n"
         "def fn(x): return x * sorted([a, b])[0].v", change="A.__lt__ = lambda s, o: s.v > o.v", undo="A.__lt__ = old", hit="h"),
    Case("__lt__ in list.sort", "class A:\n  def __init__(self, v): self.v = v\n  def __lt__(self, o): return self.v < o.v\nold = A.__lt__\na, b = A(1), A(2)\n"
         "def fn(x):\n  l = [a, b]\n  l.sort()\n  return x * l[0].v", change="A.__lt__ = lambda s, o: s.v > o.v", undo="A.__lt__ = old", hit="h"),
    Case("__radd__ in sum", "class A:\n  def __radd__(self, o): return o + 2\nold = A.__radd__\na = A()\ndef fn(x): return x * sum([a])",
         change="A.__radd__ = lambda s, o: o + 3", undo="A.__radd__ = old", hit="h"),
]
TEXT = [
    Case("__repr__ appears", "class A:\n  def __str__(self): return 's'\n  def __repr__(self): return 'r'\nold = A.__repr__\na = A()\ndef fn(x): return x + 1, repr([a])",
         change="A.__repr__ = lambda s: 'q'", undo="A.__repr__ = old", hit="h"),
    Case("__str__ replaced", "class A:\n  def __str__(self): return 's'\nold = A.__str__\na = A()\ndef fn(x): return x + 1, f'{a}', str(a), '%s' % a, '{}'.format(a), list(map(str, [a]))",
         change="A.__str__ = lambda s: 'q'", undo="A.__str__ = old", hit="h"),
    Case("attribute read by __repr__", "@dataclasses.dataclass\nclass A:\n  v: int = 2\na = A()\ndef fn(x): return x + 1, repr(a), f'{[a]}'", change="a.v = 3", undo="a.v = 2", hit="h"),
]
STATE = [
    Case("class namespace", "class A:\n  k = 2\ndef fn(x): return x * A.__dict__['k']", change="A.k = 3", undo="A.k = 2", hit="h"),
    Case("vars of a class", "class A:\n  k = 2\ndef fn(x): return x * len([n for n in vars(A) if n[0] != '_'])", change="A.z = 3", undo="del A.z", hit="h"),
    Case("deque maxlen", "def fn(x, q): return x * q.maxlen", "x, collections.deque(maxlen=2)", "x, collections.deque(maxlen=3)", hit="h"),
    Case("match argument", "def fn(x, m): return x * int(m.group(0))", "x, re.match('.', '2')", "x, re.match('.', '3')", hit="."),
    Case("exception argument", "def fn(x, e): return x * e.args[0]", "x, ValueError(2)", "x, ValueError(3)", hit="."),
    Case("weak reference", "class A: k = 2\nclass B: k = 3\na, b = A(), B()\nw = weakref.ref(a)\ndef fn(x): return x * w().k", change="w = weakref.ref(b)", undo="w = weakref.ref(a)", hit="h"),
    Case("weak reference dies", "class A: k = 2\na = A()\nw = weakref.ref(a)\ndef fn(x): return x * (2 if w() is None else 3)", change="del a", undo="a = A(); w = weakref.ref(a)", hit="h"),
    Case("lru_cache entry", "n = 2\n@functools.lru_cache(None)\ndef c(k): return k * n\ndef fn(x): return x * c(3)", change="n = 5; c.cache_clear()", undo="n = 2; c.cache_clear()", hit="h"),
    Case("lru_cache evicted", "n = 2\n@functools.lru_cache(1)\ndef c(k): return k * n\nc(3)\ndef fn(x): return x * c(3)", change="n = 5; c(4)", undo="n = 2; c(4)", hit="h"),
    Case("lru_cache of an object", "class A:\n  def __init__(self, v): self.v = v\na, b = A(2), A(3)\n@functools.lru_cache\ndef c(o): return o.v\ndef fn(x, o): return x * c(o)", "x, a", "x, b", hit="H"),
    Case("lru_cache of a tensor", "n = 0\n@functools.lru_cache\ndef c(t):\n  global n\n  n += 1\n  return n\nc(x); c(y)\ndef fn(t): return t * c(t)", "x", "y", hit="."),
    Case("lru_cache effect", "l = []\n@functools.lru_cache\ndef c(k):\n  l.append(k)\n  return k\ndef fn(x, k): return x * c(k), len(l)", "x, 2", "x, 3", hit="."),
    Case("lru_cache method", "class A:\n  k = 2\n  @functools.lru_cache(None)\n  def c(self, n): return n * self.k\na = A()\na.c(3)\ndef fn(x): return x * a.c(3)",
         change="A.c.cache_clear(); a.k = 5", undo="A.c.cache_clear(); a.k = 2", hit="h"),
]
CASES = [*SETS, *DICTS, *SEARCHES, *TEXT, *STATE]
