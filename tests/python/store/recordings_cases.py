"""Programs for the tests of stored recordings: what the first process runs, and what the second one does.

A case is a module's source, and a change of it (or none) for the second process. `hit`: the second process
must find the recording and record nothing; `miss`: it must not use it; `part`: it uses what comes before a
break and records what comes behind it; `local`: the first process keeps some of it to itself, and says why in
a line that has this text; `same`: only the results count.

To add one: a row in CASES.
"""

from __future__ import annotations

from tests.python.store.recordings_break_cases import BREAKS
from tests.python.store.recordings_case import NET, X_TWICE, Case, case

ASKED = """
from collections import abc
class Shape(abc.Hashable):
    @classmethod
    def __subclasshook__(cls, other):
        return hasattr(other, "sides") or NotImplemented
class Square:
    sides = 4
class Round:
    pass
things = [Square(), Round(), [1], {}]
def fn(x):
    return x + sum(2 ** i for i, thing in enumerate(things) if isinstance(thing, (Shape, abc.Sequence)))
"""
PLAIN = "def fn(x):\n    return torch.relu(x) * 2.5 + 1\n"
HELPER = """
SCALE = 2.0
def helper(x, k=3):
    # a comment
    return x * k + SCALE
def other():
    return 1
def fn(x):
    return helper(torch.sin(x))
"""
CLOSURE = """
def factory(k, names):
    def inner(x):
        return x * k + len(names)
    return inner
fn = factory(3, ["a"])
"""
MODEL = """
def act(x):
    return torch.tanh(x)
class Config:
    def __init__(self):
        self.width = 4
        self.scale = 0.5
        self.names = ["a", "b"]
class Block(nn.Module):
    factor = 2
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.linear = nn.Linear(3, config.width, dtype=torch.float32)
        self.calls = 0
        self.act = act
    @property
    def gain(self):
        return self.config.scale
    @staticmethod
    def shift(x):
        return x + 1
    @classmethod
    def times(cls, x):
        return x * cls.factor
    def unrelated(self):
        return 1
    def forward(self, x):
        self.calls += 1
        y = self.act(self.linear(x)) * self.gain
        for name in self.config.names:
            if name == "a":
                y = y + 1
        return {"y": self.times(self.shift(y)), "n": self.calls}
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(Config()) for _ in range(2)])
        self.norm = nn.LayerNorm(4)
    def forward(self, x):
        outs = [block(x)["y"] for block in self.blocks]
        return self.norm(sum(outs))
"""


def net(name: str, expect: str, old: str = "", new: str = "", reason: str = "", extra: str = "pass") -> Case:
    return case(name, MODEL, expect, old, new, reason, NET.replace("EXTRA", extra))


GRADS = """
net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
GAIN = 1.0
def reset():
    torch.manual_seed(3)
    for p in net.parameters():
        torch.nn.init.normal_(p)
        p.grad = None
def state():
    return [(p, p.grad) for p in net.parameters()]
def fn(x):
    loss = (net(x) * GAIN).square().sum()
    loss.backward()
    return loss.detach()
"""
GRADS_KEPT = """
weight = nn.Parameter(torch.ones(3))
def reset():
    weight.grad = None
    torch.nn.init.ones_(weight)
def state():
    return weight, weight.grad
def fn(x):
    y = weight * x
    y.sum().backward()
    with torch.no_grad():
        weight.sub_(weight.grad * 0.1)
    return weight.detach() + 1, weight.grad, y.detach()
"""
STEP = """
net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
def reset():
    global optimizer
    torch.manual_seed(3)
    for p in net.parameters():
        torch.nn.init.normal_(p)
        p.grad = None
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
def state():
    return [(p, p.grad, optimizer.state[p]) for p in net.parameters()]
def fn(x):
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(net(x), x[:, :2])
    loss.backward()
    optimizer.step()
    return loss.item()
"""
SCHEDULED = STEP.replace(
    "momentum=0.9)",
    "momentum=0.9)\n    global rates\n    rates = torch.optim.lr_scheduler.StepLR(optimizer, 100)",
).replace("return loss.item()", "rates.step()\n    return loss.detach()")
INPUTS = "def make():\n    return fn, [(torch.arange(6.).reshape(2, 3) * k,) for k in (1, 2, 3, 4, 5, 6)]\n"


