"""Objects that answer torch functions themselves: tensor subclasses, plain objects, parameters; and what reaches below
the functions: dispatch keys, custom operators, storages."""
# fmt: off

from tests.python.soundness.row import Row
from tests.support import Call

_SUB = "class T(torch.Tensor): pass\n"
_TF = ("class T(torch.Tensor):\n  @classmethod\n  def __torch_function__(cls, f, types, args=(), kwargs=None):\n    r = super().__torch_function__(f, types, args, kwargs or {})\n"
       "    return r * 10 if f is torch.sin else r\n")
_OBJ = ("class O:\n  def __init__(self, t, k=1): self.t, self.k = t, k\n  @classmethod\n  def __torch_function__(cls, f, types, args=(), kwargs=None):\n"
        "    args = [a.t * a.k if isinstance(a, O) else a for a in args]\n    return f(*args, **(kwargs or {}))\n")
_WRAP = ("class W(torch.Tensor):\n  @staticmethod\n  def __new__(cls, t): return torch.Tensor._make_wrapper_subclass(cls, t.shape, dtype=t.dtype)\n  def __init__(self, t): self.t = t\n"
         "  @classmethod\n  def __torch_dispatch__(cls, f, types, args=(), kwargs=None):\n    u = lambda a: a.t if isinstance(a, W) else a\n    return f(*map(u, args), **(kwargs or {})) * 2\n")

SUBCLASSES = [
    Row("subclass as an argument", _SUB + "def fn(t): return t + 1", *["x.as_subclass(T)"] * 2, "y.as_subclass(T)", "x"),
    Row("subclass made inside", _SUB + "def fn(x): return (x.as_subclass(T) + 1) * 2"),
    Row("subclass constructor", _SUB + "def fn(x): return T([1.0, 2, 3]) + x"),
    Row("subclass from a global", _SUB + "t = torch.ones(3).as_subclass(T)\ndef fn(x): return x + t", "x", "x", Call("x", pre="t.add_(1)"), "y"),
    Row("type of the result", _SUB + "def fn(t): return type(t + 1) is T, isinstance(t, T), type(t) is torch.Tensor", *["x.as_subclass(T)"] * 2, "x", "x"),
    Row("subclass back to tensor", _SUB + "def fn(t): return t.as_subclass(torch.Tensor) + 1", *["x.as_subclass(T)"] * 3),
    Row("__torch_function__ of a subclass", _TF + "def fn(t): return torch.sin(t) + torch.cos(t)", *["x.as_subclass(T)"] * 2, "y.as_subclass(T)", "x"),
    Row("__torch_function__ changed", _TF + "def fn(t): return torch.sin(t)", *["x.as_subclass(T)"] * 2, Call("x.as_subclass(T)", pre="T.__torch_function__ = torch._C._disabled_torch_function_impl"), "x.as_subclass(T)"),
    Row("__torch_dispatch__", _WRAP + "def fn(x): return W(x) + 1"),
    Row("__torch_dispatch__ argument", _WRAP + "def fn(w): return w + 1", "W(x)", "W(x)", "W(y)", "x"),
    Row("attribute of a subclass", _SUB + "def fn(t): return t * t.k", *[Call("t", pre=f"t = x.as_subclass(T); t.k = {k}") for k in (1, 1, 2)]),
    Row("method of a subclass", "class T(torch.Tensor):\n  def twice(self): return self + self\ndef fn(t): return t.twice()", *["x.as_subclass(T)"] * 2, "y.as_subclass(T)"),
    Row("UninitializedParameter", "def fn(x):\n  l = nn.LazyLinear(2)\n  return l(x).shape"),
    Row("Buffer", "m = nn.Module()\nm.b = nn.Buffer(torch.ones(3))\ndef fn(x): return x + m.b", "x", "x", Call("x", pre="m.b.add_(1)"), "y"),
    Row("memory", "def fn(x): return x.untyped_storage().nbytes(), x + 1"),
]

