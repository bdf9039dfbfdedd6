"""What a function is made of and what it finds by name: code, defaults, cells, globals, builtins, caches, imports."""
# fmt: off

from tests.python.guards.case import Case

_K = "K = 2\ndef fn(x): return x * K"
_FILE = ("import tempfile\np = os.path.join(tempfile.gettempdir(), f'fp-test-{os.getpid()}')\n"
         "def done(p=p):\n  if os.path.exists(p): os.remove(p)\n")
_HELPER = "def h(t): return t * 2\ndef fn(x): return h(x)"

FUNCTIONS = [
    Case("__defaults__", "def fn(x, n=2): return x * n", change="fn.__defaults__ = (3,)", undo="fn.__defaults__ = (2,)"),
    Case("__kwdefaults__", "def fn(x, *, n=2): return x * n", change="fn.__kwdefaults__ = {'n': 3}", undo="fn.__kwdefaults__ = {'n': 2}"),
    Case("__kwdefaults__ in place", "def fn(x, *, n=2): return x * n", change="fn.__kwdefaults__['n'] = 3", undo="fn.__kwdefaults__['n'] = 2"),
    Case("__defaults__ removed", "def fn(x, n=2): return x * n", change="fn.__defaults__ = None", undo="fn.__defaults__ = (2,)"),
    Case("__code__", "def fn(x): return x * 2\nold = fn.__code__\nnew = (lambda x: x * 3).__code__",
         change="fn.__code__ = new", undo="fn.__code__ = old"),
    Case("helper __defaults__", "def h(t, n=2): return t * n\ndef fn(x): return h(x)", change="h.__defaults__ = (3,)", undo="h.__defaults__ = (2,)"),
    Case("helper __kwdefaults__", "def h(t, *, n=2): return t * n\ndef fn(x): return h(x)",
         change="h.__kwdefaults__ = {'n': 3}", undo="h.__kwdefaults__ = {'n': 2}"),
    Case("helper __kwdefaults__ in place", "def h(t, *, n=2): return t * n\ndef fn(x): return h(x)",
         change="h.__kwdefaults__['n'] = 3", undo="h.__kwdefaults__['n'] = 2"),
    Case("helper __code__", _HELPER + "\nold = h.__code__\nnew = (lambda t: t * 3).__code__", change="h.__code__ = new", undo="h.__code__ = old"),
    Case("helper rebound", _HELPER + "\nold = h", change="h = lambda t: t * 3", undo="h = old", hit="h"),
    Case("helper deleted", _HELPER + "\nold = h", change="del h", undo="h = old"),
    Case("helper default list grown", "def h(t, l=[1]): return t * len(l)\ndef fn(x): return h(x)",
         change="h.__defaults__[0].append(1)", undo="h.__defaults__[0].pop()"),
    Case("function attribute", "def h(t): return t * h.k\nh.k = 2\ndef fn(x): return h(x)", change="h.k = 3", undo="h.k = 2"),
    Case("own attribute", "def fn(x): return x * fn.k\nfn.k = 2", change="fn.k = 3", undo="fn.k = 2"),
    Case("function name", "def h(): pass\ndef fn(x): return x + 1, h.__name__", change="h.__name__ = 'g'", undo="h.__name__ = 'h'"),
    Case("docstring", "def h(): 'a'\ndef fn(x): return x + 1, h.__doc__", change="h.__doc__ = 'b'", undo="h.__doc__ = 'a'"),
    Case("decorated by wraps", "def deco(k):\n  def wrap(f):\n    @functools.wraps(f)\n    def inner(*a, **kw): return f(*a, **kw) * k.v\n"
         "    return inner\n  return wrap\nk = types.SimpleNamespace(v=2)\n@deco(k)\ndef h(t): return t + 1\ndef fn(x): return h(x)",
         change="k.v = 3", undo="k.v = 2"),
    Case("generator helper", "def g(n):\n  for i in range(n): yield i\nN = 2\ndef fn(x):\n  for i in g(N): x = x + i + 1\n  return x",
         change="N = 3", undo="N = 2"),
    Case("bisect", "import bisect\nl = [1, 3, 5]\ndef fn(x): return x * bisect.bisect(l, 3), bisect.bisect_left(l, 3)",
         change="l.insert(0, 2)", undo="del l[0]", hit="h"),
    Case("bisect with a key", "import bisect\nl, k = [1, 3, 5], [1]\ndef fn(x): return x * bisect.bisect_left(l, 3, key=lambda v: v * k[0])",
         change="k[0] = 3", undo="k[0] = 1", hit="h"),
    Case("countOf", "l = [1, 3, 3]\ndef fn(x): return x * operator.countOf(l, 3), operator.indexOf(l, 3), operator.length_hint(l)",
         change="l.insert(0, 3)", undo="del l[0]", hit="h"),
    Case("struct", "b = b'\\1\\0\\0\\0'\ndef fn(x): return x * struct.unpack('<i', b)[0], struct.pack('<i', len(b)), struct.calcsize('<i')",
         change="b = b'\\2\\0\\0\\0'", undo="b = b'\\1\\0\\0\\0'", hit="h"),
    Case("recursion depth", "N = 3\ndef r(t, n): return t if n == 0 else r(t * 2, n - 1)\ndef fn(x): return r(x, N)", change="N = 4", undo="N = 3"),
    Case("partial replaced", "def g(k, t): return t * k\np = functools.partial(g, 2)\ndef fn(x): return p(x)",
         change="p = functools.partial(g, 3)", undo="p = functools.partial(g, 2)"),
    Case("partial keywords in place", "def g(t, k): return t * k\np = functools.partial(g, k=2)\ndef fn(x): return p(x)",
         change="p.keywords['k'] = 3", undo="p.keywords['k'] = 2"),
    Case("partial state set", "def g(k, t): return t * k\np = functools.partial(g, 2)\ndef fn(x): return p(x)",
         change="p.__setstate__((g, (3,), {}, None))", undo="p.__setstate__((g, (2,), {}, None))"),
    Case("singledispatch registered", "@functools.singledispatch\ndef h(v, t): return t * 2\ndef fn(x): return h(1, x)",
         change="h.register(int, lambda v, t: t * 3)", undo="h.register(int, lambda v, t: t * 2)"),
]