TRAINING = [
    case("grads", GRADS, "same", tail=INPUTS),
    case("grads_kept", GRADS_KEPT, "same", tail=INPUTS),
    case("grads_gain", GRADS, "same", "GAIN = 1.0", "GAIN = 2.0", tail=INPUTS),
    case("grads_source", GRADS, "same", "square().sum()", "square().mean()", tail=INPUTS),
    case(
        "grads_frozen",
        GRADS,
        "same",
        "reset():",
        "reset():\n    net[0].weight.requires_grad_(False)",
        tail=INPUTS,
    ),
    case("grads_there", GRADS, "same", "p.grad = None", "p.grad = torch.ones_like(p)", tail=INPUTS),
    case(
        "grads_hook",
        GRADS,
        "same",
        "GAIN = 1.0",
        "GAIN = 1.0\nnet[0].weight.register_hook(lambda g: g * 2)",
        tail=INPUTS,
    ),
    case("sgd", STEP, "same", tail=INPUTS),
    case("sgd_rate", STEP, "same", "lr=0.1", "lr=0.2", tail=INPUTS),
    case(
        "adam",
        STEP.replace("SGD(net.parameters(), lr=0.1, momentum=0.9)", "Adam(net.parameters(), lr=0.1)"),
        "same",
        tail=INPUTS,
    ),
    case("scheduled", SCHEDULED, "same", tail=INPUTS),
    case("scheduled_rate", SCHEDULED, "same", "optimizer, 100", "optimizer, 2", tail=INPUTS),
]
# Told by its address, and not called.
CACHED = """
@functools.lru_cache
def f(n):
    return n * 2
KINDS = {f: 3.0}
def fn(x):
    return x * KINDS[f]
"""
METHODS = """
class Number:
    def __init__(self, n):
        self.n = n
    def __index__(self):
        return self.n + BIAS
class Alias:
    def __new__(cls, owner, item):
        made = super().__new__(cls)
        made.item = item * 2
        return made
class Holder:
    __class_getitem__ = classmethod(Alias)
BIAS = 0
number = Number(1)
def fn(x):
    with torch.inference_mode(False):
        return x[operator.index(number)] * Holder[3].item
"""
WEAK = """
import weakref
class Thing:
    size = 3
thing, other = Thing(), Thing()
ref = weakref.ref(thing)
def fn(x):
    held = ref()
    return x * (held.size if held is not None else 7)
"""
HOLDERS = [
    case("methods", METHODS, "hit"),
    case("methods_new", METHODS, "miss", "item * 2", "item * 3"),
    case("methods_index", METHODS, "miss", "self.n + BIAS", "self.n * 0 + BIAS"),
    case("methods_global", METHODS, "miss", "BIAS = 0", "BIAS = -1"),
    case("methods_held", METHODS, "miss", "classmethod(Alias)", "classmethod(lambda cls, x: Number(x))"),
    case("reflected", "def fn(x):\n    return 1 - x, 2 ** x, 5 // (x + 1)\n", "hit"),
    case("weak", WEAK, "hit"),
    case("weak_gone", WEAK, "miss", "weakref.ref(thing)", "weakref.ref(thing)\ndel thing"),
    case("weak_size", WEAK, "miss", "size = 3", "size = 4"),
]

BASES = """
class B: pass
class P: pass
class A(B, P): pass
a = A()
def fn(x):
    return x * isinstance(a, P) + A.__mro__.index(P) + len(A.__bases__)
"""

