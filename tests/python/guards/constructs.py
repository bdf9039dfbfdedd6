"""Constructs of ordinary model code: writes that are read again, iterators, callbacks in C, slices, patterns."""
# fmt: off

from tests.python.guards.case import Case

_D = "import dataclasses\n"
CALLBACKS = [
    Case("max by len", "def fn(x, l): return x * len(max(l, key=len))", "x, [[1], [1, 2]]", "x, [[1], [1, 2, 3]]", hit="h"),
    Case("map len", "def fn(x, l): return x * sum(map(len, l))", "x, [[1], (1, 2)]", "x, [[1], (1, 2, 3)]", hit="h"),
    Case("map len of text", "def fn(x, l): return x * sum(map(len, l))", "x, ['a', 'bc']", "x, ['a', 'bcd']", hit="h"),
    Case("map str joined", "def fn(x, l): return x + 1, '-'.join(map(str, l))", "x, [1, 2]", "x, [1, 3]", hit="h"),
    Case("generator joined", "def fn(x, l): return x + 1, '-'.join(str(v) for v in l)", "x, [1, 2]", "x, [1, 3]", hit="h"),
    Case("sorted by dict.get", "d = {'a': 2, 'b': 1}\ndef fn(x): return x + 1, sorted(d, key=d.get)", change="d['b'] = 5", undo="d['b'] = 1", hit="h"),
    Case("sorted by itemgetter", "d = {'a': 2, 'b': 1}\ndef fn(x): return x + 1, sorted(d.items(), key=operator.itemgetter(1))", change="d['b'] = 5", undo="d['b'] = 1", hit="h"),
    Case("map attrgetter", "class A:\n  def __init__(self, v): self.v = v\na = A(2)\ndef fn(x): return x * sum(map(operator.attrgetter('v'), [a, A(3)]))", change="a.v = 5", undo="a.v = 2", hit="h"),
    Case("map bound append", "def fn(x, l):\n  out = []\n  list(map(out.append, l))\n  return x * len(out), out", "x, [1, 2]", "x, [1, 2, 3]", hit="h"),
    Case("any of objects", "class A: pass\na = A()\ndef fn(x): return x * (2 if any([a]) else 3)", change="A.__bool__ = lambda s: False", undo="del A.__bool__", hit="h"),
    Case("filter None", "def fn(x, l): return x * (1 + len(list(filter(None, l))))", "x, [[], [1]]", "x, [[1], [1]]", hit="h"),
    Case("bound method as argument", "def fn(x, f): return x * f('a', 3)", "x, {'a': 2}.get", "x, {'a': 5}.get", hit="h"),
    Case("bound tensor method as argument", "def fn(x, f): return f(x)", "x, y.mul", "x, y.add", hit="h"),
    Case("str.join of a list", "def fn(x, l): return x + 1, ','.join(l)", "x, ['a', 'b']", "x, ['a', 'c']", hit="h"),
    Case("namedtuple replaced", "class P(typing.NamedTuple):\n  a: int\n  b: int = 2\np = P(3)\ndef fn(x): return x * p._replace(b=5).a, p._asdict()", change="p = P(4)", undo="p = P(3)", hit="h"),
]
WRITES = [
    Case("list appended and read", "def fn(x, l):\n  l.append(3)\n  return x * len(l), l[0], sum(l)", "x, [1, 2]", "x, [2, 2]", hit="h"),
    Case("list appended and read, longer", "def fn(x, l):\n  l.append(3)\n  return x * len(l)", "x, [1]", "x, [1, 2]", hit="h"),
    Case("list appended twice", "def fn(x, l):\n  l.append(3)\n  n = len(l)\n  l.append(n)\n  l.insert(0, 7)\n  return x * l[-1], l", "x, [1]", "x, [1, 2]", hit="h"),
    Case("list of tensors appended", "def fn(x, l):\n  l.append(x * 2)\n  return torch.stack(l).sum(0), len(l)", "x, [y]", "x, [y, y]", hit="h"),
    Case("dict written and iterated", "def fn(x, d):\n  d['n'] = 4\n  return x * sum(d.values()), list(d), len(d)", "x, {'a': 1}", "x, {'n': 2, 'a': 1}", hit="h"),
    Case("dict changed in a loop", "def fn(x, d):\n  for k in list(d): d[k] = d[k] + 1\n  return x * sum(d.values())", "x, {'a': 1, 'b': 2}", "x, {'a': 1, 'b': 5}", hit="h"),
    Case("dict order after deletion", "def fn(x, d):\n  del d['a']\n  d['a'] = 7\n  return x + 1, d", "x, {'a': 1, 'b': 2}", "x, {'b': 1, 'a': 2}", same=True, hit="h"),
    Case("dict pop and set", "def fn(x, d):\n  d['a'] = d.pop('a') + 1\n  return x * d['a'], d", "x, {'a': 1, 'b': 2}", "x, {'a': 3, 'b': 2}", hit="h"),
    Case("dict updated after a write", "def fn(x, d):\n  d['n'] = 1\n  d.update(m=2)\n  return x * len(d), d", "x, {'a': 1}", "x, {'a': 1, 'b': 1}", hit="h"),
    Case("vars after a write", "class A: pass\na = A()\na.v = 1\ndef fn(x):\n  a.w = 2\n  return x * len(vars(a)), list(vars(a))", change="a.__dict__.clear(); a.w = 3; a.v = 4", undo="a.__dict__.clear(); a.v = 1", hit="."),
    Case("class attribute written", "class A:\n  k = 2\n  n = 1\na = A()\ndef fn(x):\n  A.k = A.n + 3\n  return x * a.k * A.k", change="A.n = 5", undo="A.n = 1", hit="h"),
    Case("class attribute through type", "class A:\n  k = 2\na = A()\na.m = 4\ndef fn(x):\n  type(a).k = a.m\n  return x * a.k", change="a.m = 5", undo="a.m = 4", hit="h"),
    Case("class attribute shadowed", "class A:\n  k = 2\na = A()\ndef fn(x):\n  A.k = 4\n  return x * a.k", change="a.k = 5", undo="del a.k", hit="h"),
    Case("class attribute of a base", "class A:\n  k = 2\nclass B(A): pass\nb = B()\ndef fn(x):\n  A.k = 4\n  return x * b.k", change="B.k = 5", undo="del B.k", hit="."),
    Case("deque appended", "def fn(x, q):\n  q.append(3)\n  return x * len(q), list(q)", "x, collections.deque([1], maxlen=2)", "x, collections.deque([1, 2], maxlen=2)", hit="h"),
    Case("deque rotated", "def fn(x, q):\n  q.rotate(1)\n  q.popleft()\n  return x * q[0], q", "x, collections.deque([1, 2, 3])", "x, collections.deque([4, 2, 3])", hit="h"),
    Case("deque returned", "def fn(x, n): return collections.deque([x + 1, n], maxlen=3)", "x, 2", "x, 3", hit="h"),
    Case("tensor attribute written", "def fn(x, n):\n  x.tag = n + 1\n  return x * x.tag", "x, 2", "x, 3", hit="h"),
    Case("tensor attribute of a result", "def fn(x, n):\n  t = x + 1\n  t.tag = n\n  return (t * t.tag).sum()", "x, 2", "x, 3", hit="h"),
    Case("tensor attribute read", "x.tag = 2\ndef fn(x): return x * x.tag", change="x.tag = 3", undo="x.tag = 2", hit="h"),
]
INDICES = [
    Case("list as index", "def fn(x, l): return x[:, l]", "x, [0, 2]", "x, [1, 0]", hit="h"),
    Case("list display as index", "def fn(x, n): return x[:, [0, n]]", "x, 1", "x, 2", hit="h"),
    Case("bare list as index", "def fn(x, n): return x[[n, 0]]", "x, 1", "x, 0", hit="h"),
    Case("truth values as index", "def fn(x, b): return x[:, [True, b, False]].sum()", "x, True", "x, False", hit="h"),
    Case("nested lists as index", "def fn(x, n): return x[[[0], [n]], [0, 1]]", "x, 1", "x, 0", hit="h"),
    Case("list index stored to", "def fn(x, n):\n  t = x.clone()\n  t[:, [0, n]] = 5.0\n  t[[0]] = x[[1]] * 2\n  return t", "x, 1", "x, 2", hit="h"),
    Case("list index of an input stored to", "def fn(x, n):\n  x[:, [0, n]] = 5.0\n  return x + 1", "x, 1", "x, 2", hit="h"),
    Case("slice as argument", "def fn(x, s): return x[:, s], [1, 2, 3][s], s.stop", "x, slice(0, 1)", "x, slice(0, 2)", hit="h"),
    Case("slice in a field", "class A: pass\na = A()\na.s = slice(0, 1)\ndef fn(x): return x[:, a.s]", change="a.s = slice(1, 3)", undo="a.s = slice(0, 1)", hit="h"),
    Case("tuple of slices", "i = (slice(None), slice(0, 2))\ndef fn(x): return x[i]", change="i = (slice(None), slice(1, 2))", undo="i = (slice(None), slice(0, 2))", hit="h"),
]
PROTOCOLS = [
    Case("match of a class", _D + "@dataclasses.dataclass\nclass P:\n  a: int\np = P(2)\ndef fn(x):\n  match p:\n    case P(a=0): return x\n    case P(k): return x * k\n    case _: return x + 1",
         change="p.a = 5", undo="p.a = 2", hit="h"),
    Case("match of a class, other class", "class P: a = 2\nclass Q: a = 3\np, q = P(), Q()\ndef fn(x, o):\n  match o:\n    case P(a=k): return x * k\n    case _: return x + 1", "x, p", "x, q", hit="h"),
    Case("match args changed", "class P:\n  __match_args__ = ('a',)\n  a = 2\n  b = 3\np = P()\ndef fn(x):\n  match p:\n    case P(k): return x * k",
         change="P.__match_args__ = ('b',)", undo="P.__match_args__ = ('a',)", hit="h"),
    Case("match of a mapping", "def fn(x, d):\n  match d:\n    case {'k': v}: return x * v\n    case _: return x + 1", "x, {'k': 2}", "x, {'k': 3}", hit="h"),
    Case("match of a length", "def fn(x, l):\n  match l:\n    case [a]: return x * a\n    case [a, *b]: return x * a + len(b)\n    case _: return x - 1", "x, [2]", "x, [2, 3]", hit="h"),
    Case("generator sent to", "def g(k):\n  while True: k = (yield k) or 5\ndef fn(x, n):\n  it = g(n)\n  k = next(it)\n  k += it.send(3)\n  it.close()\n  return x * k", "x, 2", "x, 4", hit="h"),
    Case("cached property of a new object", "class A:\n  def __init__(self, k): self.k = k\n  @functools.cached_property\n  def v(self): return self.k * 2\ndef fn(x, n):\n  a = A(n)\n  return x * a.v * a.v", "x, 2", "x, 3", hit="h"),
    Case("union of types", "class A: k = 2\ndef fn(x, o):\n  t = list[int] | None\n  return x * (2 if isinstance(o, int | A) else 3)", "x, A()", "x, 'a'", hit="h"),
    Case("Optional at run time", "def fn(x, n):\n  t = typing.Optional[int]\n  return x * n", "x, 2", "x, 3", hit="h"),
    Case("counter of text", "def fn(x, s):\n  c = collections.Counter(s)\n  return x * c['a'], sum(c.values())", "x, 'abca'", "x, 'ab'", hit="h"),
    Case("dataclass replaced", _D + "@dataclasses.dataclass(frozen=True)\nclass P:\n  a: int = 2\n  b: int = 3\np = P()\ndef fn(x): return x * dataclasses.replace(p, b=4).a, dataclasses.asdict(p)",
         change="p = P(a=5)", undo="p = P()", hit="h"),
    Case("path of text", "def fn(x, s): return x + 1, os.path.join('a', s), os.path.basename(s)", "x, 'q/b'", "x, 'c'", hit="h"),
    Case("numel of a size", "def fn(x): return x * x.shape.numel()", "x", "x[:1]", hit="h"),
]
CASES = [*CALLBACKS, *WRITES, *INDICES, *PROTOCOLS]