CELLS = [
    Case("cell content", "def mk():\n  k = 2\n  def fn(x): return x * k\n  def put(v):\n    nonlocal k\n    k = v\n  return fn, put\nfn, put = mk()",
         change="put(3)", undo="put(2)", hit="h"),
    Case("cell content by cell_contents", "def mk(k):\n  def fn(x): return x * k\n  return fn\nfn = mk(2)",
         change="fn.__closure__[0].cell_contents = 3", undo="fn.__closure__[0].cell_contents = 2"),
    Case("cell emptied", "def mk(k):\n  def fn(x): return x * k\n  return fn\nfn = mk(2)",
         change="del fn.__closure__[0].cell_contents", undo="fn.__closure__[0].cell_contents = 2"),
    Case("cell tensor", "def mk(k):\n  def fn(x): return x * k\n  return fn\nfn = mk(y)",
         change="fn.__closure__[0].cell_contents = x", undo="fn.__closure__[0].cell_contents = y"),
    Case("cell tensor content", "def mk(k):\n  def fn(x): return x * k\n  return fn\nfn = mk(y)", change="y.add_(1)", undo="y.sub_(1)"),
    Case("cell list", "def mk(l):\n  def fn(x): return x * len(l)\n  return fn\nl = [1]\nfn = mk(l)", change="l.append(2)", undo="l.pop()"),
    Case("cell function", "def mk(h):\n  def fn(x): return h(x)\n  return fn\nfn = mk(torch.sin)",
         change="fn.__closure__[0].cell_contents = torch.cos", undo="fn.__closure__[0].cell_contents = torch.sin"),
    Case("cell of helper", "def mk(k):\n  return lambda t: t * k\nh = mk(2)\ndef fn(x): return h(x)",
         change="h.__closure__[0].cell_contents = 3", undo="h.__closure__[0].cell_contents = 2"),
    Case("nested cell", "def mk():\n  k = 2\n  def fn(x):\n    def inner(t): return t * k\n    return inner(x)\n"
         "  def put(v):\n    nonlocal k\n    k = v\n  return fn, put\nfn, put = mk()", change="put(3)", undo="put(2)"),
    Case("two closures of one code", "def mk(k):\n  def h(t): return t * k\n  return h\na, b = mk(2), mk(3)\nh = a\ndef fn(x): return h(x)",
         change="h = b", undo="h = a"),
    Case("closure over loop variable", "fs = [lambda t: t * i for i in range(4)]\ndef fn(x, n): return fs[n](x) + n", "x, 1", "x, 2"),
]

