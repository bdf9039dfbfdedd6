"""What a compiled function may read, as features: state, an expression over it, and changes of it.

Each change is one statement run between calls. A feature's expression gives numbers or tensors; a program takes
several features and returns their values.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Feature:
    """state: source of definitions. value: an expression over them and the arguments x and y (tensors), k (an
    int) and options (a dict). changes: statements, of which any order is legal. quiet: changes that no result
    depends on."""

    name: str
    state: str
    value: str
    changes: tuple[str, ...]
    quiet: tuple[str, ...] = ()


FEATURES = (
    Feature(
        "linear",
        "linear = nn.Linear(3, 3)",
        "linear(x)",
        (
            "linear.weight.data.mul_(1.5)",
            "linear.bias = None if linear.bias is not None else nn.Parameter(torch.ones(3))",
            "linear.weight.requires_grad_(not linear.weight.requires_grad)",
            "linear.weight = nn.Parameter(torch.full((3, 3), 0.25))",
            "linear = nn.Linear(3, 3, bias=False)",
            "linear.forward = types.MethodType(lambda self, t: t * 2, linear)",
            "linear.__dict__.pop('forward', None)",
            "linear.to(torch.float64 if linear.weight.dtype == torch.float32 else torch.float32)",
            "linear.register_forward_hook(lambda m, a, r: r + 1) if not linear._forward_hooks else linear._forward_hooks.clear()",
            "linear.register_forward_pre_hook(lambda m, a: (a[0] * 2,)) if not linear._forward_pre_hooks else linear._forward_pre_hooks.clear()",
            "linear.__class__ = type('Other', (nn.Linear,), {'forward': lambda self, t: t - 1})",
            "linear.__class__ = nn.Linear",
        ),
        ("linear.extra = 3", "linear.name = 'n'", "with torch.no_grad(): linear.weight.add_(0.125)"),
    ),
    Feature(
        "norm",
        "norm = nn.BatchNorm1d(3)",
        "norm(x)",
        (
            "norm.train()",
            "norm.eval()",
            "norm.eps = 0.5 if norm.eps < 0.1 else 1e-5",
            "norm.momentum = 0.5 if norm.momentum != 0.5 else 0.1",
            "norm.running_mean.add_(1)",
            "norm.track_running_stats = not norm.track_running_stats",
            "norm.affine = not norm.affine",
            "norm.weight.data.add_(0.5)",
        ),
        ("norm.note = 1",),
    ),
    Feature(
        "children",
        "layers = nn.ModuleList([nn.Linear(3, 3), nn.Tanh()])\nnamed = nn.ModuleDict({'a': nn.ReLU(), 'b': nn.Sigmoid()})",
        "functools.reduce(lambda t, m: m(t), layers, x) + sum(named[n](x) for n in sorted(named))",
        (
            "layers.append(nn.Tanh()) if len(layers) < 4 else layers.__delitem__(-1)",
            "layers[1] = nn.ReLU()",
            "layers[1] = nn.Tanh()",
            "named['c'] = nn.Tanh()",
            "named.pop('c') if 'c' in named else None",
            "named['a'] = nn.Sigmoid()",
            "layers._modules['1'] = nn.Sigmoid()",
            "layers.eval()",
        ),
        ("layers[0].note = 1", "named.note = 2"),
    ),
    Feature(
        "globals",
        "G, FACTOR, NAME, TABLE, TENSOR = 2, 0.5, 'a', [1, 2, 3], torch.ones(3)\ndef helper(t): return t + G",
        "helper(x) * FACTOR + len(NAME) + sum(TABLE) + TENSOR",
        (
            "G += 1",
            "G = float(G)",
            "G = 2",
            "FACTOR = FACTOR * 2 if FACTOR < 8 else 0.5",
            "NAME += 'b'",
            "NAME = 'a'",
            "TABLE.append(G)",
            "TABLE[0] = 5",
            "TABLE = [1, 2, 3]",
            "TABLE = (1, 2, 3)",
            "TENSOR = torch.full((3,), 2.0)",
            "TENSOR = torch.ones(1)",
            "TENSOR = torch.ones(3, requires_grad=True)",
            "def helper(t): return t - G",
            "def helper(t, w=1): return t + G * w",
            "helper.__defaults__ = (3,) if helper.__defaults__ else None",
            "helper.__code__ = (lambda t: t * G).__code__ if not helper.__defaults__ else helper.__code__",
            "len = lambda v: 7",
            "globals().pop('len', None)",
        ),
        ("UNREAD = 1", "TENSOR.detach().add_(0.5)", "helper.note = 1"),
    ),
    Feature(
        "closure",
        "def make():\n  n, t, f = 1, torch.ones(3), torch.sin\n  def inner(v): return f(v) * n + t\n"
        "  def change(**new):\n    nonlocal n, t, f\n    n, t, f = new.get('n', n), new.get('t', t), new.get('f', f)\n"
        "  return inner, change\ninner, change = make()",
        "inner(x)",
        (
            "change(n=2)",
            "change(n=3)",
            "change(n=1.5)",
            "change(n=True)",
            "change(t=torch.zeros(3))",
            "change(t=torch.ones(2, 3))",
            "change(f=torch.cos)",
            "change(f=lambda v: v * 3)",
            "change(f=torch.sin)",
            "inner, change = make()",
        ),
    ),
    Feature(
        "objects",
        "class Base:\n  rate = 2\n  def add(self, v): return v + self.n\n"
        "class Thing(Base):\n  def __init__(self): self.n, self.t, self.items = 1, torch.ones(3), [1, 2]\n"
        "  @property\n  def double(self): return self.n * 2\n"
        "thing = Thing()",
        "thing.add(x) * thing.rate + thing.t + thing.double + thing.items[-1] + getattr(thing, 'late', 0)",
        (
            "thing.n += 1",
            "thing.n = 1",
            "thing.n = 1.25",
            "thing.t = torch.full((3,), 3.0)",
            "thing.rate = 5",
            "thing.__dict__.pop('rate', None)",
            "Thing.rate = 3",
            "Thing.rate = Base.rate",
            "Base.rate += 1",
            "Base.rate = 2",
            "Thing.add = lambda self, v: v - self.n",
            "Thing.add = Base.add",
            "Base.add = lambda self, v: v * 2",
            "Thing.double = property(lambda self: 11)",
            "Thing.double = property(lambda self: self.n * 2)",
            "thing.items.append(3)",
            "thing.items[-1] = 9",
            "thing.items = [1, 2]",
            "thing.late = 4",
            "thing.__dict__.pop('late', None)",
            "thing.__class__ = type('Sub', (Thing,), {'rate': 8})",
            "thing.__class__ = Thing",
            "thing = Thing()",
            "thing.add = lambda v: v",
            "thing.__dict__.pop('add', None)",
            "Thing.__getattr__ = lambda self, name: 6 if name == 'late' else object.__getattribute__(self, name)",
            "Thing.__getattr__ = lambda self, name: object.__getattribute__(self, name)",
        ),
        ("thing.unread = 1", "Base.unread = 2", "thing.t.add_(0.5)"),
    ),
    Feature(
        "slots and data",
        "class Slotted:\n  __slots__ = ('a', 'b')\n  def __init__(self): self.a, self.b = 1, torch.ones(3)\n"
        "slotted = Slotted()\n"
        "@dataclasses.dataclass\nclass Data:\n  n: int = 1\n  v: tuple = (1, 2)\ndata = Data()\n"
        "class Color(enum.Enum):\n  RED = 1\n  BLUE = 2\ncolor = Color.RED\n"
        "Pair = collections.namedtuple('Pair', 'a b')\npair = Pair(1, x0)\nframe = types.SimpleNamespace(n=1)",
        "x * slotted.a + slotted.b + data.n + data.v[1] + (2 if color is Color.RED else 3) * color.value + pair.a * pair.b + frame.n",
        (
            "slotted.a += 1",
            "slotted.a = 1",
            "slotted.b = torch.zeros(3)",
            "data.n = 2",
            "data = Data()",
            "data.v = (1, 5)",
            "data.v = (1, 2, 3)",
            "color = Color.BLUE",
            "color = Color.RED",
            "pair = pair._replace(a=3)",
            "pair = Pair(1, x0 * 2)",
            "frame.n += 1",
            "frame = types.SimpleNamespace(n=1.5)",
        ),
        ("data.other = 1", "frame.other = 1"),
    ),
    Feature(
        "dicts",
        "table = {'a': 1, 'b': 2.5, 't': torch.ones(3)}\norder = collections.OrderedDict(u=1, v=2)\nfew = {1, 2}\n"
        "queue = collections.deque([1, 2], maxlen=4)\ncount = collections.defaultdict(int)",
        "x * table['a'] + table.get('c', 4) + len(table) + table['t'] + list(order)[0].count('u') + sum(order.values())"
        " + (1 in few) + max(few) + queue[0] + len(queue) + count['z']",
        (
            "table['a'] += 1",
            "table['a'] = 1",
            "table['c'] = 7",
            "table.pop('c', None)",
            "table['t'] = torch.zeros(3)",
            "table = dict(reversed(table.items()))",
            "order.move_to_end('u')",
            "order.move_to_end('v')",
            "order['u'] += 1",
            "few.add(5)",
            "few.discard(1)",
            "few = {1, 2}",
            "queue.append(3)",
            "queue.rotate(1)",
            "queue = collections.deque([1, 2], maxlen=4)",
            "count['z'] += 1",
            "count.clear()",
        ),
        ("table['t'].mul_(0.5)",),
    ),
    Feature(
        "functions",
        "def scale(t, by=2, *, shift=1): return t * by + shift\nbound = functools.partial(scale, by=3)\n"
        "@functools.lru_cache(maxsize=None)\ndef cached(n): return n * 2 + LRU\nLRU = 1\n"
        "class Call:\n  def __call__(self, t): return t + 1\ncall = Call()\npick = operator.itemgetter(1)",
        "scale(x) + bound(x) + cached(k) + call(x) + pick((1, 2, 3))",
        (
            "scale.__defaults__ = (4,)",
            "scale.__defaults__ = (2,)",
            "scale.__kwdefaults__ = {'shift': 5}",
            "scale.__kwdefaults__ = {'shift': 1}",
            "bound = functools.partial(scale, by=5)",
            "bound = functools.partial(scale, shift=2)",
            "cached.cache_clear(); LRU += 1",
            "LRU = 9",
            "Call.__call__ = lambda self, t: t - 1",
            "Call.__call__ = lambda self, t: t + 1",
            "call = lambda t: t * 2",
            "call = Call()",
            "pick = operator.itemgetter(2)",
            "pick = operator.itemgetter(1)",
        ),
    ),
    Feature(
        "modes",
        "VAR = contextvars.ContextVar('VAR', default=1)\nweight = torch.ones(3, requires_grad=True)",
        "(x * weight).sum() + VAR.get() + torch.ones(2).sum() * 0.5 + (1 if torch.is_grad_enabled() else 2)",
        (
            "torch.set_grad_enabled(False)",
            "torch.set_grad_enabled(True)",
            "torch.set_default_dtype(torch.float64)",
            "torch.set_default_dtype(torch.float32)",
            "VAR.set(VAR.get() + 1)",
            "VAR.set(1)",
            "weight.requires_grad_(not weight.requires_grad)",
            "weight = torch.ones(3)",
            "weight = torch.ones(3, requires_grad=True)",
            "torch.use_deterministic_algorithms(not torch.are_deterministic_algorithms_enabled())",
        ),
        ("weight.data.add_(0.5)",),
    ),
    Feature(
        "modules and builtins",
        "mod = types.ModuleType('mod')\nmod.factor, mod.fn = 2, torch.exp\nsys.modules[__name__ + '.inner'] = mod",
        "mod.fn(x) * mod.factor + sys.modules[__name__ + '.inner'].factor + abs(k) + isinstance(options, dict)",
        (
            "mod.factor += 1",
            "mod.factor = 2",
            "mod.fn = torch.sin",
            "mod.fn = torch.exp",
            "sys.modules[__name__ + '.inner'] = types.SimpleNamespace(factor=5)",
            "sys.modules[__name__ + '.inner'] = mod",
            "abs = lambda v: 100",
            "globals().pop('abs', None)",
        ),
        ("mod.unread = 1",),
    ),
    Feature(
        "tensors outside",
        "w = torch.arange(3.0)\nbuffer = torch.ones(2, 3)",
        "x @ torch.diag(w.to(x.dtype)) + w.stride(0) + buffer.sum() + w.dim() + buffer.is_contiguous() + (w.grad is None)",
        (
            "w = torch.arange(3.0) + 1",
            "w = torch.arange(6.0)[::2]",
            "w = torch.arange(3)",
            "w = torch.arange(3.0, dtype=torch.float64)",
            "w = torch.arange(3.0).requires_grad_()",
            "w = torch.arange(3.0)",
            "w = nn.Parameter(torch.arange(3.0))",
            "w.grad = torch.ones_like(w) if w.is_leaf and w.is_floating_point() and w.grad is None else None",
            "buffer = torch.ones(3, 2).t()",
            "buffer = torch.ones(4, 3)",
            "buffer = torch.ones(2, 3)",
            "buffer.resize_(2, 3)",
            "w = torch.arange(6.0)[3:]",
        ),
        ("buffer.detach().mul_(1.5)", "w.detach().mul_(1)"),
    ),
)

# Arguments of the calls, as written; the first is the usual one.
ARGUMENTS = {
    "x": (
        "x0", "x0", "x0", "x1", "x0 + 1", "x0.double()", "x0.t().contiguous().t()", "x0[:1]", "x0[::2]",
        "x0.clone().requires_grad_()", "torch.cat([x0, x0])", "nn.Parameter(x0.clone())", "y0", "x0.half().float()",
        "torch.randn(6, 2, 3)[:, 0]", "x0.expand(4, 3)", "x0.detach()",
    ),
    "y": ("y0", "y0", "y0", "y0 * 2", "y0[0]", "x0", "y0.int()", "None"),
    "k": ("2", "2", "3", "4", "-1", "True", "2.5", "7", "10"),
    "options": (
        "{'a': 1}", "{'a': 1}", "{'a': 2}", "{'a': 1, 'b': 2}", "{}", "None", "{'a': x0}", "{'a': [1, 2]}",
        "{'a': [1, 2, 3]}", "[1, 2]", "(1, 2)", "collections.OrderedDict(a=1)",
    ),
}  # fmt: skip
USE_OF_ARGUMENTS = (
    "x * k",
    "(x + y if isinstance(y, torch.Tensor) and y.shape[-1:] == x.shape[-1:] else x - 1)",
    "(sum(v.sum() if isinstance(v, torch.Tensor) else sum(v) if isinstance(v, list) else v for v in options.values())"
    " if isinstance(options, dict) else len(options or ()))",
    "x.shape[0] + x.stride(0) + x.requires_grad + (x is y)",
    "(3 if k > 2 else 4) * x",
)