OBJECTS = [
    Row("plain object", _OBJ + "def fn(o): return torch.sin(o)", "O(x)", "O(x)", "O(y)", "O(x, 2)"),
    Row("plain object made inside", _OBJ + "def fn(x, k): return torch.add(O(x, k), 1)", "x, 2", "x, 2", "x, 3", "y, 2"),
    Row("plain object from a global", _OBJ + "o = O(torch.ones(3))\ndef fn(x): return torch.mul(x, o)", "x", "x", Call("x", pre="o.k = 3"), Call("x", pre="o.t = torch.zeros(3)")),
    Row("object in a list", _OBJ + "def fn(x): return torch.cat([O(x), x])"),
    Row("object with NotImplemented", "class O:\n  @classmethod\n  def __torch_function__(cls, f, types, args=(), kwargs=None): return NotImplemented\ndef fn(x):\n  try: return torch.add(x, O())\n  except TypeError: return x + 1"),
    Row("object with operators", "class O:\n  def __radd__(self, t): return t * 2\n  def __rmul__(self, t): return 'no tensor'\ndef fn(x, o): return x + o, x * o", "x, O()", "x, O()", "y, O()"),
    Row("object with __index__", "class O:\n  def __init__(self, k): self.k = k\n  def __index__(self): return self.k\ndef fn(x, o): return x[o], x.sum(o), x * int(o.__index__())", "x, O(0)", "x, O(0)", "x, O(1)", "y, O(0)"),
    Row("object with __float__", "class O:\n  def __init__(self, k): self.k = k\n  def __float__(self): return self.k\ndef fn(x, o): return torch.full((2,), float(o)) + x[:, :2]", "x, O(1.5)", "x, O(1.5)", "x, O(2.5)"),
    Row("int subclass as an argument", "class I(int): pass\ndef fn(x, i): return x.sum(i)", "x, I(0)", "x, I(0)", "x, I(1)"),
    Row("numpy number as an argument", "def fn(x, k): return x * k, x.sum(int(k))", "x, np.int64(1)", "x, np.int64(1)", "x, np.int64(0)"),
    Row("enum as a number", "class E(enum.IntEnum):\n  A = 0\n  B = 1\ndef fn(x, e): return x.sum(e), x[e]", "x, E.A", "x, E.A", "x, E.B", "x, 1"),
    Row("overridden function object", "def fn(x): return torch.overrides.resolve_name(torch.Tensor.add), x + 1"),
    Row("is_tensor_method_or_property", "def fn(x): return torch.overrides.is_tensor_method_or_property(torch.Tensor.add), x + 1"),
]