GLOBALS = [
    Case("global int", _K, change="K = 3", undo="K = 2", hit="h"),
    Case("global type", "K = 1\ndef fn(x): return x + 1, type(K).__name__", change="K = True", undo="K = 1"),
    Case("global float", "K = 2.5\ndef fn(x): return x * K", change="K = 3.5", undo="K = 2.5"),
    Case("global str", "K = 'sin'\ndef fn(x): return getattr(torch, K)(x)", change="K = 'cos'", undo="K = 'sin'"),
    Case("global deleted", _K, change="del K", undo="K = 2"),
    Case("global tensor", "T = y\ndef fn(x): return x * T", change="T = x", undo="T = y", hit="h"),
    Case("global list", "L = [1]\ndef fn(x): return x * len(L)", change="L.append(1)", undo="L.pop()"),
    Case("global list replaced", "L = [1]\ndef fn(x): return x * len(L)", change="L = [1, 1]", undo="L = [1]"),
    Case("global by globals()", "K = 2\ndef fn(x): return x * globals()['K']", change="K = 3", undo="K = 2"),
    Case("global shadows builtin", "def fn(x): return x * len([1, 2])", change="len = lambda l: 7", undo="del len"),
    Case("builtin replaced", "def fn(x): return x * len([1, 2])\nold = builtins.len",
         change="builtins.len = lambda l: 7", undo="builtins.len = old"),
    Case("builtin added", "def fn(x):\n  try: return x * fp_test_name\n  except NameError: return x",
         change="builtins.fp_test_name = 3", undo="del builtins.fp_test_name"),
    Case("builtin through module", "old = builtins.abs\ndef fn(x): return x * builtins.abs(-2)", change="builtins.abs = lambda v: 9", undo="builtins.abs = old"),
    Case("print replaced", "def fn(x):\n  print('a')\n  return x + 1", change="print = lambda *a: None", undo="del print"),
    Case("module attribute", "m = types.ModuleType('m')\nm.k = 2\ndef fn(x): return x * m.k", change="m.k = 3", undo="m.k = 2", hit="h"),
    Case("module function replaced", "m = types.ModuleType('m')\nm.f = torch.sin\ndef fn(x): return m.f(x)", change="m.f = torch.cos", undo="m.f = torch.sin"),
    Case("module attribute deleted", "m = types.ModuleType('m')\nm.k = 2\ndef fn(x): return x * getattr(m, 'k', 5)", change="del m.k", undo="m.k = 2"),
    Case("module __getattr__", "m = types.ModuleType('m')\nm.__dict__['__getattr__'] = lambda n: 2\ndef fn(x): return x * m.k",
         change="m.k = 3", undo="del m.k"),
    Case("math function replaced", "def fn(x): return x * math.floor(2.5)\nold = math.floor", change="math.floor = math.ceil", undo="math.floor = old"),
    Case("torch function replaced", "def fn(x): return torch.sin(x)\nold = torch.sin", change="torch.sin = torch.cos", undo="torch.sin = old"),
    Case("functional replaced", "def fn(x): return F.relu(x - 3)\nold = F.relu", change="F.relu = F.silu", undo="F.relu = old"),
    Case("tensor method replaced", "def fn(x): return x.fp_probe()\ntorch.Tensor.fp_probe = lambda t: t + 1",
         change="torch.Tensor.fp_probe = lambda t: t + 2", undo="torch.Tensor.fp_probe = lambda t: t + 1"),
    Case("imported inside", "sys.modules['fp_m'] = types.ModuleType('fp_m')\nsys.modules['fp_m'].k = 2\n"
         "def fn(x):\n  import fp_m\n  return x * fp_m.k", change="sys.modules['fp_m'].k = 3", undo="sys.modules['fp_m'].k = 2"),
    Case("from import inside", "sys.modules['fp_m'] = types.ModuleType('fp_m')\nsys.modules['fp_m'].k = 2\n"
         "def fn(x):\n  from fp_m import k\n  return x * k", change="sys.modules['fp_m'].k = 3", undo="sys.modules['fp_m'].k = 2"),
    Case("sys.modules entry replaced", "a, b = types.ModuleType('fp_m'), types.ModuleType('fp_m')\na.k, b.k = 2, 3\nsys.modules['fp_m'] = a\n"
         "def fn(x):\n  import fp_m\n  return x * fp_m.k", change="sys.modules['fp_m'] = b", undo="sys.modules['fp_m'] = a"),
    Case("sys.modules membership", "def fn(x): return x + 1 if 'fp_absent' in sys.modules else x - 1",
         change="sys.modules['fp_absent'] = math", undo="del sys.modules['fp_absent']"),
    Case("__import__ replaced", "def fn(x):\n  import math as m\n  return x * m.floor(2.5)\nold = builtins.__import__\n"
         "def other(name, *a, **k): return types.SimpleNamespace(floor=lambda v: 9) if name == 'math' else old(name, *a, **k)",
         change="builtins.__import__ = other", undo="builtins.__import__ = old"),
    Case("class rebound", "class A:\n  k = 2\nclass B:\n  k = 3\nC = A\ndef fn(x): return x * C().k", change="C = B", undo="C = A"),
    Case("star-star of global", "D = {'n': 2}\ndef h(t, n): return t * n\ndef fn(x): return h(x, **D)", change="D['n'] = 3", undo="D['n'] = 2"),
    Case("star of global", "L = [2]\ndef h(t, *n): return t * sum(n)\ndef fn(x): return h(x, *L)", change="L.append(3)", undo="L.pop()"),
    Case("global written by helper", "K = 2\ndef put():\n  global K\n  K = K + 1\ndef fn(x):\n  put()\n  return x * K", change="K = 10", undo="K = 2", hit="."),
    Case("eval of text", "S = 'x * 2'\ndef fn(x): return eval(S, {'x': x})", change="S = 'x * 3'", undo="S = 'x * 2'"),
    Case("exec of text", "S = 'r = x * 2'\ndef fn(x):\n  d = {'x': x}\n  exec(S, d)\n  return d['r']", change="S = 'r = x * 3'", undo="S = 'r = x * 2'"),
    Case("locals()", "K = 2\ndef fn(x):\n  a = K\n  return x * locals()['a']", change="K = 3", undo="K = 2"),
    Case("vars of module", "m = types.ModuleType('m')\nm.k = 2\ndef fn(x): return x * vars(m)['k']", change="m.k = 3", undo="m.k = 2"),
    Case("dir of module", "m = types.ModuleType('m')\ndef fn(x): return x + 1 if 'k' in dir(m) else x - 1", change="m.k = 3", undo="del m.k"),
]