CASES = [
    case("plain", PLAIN, "hit"),
    case("plain_constant", PLAIN, "miss", "2.5", "3.5"),
    case("plain_lines", PLAIN, "hit", "def fn", "# moved\n\n\ndef fn"),
    case("plain_default", "def fn(x, k=2):\n    return x * k\n", "miss", "k=2", "k=3"),
    case("plain_keyword_default", "def fn(x, *, k=2):\n    return x * k\n", "miss", "k=2", "k=3"),
    case("helper", HELPER, "hit"),
    case("helper_source", HELPER, "miss", "x * k + SCALE", "x * k - SCALE", "the source has changed"),
    case("helper_default", HELPER, "miss", "k=3", "k=4"),
    case("helper_global", HELPER, "miss", "SCALE = 2.0", "SCALE = 2.5"),
    case("helper_global_type", HELPER, "miss", "SCALE = 2.0", "SCALE = 2"),
    case("helper_comment", HELPER, "hit", "# a comment", "# another comment, and\n    # one line more"),
    case("helper_other", HELPER, "hit", "return 1", "return 2"),
    case("helper_replaced", HELPER, "miss", "def fn(x)", "def helper(x):\n    return x\ndef fn(x)"),
    case(
        "helper_wrapped",
        HELPER,
        "miss",
        "def fn(x)",
        "def wrap(f):\n    return lambda x: f(x) + 1\nhelper = wrap(helper)\ndef fn(x)",
    ),
    case(
        "helper_shadows_builtin",
        "def fn(x):\n    return x * len([1, 2])\n",
        "miss",
        "def fn",
        "def len(x):\n    return 7\ndef fn",
    ),
    case(
        "helper_other_module",
        "from math import sqrt as root\ndef fn(x):\n    return x * root(16.0)\n",
        "miss",
        "sqrt as root",
        "exp as root",
    ),
    case(
        "torch_function", "op = torch.sin\ndef fn(x):\n    return op(x)\n", "miss", "torch.sin", "torch.cos"
    ),
    case("torch_function_kept", "op = torch.sin\ndef fn(x):\n    return op(x)\n", "hit"),
    case(
        "functional",
        "import torch.nn.functional as F\nop = F.gelu\ndef fn(x):\n    return op(x)\n",
        "miss",
        "F.gelu",
        "F.silu",
    ),
    case("closure", CLOSURE, "hit"),
    case("closure_number", CLOSURE, "miss", "factory(3", "factory(4"),
    case("closure_list", CLOSURE, "miss", '["a"]', '["a", "b"]'),
    case(
        "nested",
        "def fn(x):\n    def inner(y):\n        return y * 2\n    return inner(x) + (lambda z: z + 1)(x)\n",
        "hit",
    ),
    case(
        "nested_changed", "def fn(x):\n    g = lambda z: z + 1\n    return g(x)\n", "miss", "z + 1", "z + 2"
    ),
    net("net", "hit"),
    net("net_unrelated", "hit", "return 1", "return 2"),
    net("net_forward", "miss", "+ 1\n        return {", "+ 2\n        return {"),
    net("net_act", "miss", "torch.tanh(x)", "torch.sigmoid(x)", "the source has changed"),
    net("net_config", "miss", "self.scale = 0.5", "self.scale = 0.25"),
    net("net_config_list", "miss", '["a", "b"]', '["a", "a"]'),
    net("net_width", "same", "config.width, dtype", "config.width + 0, bias=False, dtype"),
    net("net_dtype", "same", "dtype=torch.float32", "dtype=torch.float64"),
    net("net_class_attribute", "miss", "factor = 2", "factor = 3"),
    net("net_property", "miss", "return self.config.scale", "return self.config.scale * 2"),
    net("net_static", "miss", "return x + 1", "return x + 2"),
    net("net_classmethod", "miss", "x * cls.factor", "x * cls.factor * 2"),
    net(
        "net_getattr",
        "same",
        "    factor = 2\n",
        "    factor = 2\n    def __getattr__(self, name):\n        return super().__getattr__(name)\n",
    ),
    net(
        "net_hook",
        "miss",
        "pass",
        "net.blocks[0].register_forward_hook(lambda m, a, r: {'y': r['y'] * 2, 'n': 0})",
    ),
    net(
        "net_pre_hook",
        "miss",
        "pass",
        "net.blocks[1].linear.register_forward_pre_hook(lambda m, a: (a[0] * 2,))",
    ),
    net("net_train", "miss", "pass", "net.norm.register_buffer('b', torch.ones(1)); net.norm.bias = None"),
    net("net_requires_grad", "miss", "pass", "net.requires_grad_(False)"),
    net("net_tied", "hit", "pass", "net.blocks[1].linear.weight = net.blocks[0].linear.weight"),
    net("net_same_block", "same", "pass", "net.blocks[1] = net.blocks[0]"),
    net("net_double", "same", "pass", "net.double()"),
    net("net_instance_method", "miss", "pass", "net.blocks[0].shift = lambda x: x - 1"),
    net(
        "net_instance_forward",
        "miss",
        "pass",
        "net.blocks[0].forward = lambda x: {'y': x.sum() + torch.ones(2, 4)}",
    ),
    net(
        "net_subclass",
        "miss",
        "pass",
        "class Sub(Block):\n        @staticmethod\n        def shift(x):\n            return x - 1\n"
        "    net.blocks[0].__class__ = Sub",
    ),
    net("net_weights", "hit", "pass", "torch.nn.init.ones_(net.blocks[0].linear.weight)"),
    net(
        "net_parameter_class",
        "miss",
        "pass",
        "net.blocks[0].linear.__dict__['weight'] = net.blocks[0].linear._parameters.pop('weight').detach()",
    ),
    case(
        "list_effect",
        "seen = []\ndef reset():\n    seen.clear()\ndef state():\n    return seen\n"
        "def fn(x):\n    seen.append(x.sum())\n    return x + len(seen)\n",
        "same",
    ),
    case(
        "global_effect",
        "count = 0\ndef reset():\n    global count\n    count = 0\ndef state():\n    return count\n"
        "def fn(x):\n    global count\n    count = count + 1\n    return x * 2\n",
        "same",
    ),
    case(
        "mutates_argument",
        "def fn(x):\n    x.add_(1)\n    return x * 2\n",
        "hit",
        tail="def make():\n    return fn, [(torch.zeros(3),), (torch.ones(3),)]\n",
    ),
    case(
        "aliased_arguments",
        "def fn(x, y):\n    x.add_(1)\n    return x * y\n",
        "same",
        "return fn, [(torch.ones(3), torch.ones(3))]",
        "t = torch.ones(3)\n    return fn, [(t, t)]",
        tail="def make():\n    return fn, [(torch.ones(3), torch.ones(3))]\n",
    ),
    case(
        "unaliased_arguments",
        "def fn(x, y):\n    if x is y:\n        return x + 1\n    return x - y\n",
        "miss",
        "t = torch.ones(3)\n    return fn, [(t, t)]",
        "return fn, [(torch.ones(3), torch.ones(3))]",
        tail="def make():\n    t = torch.ones(3)\n    return fn, [(t, t)]\n",
    ),
    case(
        "shape",
        "def fn(x):\n    return x + x.shape[0]\n",
        "miss",
        "torch.ones(3)",
        "torch.ones(4)",
        tail="def make():\n    return fn, [(torch.ones(3),)]\n",
    ),
    case(
        "dtype",
        "def fn(x):\n    return x + 1 if x.dtype == torch.float32 else x - 1\n",
        "miss",
        "torch.ones(3)",
        "torch.ones(3, dtype=torch.float64)",
        tail="def make():\n    return fn, [(torch.ones(3),)]\n",
    ),
    case(
        "strides",
        "def fn(x):\n    return x.contiguous().view(-1)\n",
        "miss",
        "torch.ones(2, 3)",
        "torch.ones(3, 2).t()",
        tail="def make():\n    return fn, [(torch.ones(2, 3),)]\n",
    ),
    case(
        "number_argument",
        "def fn(x, n):\n    return x * n + 1\n",
        "same",
        tail="def make():\n    return fn, [(torch.ones(3), n) for n in (2, 3, 4, 5)]\n",
    ),
    case(
        "number_argument_type",
        "def fn(x, n):\n    return x * n, n\n",
        "same",
        "(2, 3)",
        "(2.0, 3.0)",
        tail="def make():\n    return fn, [(torch.ones(3), n) for n in (2, 3)]\n",
    ),
    case(
        "text",
        "def fn(x, name):\n    return x * 2, f'{name}!', name.upper()\n",
        "same",
        "'a'",
        "'bcd'",
        tail="def make():\n    return fn, [(torch.ones(3), name) for name in ('a', 'a')]\n",
    ),
    case(
        "keywords",
        "def fn(x, *, y=None, k=1):\n    return x * k if y is None else x * y\n",
        "hit",
        tail="def make():\n    return fn, [(torch.ones(3), {'**': 1, 'k': 3})] * 2\n",
    ),
    case(
        "keywords_changed",
        "def fn(x, *, y=None, k=1):\n    return x * k if y is None else x * y\n",
        "miss",
        "'k': 3",
        "'y': torch.ones(3)",
        tail="def make():\n    return fn, [(torch.ones(3), {'**': 1, 'k': 3})] * 2\n",
    ),
    case(
        "grad_mode",
        "def fn(x):\n    with torch.no_grad():\n        y = x * 2\n    return y + x\n",
        "hit",
        tail="def make():\n    return fn, [(torch.ones(3, requires_grad=True),)] * 2\n",
    ),
    case(
        "autocast",
        "def fn(x):\n    with torch.autocast('cpu'):\n        return x @ x\n",
        "hit",
        tail="def make():\n    return fn, [(torch.ones(3, 3),)] * 2\n",
    ),
    case("dropout", "def fn(x):\n    return nn.functional.dropout(x, 0.5)\n", "hit"),
    case(
        "batch_norm",
        "def fn(x):\n    return x\n",
        "hit",
        tail="def make():\n    return nn.BatchNorm1d(3), [(torch.arange(6.).reshape(2, 3),)] * 2\n",
    ),
    case(
        "sequential",
        "",
        "hit",
        tail="def make():\n    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))\n"
        "    return net, [(torch.arange(6.).reshape(2, 3),)] * 2\n",
    ),
    case(
        "sequential_other",
        "",
        "miss",
        "nn.ReLU()",
        "nn.GELU()",
        tail="def make():\n    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))\n"
        "    return net, [(torch.arange(6.).reshape(2, 3),)] * 2\n",
    ),
    case(
        "enum",
        "class Color(enum.Enum):\n    RED = 1\n    BLUE = 2\nMODE = Color.RED\n"
        "def fn(x):\n    return x + 1 if MODE is Color.RED else x - 1\n",
        "hit",
    ),
    case(
        "enum_other",
        "class Color(enum.Enum):\n    RED = 1\n    BLUE = 2\nMODE = Color.RED\n"
        "def fn(x):\n    return x + 1 if MODE is Color.RED else x - 1\n",
        "miss",
        "MODE = Color.RED",
        "MODE = Color.BLUE",
    ),
    case(
        "enum_value",
        "class Color(enum.Enum):\n    RED = 1\n    BLUE = 2\nMODE = Color.RED\n"
        "def fn(x):\n    return x + MODE.value\n",
        "miss",
        "RED = 1",
        "RED = 5",
    ),
    case(
        "dtype_global",
        "KIND = torch.float64\ndef fn(x):\n    return x.to(KIND)\n",
        "miss",
        "torch.float64",
        "torch.float16",
    ),
    case("dtype_global_kept", "KIND = torch.float64\ndef fn(x):\n    return x.to(KIND)\n", "hit"),
    case(
        "isinstance",
        "class A:\n    pass\nclass B(A):\n    pass\nthing = B()\n"
        "def fn(x):\n    return x + 1 if isinstance(thing, A) else x - 1\n",
        "miss",
        "class B(A)",
        "class B",
    ),
    case(
        "isinstance_kept",
        "class A:\n    pass\nclass B(A):\n    pass\nthing = B()\n"
        "def fn(x):\n    return x + 1 if isinstance(thing, A) else x - 1\n",
        "hit",
    ),
    case(
        "truth",
        "class A:\n    pass\nthing = A()\ndef fn(x):\n    return x + 1 if thing else x - 1\n",
        "miss",
        "class A:\n    pass",
        "class A:\n    def __bool__(self):\n        return False",
    ),
    case(
        "base_method",
        "class A:\n    def f(self, x):\n        return x + 1\nclass B(A):\n    pass\nthing = B()\n"
        "def fn(x):\n    return thing.f(x)\n",
        "miss",
        "class B(A):\n    pass",
        "class B(A):\n    def f(self, x):\n        return x + 2",
    ),
    case(
        "super",
        "class A:\n    def f(self, x):\n        return x + 1\nclass B(A):\n    def f(self, x):\n"
        "        return super().f(x) * 2\nthing = B()\ndef fn(x):\n    return thing.f(x)\n",
        "hit",
    ),
    case(
        "super_changed",
        "class A:\n    def f(self, x):\n        return x + 1\nclass B(A):\n    def f(self, x):\n"
        "        return super().f(x) * 2\nthing = B()\ndef fn(x):\n    return thing.f(x)\n",
        "miss",
        "x + 1",
        "x + 7",
    ),
    case(
        "slots",
        "class A:\n    __slots__ = ('k', 't')\n    def __init__(self):\n        self.k = 2\n"
        "        self.t = torch.ones(3)\nthing = A()\ndef fn(x):\n    return x * thing.k + thing.t\n",
        "hit",
    ),
    case(
        "slots_value",
        "class A:\n    __slots__ = ('k', 't')\n    def __init__(self):\n        self.k = 2\n"
        "        self.t = torch.ones(3)\nthing = A()\ndef fn(x):\n    return x * thing.k + thing.t\n",
        "miss",
        "self.k = 2",
        "self.k = 3",
    ),
    case(
        "partial",
        "def f(k, x):\n    return x * k\ng = functools.partial(f, 3)\ndef fn(x):\n    return g(x)\n",
        "hit",
    ),
    case(
        "partial_changed",
        "def f(k, x):\n    return x * k\ng = functools.partial(f, 3)\ndef fn(x):\n    return g(x)\n",
        "miss",
        "partial(f, 3)",
        "partial(f, 4)",
    ),
    case(
        "instance_result",
        "class Out:\n    def __init__(self, a, b):\n        self.a = a\n        self.b = b\n"
        "def fn(x):\n    return Out(x + 1, [x * 2, 'text'])\n",
        "hit",
    ),
    case(
        "dataclass_result",
        "@dataclasses.dataclass\nclass Out:\n    a: torch.Tensor\n    b: int = 3\n"
        "def fn(x):\n    return Out(x + 1)\n",
        "same",
    ),
    case(
        "ordered_result",
        "class Out(collections.OrderedDict):\n    def get_a(self):\n        return self['a']\n"
        "def fn(x):\n    out = Out()\n    out['a'] = x + 1\n    out.b = 3\n    return out, out.get_a()\n",
        "same",
    ),
    case(
        "named_tuple",
        "Pair = collections.namedtuple('Pair', 'a b')\ndef fn(x):\n    return Pair(x + 1, x.shape)\n",
        "same",
    ),
    case(
        "set_order",
        "names = 'alpha beta gamma delta epsilon zeta'.split()\n"
        "def fn(x):\n    out = []\n    for name in set(names):\n        out.append(name)\n    return x + 1, len(out), '-'.join(out)\n",
        "local",
        reason="the order of a set",
    ),
    case(
        "set_of_numbers", "def fn(x):\n    for k in {3, 1, 2}:\n        x = x * 2 + k\n    return x\n", "hit"
    ),
    case(
        "frozen_set_constant",
        "def fn(x):\n    out = []\n    for k in frozenset(('alpha', 'beta', 'gamma', 'delta')):\n"
        "        out.append(k)\n    return x + 1, out\n",
        "local",
        reason="the order of a set",
    ),
    case(
        "set_member", "def fn(x):\n    return x + 1 if 'alpha' in {'alpha', 'beta', 'gamma'} else x\n", "hit"
    ),
    case("hash_of_text", "def fn(x):\n    return x * (hash('alpha') % 7)\n", "local", reason="a hash"),
    case(
        "hash_of_enum",
        "class Color(enum.Enum):\n    RED = 1\n    BLUE = 2\ntable = {Color.RED: 2, Color.BLUE: 3}\n"
        "def fn(x):\n    return x * table[Color.RED]\n",
        "same",
    ),
    case(
        "lru_cache",
        "@functools.lru_cache\ndef f(n):\n    return n * 2\ndef fn(x):\n    return x * f(3)\n",
        "same",
    ),
    case(
        "lru_cache_changed",
        "@functools.lru_cache\ndef f(n):\n    return n * 2\ndef fn(x):\n    return x * f(3)\n",
        "same",
        "n * 2",
        "n * 3",
    ),
    case("cached_function_held", CACHED, "hit"),
    case("cached_function_changed", CACHED, "miss", "n * 2", "n * 3", "the source has changed"),
    case("cached_function_bounded", CACHED, "miss", "lru_cache\n", "lru_cache(4)\n", "is made otherwise"),
    case(
        "cached_function_plain",
        CACHED,
        "miss",
        "functools.lru_cache\n",
        "staticmethod\n",
        "f: is not there",
    ),
    case(
        "assumed_constant",
        "K = 3\n@torch._dynamo.assume_constant_result\ndef f():\n    return K\n"
        "def fn(x):\n    return x * f()\n",
        "same",
        "K = 3",
        "K = 4",
    ),
    case(
        "default_dtype",
        "def fn(x):\n    return x + torch.ones(3)\n",
        "miss",
        "def make():\n",
        "def make():\n    torch.set_default_dtype(torch.float64)\n",
        tail="def make():\n    return fn, [(torch.arange(3, dtype=torch.float32),)]\n"
        "def state():\n    torch.set_default_dtype(torch.float32)\n",
    ),
    case("bases", BASES, "hit"),
    case("bases_others", BASES, "miss", "class A(B, P)", "class A(P, B)"),
    case(
        "bases_of_exceptions",
        "class E(KeyError): pass\nKINDS = (ValueError, LookupError)\ndef fn(x):\n    try:\n        raise E\n"
        "    except KINDS:\n        return x + 1\n",
        "hit",
    ),
    case("random_tensor", "def fn(x):\n    return x + torch.rand(3)\n", "hit"),
    case("raises", "def fn(x):\n    y = x + 1\n    raise ValueError('no')\n", "same"),
    case("generator", "def fn(x):\n    return sum(x * k for k in range(3))\n", "hit"),
    case(
        "comprehension",
        "def fn(x):\n    return [x * k for k in range(3)], {k: x + k for k in 'ab' and (1, 2)}\n",
        "hit",
    ),
    case(
        "string_keys",
        "def fn(d):\n    return d['a'] + d['b'] * 2\n",
        "hit",
        tail="def make():\n    return fn, [({'a': torch.ones(2), 'b': torch.ones(2)},)] * 2\n",
    ),
    case(
        "string_keys_order",
        "def fn(d):\n    return [v * 2 for v in d.values()], list(d)\n",
        "miss",
        "{'a': torch.ones(2), 'b': torch.ones(2)}",
        "{'b': torch.ones(2), 'a': torch.ones(2)}",
        tail="def make():\n    return fn, [({'a': torch.ones(2), 'b': torch.ones(2)},)] * 2\n",
    ),
    case(
        "two_situations",
        "def fn(x, flag):\n    return x + 1 if flag else x - 1\n",
        "hit",
        tail="def make():\n    return fn, [(torch.ones(2), True), (torch.ones(2), False), (torch.ones(3), True)]\n",
    ),
    case("native", PLAIN, "hit", tail=X_TWICE + "BACKEND = 'native'\n"),
    case("constant_tensor", "def fn(x):\n    return x + torch.tensor([1.5, 2.5, -0.0])\n", "hit"),
    case("half_precision", "def fn(x):\n    return (x.half() * 0.1).to(torch.bfloat16)\n", "hit"),
    case(
        "long_numbers",
        "BIG = 2 ** 80\ndef fn(x):\n    return x * (BIG // 2 ** 79), BIG, 1e308 * 10, -0.0\n",
        "hit",
    ),
    case(
        "unicode",
        "NAME = 'é\\u4e2d\\ud800'\ndef fn(x):\n    return x + len(NAME), NAME, b'\\x00\\xff'\n",
        "hit",
    ),
    case("nothing", "def fn(x):\n    return x\n", "same"),
    case("abstract", ASKED, "hit"),
    case("abstract_registered", ASKED, "miss", "things =", "Shape.register(Round)\nthings ="),
    case("abstract_hook", ASKED, "miss", '"sides"', '"corners"', "is Square a Shape"),
    case("abstract_unrelated", ASKED, "hit", "things =", "abc.MutableSet.register(Round)\nthings ="),
    case(
        "annotations",
        "def f(x: int, y: 'A' = 3):\n    return x\ndef fn(x):\n    return x + len(f.__annotations__)\n",
        "hit",
    ),
    case(
        "annotations_changed",
        "def f(x: int, y: 'A' = 3):\n    return x\ndef fn(x):\n    return x + len(f.__annotations__)\n",
        "miss",
        "y: 'A'",
        "y",
    ),
    case(
        "no_annotations",
        "def f(x):\n    return x\ndef fn(x):\n    return x + len(f.__annotations__)\n",
        "hit",
    ),
    case(
        "copied",
        "import copy\nclass A:\n    def __init__(self):\n        self.k = 2\na = A()\n"
        "def fn(x):\n    b = copy.copy(a)\n    b.k = 3\n    return x * b.k\n",
        "hit",
    ),
    *BREAKS,
    *TRAINING,
    *HOLDERS,
]