PARAMETERS = [
    Row("parameter made inside", "def fn(x):\n  p = nn.Parameter(x * 2)\n  return p * 3, p.requires_grad, p.is_leaf, type(p) is nn.Parameter"),
    Row("parameter returned", "def fn(x): return nn.Parameter(x * 2, requires_grad=False)"),
    Row("parameter stored", "m = nn.Module()\nm.p = nn.Parameter(torch.ones(3))\ndef fn(x):\n  m.p = nn.Parameter(x[0] * 2)\n  return m.p + 1", *[Call(v, post="(m.p, len(list(m.parameters())))") for v in ("x", "x", "y")]),
    Row("module made inside", "def fn(x):\n  torch.manual_seed(0)\n  return nn.Linear(3, 2)(x)"),
    Row("parameter replaced between calls", "m = nn.Linear(3, 2)\ndef fn(x): return m(x)", "x", "x", Call("x", pre="m.weight = nn.Parameter(torch.ones(2, 3))"), Call("x", pre="m.weight.data = torch.zeros(2, 3)"), Call("x", pre="m.bias = None")),
    Row("parameter that stops requiring grad", "m = nn.Linear(3, 2)\ndef fn(x): return m(x)", "x", "x", Call("x", pre="m.weight.requires_grad_(False); m.bias.requires_grad_(False)"), "x"),
    Row("isinstance of Parameter", "m = nn.Linear(3, 2)\ndef fn(x): return isinstance(m.weight, nn.Parameter), isinstance(x, nn.Parameter), isinstance(x, torch.Tensor), m(x)", expect="khHH"),
    Row("parameter and tensor by one name", "def fn(w): return isinstance(w, nn.Parameter), w * 2", "nn.Parameter(x)", "nn.Parameter(y)", "x.clone().requires_grad_()", "nn.Parameter(x)"),
    Row("torch.nn.functional with parameters", "m = nn.LayerNorm(3)\ndef fn(x): return F.layer_norm(x, (3,), m.weight, m.bias)", expect="khHH"),
    Row("parametrize", "from torch.nn.utils import parametrize\nclass P(nn.Module):\n  def forward(self, w): return w * 2\nm = nn.Linear(3, 2)\nparametrize.register_parametrization(m, 'weight', P())\ndef fn(x): return m(x)"),
    Row("parametrize cached", "from torch.nn.utils import parametrize\nclass P(nn.Module):\n  def forward(self, w): return w * 2\nm = nn.Linear(3, 2)\nparametrize.register_parametrization(m, 'weight', P())\ndef fn(x):\n  with parametrize.cached(): return m(x) + m(x)"),
    Row("functional_call", "m = nn.Linear(3, 2)\ndef fn(x, w): return torch.func.functional_call(m, {'weight': w}, (x,))", "x, torch.ones(2, 3)", "x, torch.ones(2, 3)", "y, torch.zeros(2, 3)"),
    Row("weight_norm", "m = torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))\ndef fn(x): return m(x)"),
    Row("state_dict", "m = nn.Linear(3, 2)\ndef fn(x): return {k: v + 1 for k, v in m.state_dict().items()}, m(x)"),
    Row("clip_grad_norm_", "m = nn.Linear(3, 2)\ndef fn(x): return torch.nn.utils.clip_grad_norm_(m.parameters(), 0.1)", *[Call("x", pre=f"m.weight.grad = torch.full((2, 3), {k}.0); m.bias.grad = torch.ones(2)", post="(m.weight.grad, m.bias.grad)") for k in (1, 1, 2)]),
    Row("zero_grad", "m = nn.Linear(3, 2)\ndef fn(x):\n  m.zero_grad()\n  return m(x)", *[Call("x", pre="m.weight.grad = torch.ones(2, 3)", post="m.weight.grad")] * 3),
]