CACHES = [
    Case("lru_cache cleared", "K = 2\n@functools.lru_cache\ndef h(): return K\ndef fn(x): return x * h()",
         change="K = 3; h.cache_clear()", undo="K = 2; h.cache_clear()"),
    Case("lru_cache kept", "K = 2\n@functools.lru_cache\ndef h(n): return K * n\ndef fn(x, n): return x * h(n)", "x, 1", "x, 2"),
    Case("lru_cache of a mutable", "l = [1]\n@functools.lru_cache\ndef h(): return l\ndef fn(x): return x * len(h())", change="l.append(1)", undo="l.pop()"),
    Case("lru_cache int and float", "@functools.lru_cache\ndef h(n): return type(n).__name__\ndef fn(x, n): return x + 1, h(n)", "x, 1", "x, 1.0"),
    Case("typed lru_cache", "@functools.lru_cache(typed=True)\ndef h(n): return type(n).__name__\ndef fn(x, n): return x + 1, h(n)", "x, 1", "x, 1.0"),
    Case("functools.cache info", "@functools.cache\ndef h(n): return n\ndef fn(x, n): return x * h(n), h.cache_info().currsize", "x, 2", "x, 3", hit="."),
    Case("cached property", "class A:\n  k = 2\n  @functools.cached_property\n  def p(self): return self.k\na = A()\na.p\ndef fn(x): return x * a.p",
         change="a.p = 3", undo="a.p = 2", hit="h"),
    Case("cached property cleared", "class A:\n  k = 2\n  @functools.cached_property\n  def p(self): return self.k\na = A()\ndef fn(x): return x * a.p",
         change="a.k = 3; a.__dict__.pop('p', None)", undo="a.k = 2; a.__dict__.pop('p', None)", hit="."),
    Case("context variable", "v = contextvars.ContextVar('v', default=2)\ndef fn(x): return x * v.get()", change="v.set(3)", undo="v.set(2)"),
    Case("context variable default", "v = contextvars.ContextVar('v')\ndef fn(x): return x * v.get(2)", change="t = v.set(3)", undo="v.reset(t)"),
    Case("context run", "v = contextvars.ContextVar('v', default=2)\nc = contextvars.copy_context()\nc.run(v.set, 3)\ndef h(t): return t * v.get()\n"
         "def fn(x): return h(x)", change="v.set(5)", undo="v.set(2)"),
    Case("threading.local", "l = threading.local()\nl.k = 2\ndef fn(x): return x * l.k", change="l.k = 3", undo="l.k = 2"),
    Case("threading.local absent", "l = threading.local()\ndef fn(x): return x * getattr(l, 'k', 2)", change="l.k = 3", undo="del l.k"),
    Case("memo dict", "memo = {}\ndef h(n):\n  if n not in memo: memo[n] = n * 2\n  return memo[n]\ndef fn(x, n): return x * h(n)", "x, 1", "x, 2", hit="."),
    Case("memo dict poisoned", "memo = {}\ndef h(n):\n  if n not in memo: memo[n] = n * 2\n  return memo[n]\ndef fn(x): return x * h(1)",
         change="memo[1] = 7", undo="memo.clear()", hit="."),
    Case("isinstance by ABC register", "class P(abc.ABC): pass\nclass A: pass\na = A()\ndef fn(x): return x + 1 if isinstance(a, P) else x - 1",
         change="P.register(A)", undo="pass", hit="H"),
    Case("isinstance by subclasshook", "class P(abc.ABC):\n  on = False\n  @classmethod\n  def __subclasshook__(cls, c): return cls.on or NotImplemented\n"
         "class A: pass\na = A()\ndef fn(x): return x + 1 if isinstance(a, P) else x - 1",
         change="P.on = True; abc._reset_caches(P) if hasattr(abc, '_reset_caches') else P._abc_caches_clear()", undo="P.on = False; P._abc_caches_clear()"),
    Case("isinstance by __instancecheck__", "class M(type):\n  on = False\n  def __instancecheck__(cls, o): return M.on\nclass P(metaclass=M): pass\n"
         "def fn(x): return x + 1 if isinstance(3, P) else x - 1", change="M.on = True", undo="M.on = False"),
    Case("issubclass by tuple", "class A: pass\nclass B(A): pass\nT = (A,)\ndef fn(x): return x + 1 if issubclass(B, T) else x - 1", change="T = (int,)", undo="T = (A,)"),
    Case("protocol isinstance", "@typing.runtime_checkable\nclass P(typing.Protocol):\n  def m(self): ...\nclass A: pass\na = A()\n"
         "def fn(x): return x + 1 if isinstance(a, P) else x - 1", change="A.m = lambda s: 1", undo="del A.m"),
]