BELOW = [
    Row("torch.ops", "def fn(x): return torch.ops.aten.add(x, 1), torch.ops.aten.add.Tensor(x, x, alpha=2), torch.ops.aten.max.dim(x, 0)", expect="khHH"),
    Row("op attributes", "def fn(x): return torch.ops.aten.add.Tensor.name(), str(torch.ops.aten.add), x + 1"),
    Row("custom op", "@torch.library.custom_op('fpt::twice', mutates_args=())\ndef twice(t: torch.Tensor) -> torch.Tensor: return t * 2\ndef fn(x): return twice(x) + torch.ops.fpt.twice(x)"),
    Row("custom op that mutates", "@torch.library.custom_op('fpt::inc', mutates_args=('t',))\ndef inc(t: torch.Tensor) -> None: t.add_(1)\ndef fn(x):\n  z = x * 1\n  inc(z)\n  return z"),
    Row("custom op that reads Python", "k = [2]\n@torch.library.custom_op('fpt::k', mutates_args=())\ndef op(t: torch.Tensor) -> torch.Tensor: return t * k[0]\ndef fn(x): return op(x)", "x", "x", Call("x", pre="k[0] = 5"), "y"),
    Row("custom op of numbers", "@torch.library.custom_op('fpt::n', mutates_args=())\ndef op(t: torch.Tensor) -> int: return int(t.sum())\ndef fn(x): return x * op(x)"),
    Row("DispatchKeySet", "def fn(x): return torch._C._dispatch_keys(x), x + 1"),
    Row("DispatchKeySet methods", "k = torch._C._dispatch_keys(torch.ones(1))\ndef fn(x): return (k | torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)).has(torch._C.DispatchKey.CPU), x + 1"),
    Row("exclude a key", "def fn(x):\n  with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutogradCPU)): return x + 1"),
    Row("below autograd", "w = torch.ones(3, requires_grad=True)\ndef fn(x):\n  with torch._C._AutoDispatchBelowAutograd(): return (x * w).requires_grad"),
    Row("dispatch disabled", "def fn(x):\n  with torch._C._DisableTorchDispatch(): return x + 1"),
    Row("storage written", "def fn(x):\n  z = x.clone()\n  z.untyped_storage()[0] = 7\n  return z"),
    Row("set_", "def fn(x):\n  z = torch.empty(0)\n  z.set_(x * 2)\n  return z + 1"),
    Row("resize_", "def fn(x):\n  z = x.clone()\n  z.resize_(3)\n  return z, z.shape"),
    Row("resize_ of the argument", "def fn(x):\n  x.resize_(1, 3)\n  return x + 1, x.shape", *[Call("t", pre="t = x.clone()", post="t")] * 3),
    Row("squeeze_ and others of metadata", "def fn(x):\n  z = x.clone()\n  z.unsqueeze_(0)\n  z.squeeze_(0)\n  z.t_()\n  z.transpose_(0, 1)\n  return z, z.shape", expect="khHH"),
    Row("t_ of the argument", "def fn(x):\n  x.t_()\n  return x * 2, x.shape", *[Call("t", pre="t = x.clone()", post="t")] * 2, Call("t", pre="t = torch.ones(3, 2)", post="t")),
    Row("detach_", "def fn(w):\n  z = w * 2\n  z.detach_()\n  return z.requires_grad, z + 1", *[Call("w", pre=f"w = {v}.clone().requires_grad_()") for v in ("x", "x", "y")]),
    Row("requires_grad_", "def fn(x):\n  z = x * 2\n  z.requires_grad_()\n  return (z * 3).requires_grad, z * 3"),
    Row("requires_grad of a factory", "def fn(x): return torch.ones(3, requires_grad=True) * x"),
    Row("share_memory_, pin_memory", "def fn(x): return x.is_shared(), x.is_pinned(), x + 1"),
    Row("to of another device", "def fn(x): return x.to('meta').shape, x + 1"),
    Row("meta tensors", "def fn(x): return torch.empty(2, 3, device='meta') + 1, x + 1"),
    Row("sparse", "def fn(x): return x.to_sparse().sum(), x + 1"),
    Row("quantized", "def fn(x): return torch.quantize_per_tensor(x, 0.1, 0, torch.qint8).dequantize()"),
    Row("nested", "def fn(x): return torch.nested.nested_tensor([x, x[:1]]).size(0), x + 1"),
    Row("complex and conj views", "def fn(x):\n  c = torch.complex(x, x)\n  return c.conj(), c.conj().is_conj(), c.conj() @ c.t(), torch.view_as_real(c.conj().resolve_conj())", expect="khHH"),
    Row("conj argument", "def fn(c): return c * 2", "torch.complex(x, x).conj()", "torch.complex(x, x).conj()", "torch.complex(x, x)", "torch.complex(y, x).conj()", expect="khkh"),
    Row("named tensors", "def fn(x): return x.refine_names('a', 'b').sum('a').rename(None)"),
    Row("names of a tensor", "def fn(x): return x.names, x.has_names(), x + 1"),
    Row("dlpack", "def fn(x): return torch.from_dlpack(x) + 1"),
    Row("copy.copy and deepcopy", "def fn(x): return copy.copy(x), copy.deepcopy(x) + 1"),
    Row("pickle", "def fn(x): return pickle.loads(pickle.dumps(x)) + 1"),
    Row("torch.save", "def fn(x):\n  b = io.BytesIO()\n  torch.save(x, b)\n  b.seek(0)\n  return torch.load(b) + 1"),
    Row("weakref to a tensor", "def fn(x):\n  r = weakref.ref(x)\n  return r() is x, x + 1"),
    Row("tensor as a dict key", "def fn(x): return {x: 1}[x], x + 1"),
    Row("torch.jit.script", "@torch.jit.script\ndef g(t): return t * 2 + 1\ndef fn(x): return g(x) + 1"),
    Row("torch.jit.trace", "g = torch.jit.trace(lambda t: t * 2, torch.ones(2, 3))\ndef fn(x): return g(x) + 1"),
    Row("torch.fx graph module", "g = torch.fx.symbolic_trace(lambda t: t * 2 + 1)\ndef fn(x): return g(x) + 1"),
    Row("profiler", "def fn(x):\n  with torch.profiler.record_function('a'): return x + 1", expect="khHH"),
    Row("printing options", "def fn(x): return str(x), x + 1"),
    Row("assert_close", "def fn(x):\n  torch.testing.assert_close(x, x)\n  return x + 1"),
    Row("vmap", "def fn(x): return torch.vmap(torch.dot)(x, x)"),
    Row("grad mode read late", "def fn(x):\n  r = x + 1\n  return r if torch.is_grad_enabled() else r * 2", "x", "x", Call("x", pre="torch.set_grad_enabled(False)"), Call("x", pre="torch.set_grad_enabled(True)"), expect="khkh"),
]