ENVIRONMENT = [
    Case("environment variable", "os.environ['FP_K'] = '2'\ndef fn(x): return x * int(os.environ['FP_K'])",
         change="os.environ['FP_K'] = '3'", undo="os.environ['FP_K'] = '2'"),
    Case("environment variable absent", "def fn(x): return x * int(os.environ.get('FP_K', 2))",
         change="os.environ['FP_K'] = '3'", undo="del os.environ['FP_K']"),
    Case("getenv", "def fn(x): return x * int(os.getenv('FP_K', '2'))", change="os.environ['FP_K'] = '3'", undo="del os.environ['FP_K']"),
    Case("warning filters", "def fn(x):\n  warnings.warn('w')\n  return x + 1\nsaved = warnings.filters[:]",
         change="warnings.simplefilter('error')", undo="warnings.filters[:] = saved; warnings._filters_mutated()"),
    Case("recursion limit", "def fn(x): return x * sys.getrecursionlimit()", change="sys.setrecursionlimit(1234)", undo="sys.setrecursionlimit(1000)"),
    # The first call in a state fills the logger's own cache, which the second finds.
    Case("log level", "log = logging.getLogger('fp')\nlog.setLevel('INFO')\ndef fn(x):\n  if log.isEnabledFor(10): x = x + 1\n  return x",
         change="log.setLevel('DEBUG')", undo="log.setLevel('INFO')", hit="."),  # the first call fills a cache
    Case("log level disabled globally", "log = logging.getLogger('fp2')\nlog.setLevel('INFO')\ndef fn(x):\n  log.info('m')\n"
         "  return x + 1 if log.isEnabledFor(20) else x", change="logging.disable(50)", undo="logging.disable(0)", hit="."),
    Case("stdout replaced", "s = io.StringIO()\nold = sys.stdout\ndef fn(x):\n  print('a')\n  return x + 1",
         change="old = sys.stdout; sys.stdout = s", undo="sys.stdout = old"),
    Case("int of sys.flags", "def fn(x): return x * len(sys.argv)", change="sys.argv.append('a')", undo="sys.argv.pop()"),
    Case("sys.path", "def fn(x): return x * len(sys.path)", change="sys.path.append('a')", undo="sys.path.pop()"),
    Case("working directory", "os.chdir('/')\ndef fn(x): return x + 1, os.getcwd()", change="os.chdir('/tmp')", undo="os.chdir('/')"),
    Case("gc enabled", "import gc\ndef fn(x): return x + 1 if gc.isenabled() else x", change="gc.disable()", undo="gc.enable()"),
    Case("file content", _FILE + "open(p, 'w').write('2')\ndef fn(x): return x * int(open(p).read())",
         change="open(p, 'w').write('3')", undo="open(p, 'w').write('2')"),
    Case("file exists", _FILE + "def fn(x): return x + 1 if os.path.exists(p) else x",
         change="open(p, 'w').close()", undo="done()"),
    Case("decimal context", "import decimal\ndecimal.getcontext().prec = 5\ndef fn(x): return x + 1, str(decimal.Decimal(1) / 3)",
         change="decimal.getcontext().prec = 6", undo="decimal.getcontext().prec = 5"),
    Case("locale-free str of float", "def fn(x, v): return x + 1, str(v)", "x, 1e16", "x, 1e15"),
    Case("mocked time", "def fn(x): return x * time.time()\nold = time.time\ntime.time = lambda: 2.0", change="time.time = lambda: 3.0", undo="time.time = lambda: 2.0"),
    Case("unittest.mock patch", "from unittest import mock\nclass A:\n  k = 2\np = mock.patch.object(A, 'k', 3)\ndef fn(x): return x * A.k",
         change="p.start()", undo="p.stop()"),
    Case("thread name", "def fn(x): return x + 1, threading.current_thread().name\nt = threading.current_thread()\nold = t.name",
         change="t.name = 'fp'", undo="t.name = old"),
    Case("threads alive", "e = threading.Event()\ndef fn(x): return x * threading.active_count()",
         change="t = threading.Thread(target=e.wait); t.start()", undo="e.set(); t.join()"),
]

CASES = FUNCTIONS + CELLS + GLOBALS + CACHES + ENVIRONMENT