CLASSES = [
    Row("class that is not used", "def fn(x):\n  class A: pass\n  return x + 1", expect="khHH"),
    Row("class on a path", "def fn(x, k):\n  class A:\n    z = k\n    def f(self): return x\n  return A().f() if k else x * 2", "x, 0", "x, 0", "x, 1", "y, 0", expect="kh.H"),
    Row("autograd.Function that is not used", "def fn(x):\n  class F(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, t): return t * 2\n    @staticmethod\n    def backward(ctx, g): return g\n  return x + 1", expect="khHH"),
    Row("autograd.Function that is used", "def fn(x):\n  class F(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, t): return t * 2\n    @staticmethod\n    def backward(ctx, g): return g\n  return F.apply(x)"),
    Row("class that is returned", "def fn(x):\n  class A: pass\n  return x + 1, A.__name__, A"),
    Row("class in a container", "def fn(x):\n  class A: pass\n  return {'a': [A]}['a'][0] is A, x + 1"),
    Row("instance of a class made inside", "def fn(x):\n  class A:\n    def __init__(self, t): self.t = t\n  return A(x).t + 1"),
    Row("class body that reads", "k = 2\ndef fn(x):\n  class A:\n    z = k * 3\n  return x + 1", "x", "x", Call("x", pre="k = 5"), "y", expect="khkh"),
    Row("class body that writes", "seen = []\ndef fn(x):\n  class A:\n    seen.append(len(seen))\n  return x + 1", *[Call(v, post="seen") for v in ("x", "x", "y")]),
    Row("class body that computes", "def fn(x):\n  class A:\n    t = x * 2\n  return A.t"),
    Row("__init_subclass__", "seen = []\nclass B:\n  def __init_subclass__(cls): seen.append(cls.__name__)\ndef fn(x):\n  class A(B): pass\n  return x + 1", *[Call(v, post="seen") for v in ("x", "x", "y")]),
    Row("metaclass", "class M(type):\n  def __new__(m, n, b, d): return super().__new__(m, n, b, {**d, 'k': 3})\nclass B(metaclass=M): pass\ndef fn(x):\n  class A(B): pass\n  return x * A.k"),
    Row("subclass of a class made inside", "def fn(x):\n  class A: pass\n  class B(A): pass\n  return x + 1"),
    Row("named tuple and dataclass", "def fn(x):\n  class P(typing.NamedTuple):\n    a: int\n  @dataclasses.dataclass\n  class D:\n    b: int\n  return x + P(1).a + D(2).b"),
    Row("__subclasses__", "class B: pass\nkept = []\ndef fn(x):\n  class A(B): pass\n  kept.append(A)  # garbage would be counted until it is collected\n  return len(B.__subclasses__()), x + 1"),
    Row("__set_name__", "seen = []\nclass D:\n  def __set_name__(self, owner, name): seen.append(name)\ndef fn(x):\n  class A:\n    d = D()\n  return x + 1", *[Call(v, post="seen") for v in ("x", "x", "y")]),
    Row("isinstance of a class made inside", "def fn(x):\n  class A: pass\n  return isinstance(x, A), issubclass(A, object), x + 1"),
    Row("exec", "def fn(x):\n  d = {'x': x}\n  exec('y = x + 1', {}, d)\n  return d['y']"),
]

SECTIONS = {"classes": CLASSES, "subclasses": SUBCLASSES, "objects": OBJECTS, "parameters": PARAMETERS, "below": BELOW}
