"""Programs with graph breaks for the tests of stored recordings; see recordings_cases.py."""

from __future__ import annotations

from tests.python.store.recordings_case import NET_TAIL, X_TWICE, case

BRANCH = """
def fn(x):
    y = x + 1
    if y.sum() > 0:
        return y * 2
    return y - 1
"""
PRINTS = """
SCALE = 2.0
def inner(y):
    y = y * SCALE
    print("y", file=sys.stderr)
    return torch.relu(y), [y]
def fn(x):
    y = x + 1
    z, kept = inner(y)
    return z * 3, kept
"""
ITEM = """
def fn(x):
    n = x.sum().item()
    return x * 2 + n
"""
LOOP = """
def fn(x):
    out = []
    for i, k in enumerate([1, 2, 3]):
        x = x * k
        print(i, file=sys.stderr)
        out.append(x)
    return out
"""
CALLS_UNKNOWN = """
import zlib
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
    def forward(self, x):
        x = self.linear(x)
        n = zlib.crc32(b"abc") % 7
        return x + n
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block() for _ in range(3)])
    def forward(self, x):
        with torch.no_grad():
            for block in self.blocks:
                x = block(x)
        return x
"""
INSIDE = """
class Holder:
    def __init__(self, x):
        print("", file=sys.stderr)
        self.x = x + 1
def fn(x):
    k = 2
    def scaled(y):
        print("", file=sys.stderr)
        return y * k
    held = Holder(x * 3)
    return scaled(held.x), [scaled(v) for v in (x, x + 1)], (lambda z: z)(held.x)
"""
SIGNS = "def make():\n    return fn, [(torch.ones(3),), (-torch.ones(3) * 3,), (torch.ones(3),)]\n"
AFTER = """
SCALE = 2.0
class Thing:
    kind = 2
thing = Thing()
def helper(y):
    return y * 2 + 1
def fn(x):
    y = x + 1
    print("y", file=sys.stderr)
    return helper(y) * SCALE * thing.kind
"""
ALIASES = """
def fn(x, y):
    a = [x, y]
    print("", file=sys.stderr)
    a[0].add_(1)
    print("", file=sys.stderr)
    a.append(x * y)
    return a, x is y
"""
MODES = """
def fn(x):
    with torch.no_grad(), torch.autocast("cpu"):
        y = x @ x
        print("", file=sys.stderr)
        y = y @ x
    print("", file=sys.stderr)
    return y + x, torch.is_grad_enabled()
"""
CELLS = """
class Base:
    def f(self, x):
        return x + 1
class Sub(Base):
    def f(self, x, *, k=2, **rest):
        total = []
        def add(v):
            nonlocal k
            k += 1
            print("", file=sys.stderr)
            total.append(v * k)
            return len(total)
        add(x)
        add(super().f(x))
        return total, k
thing = Sub()
def fn(x):
    return thing.f(x), thing.f(x, k=5)
"""
HANDLER = """
def fn(x):
    try:
        raise ValueError("a")
    except ValueError as error:
        y = x + 1
        print(error, file=sys.stderr)
        y = y * 2
    return y - 1
"""
STEPS = """
def gen(x):
    for k in range(3):
        x = x * 2
        print("", file=sys.stderr)
        yield x + k
def fn(x):
    return [v + 1 for v in gen(x)]
"""
ITERATORS = """
table = {"a": 1, "b": 2}
def fn(x):
    out = []
    for (name, k), extra in zip(table.items(), reversed([x, x * 2])):
        print(name, file=sys.stderr)
        out.append(x * k + extra)
    for v in iter(out):
        print("", file=sys.stderr)
        out[0] = out[0] + v
    for j in range(2):
        print("", file=sys.stderr)
        x = x + j
    return out, x
"""
RECURSION = """
def down(x, n):
    if n == 0:
        print("", file=sys.stderr)
        return x * 2
    return down(x + n, n - 1) * n
def fn(x):
    return down(x, 3), down(x, 2)
"""


BREAKS = [
    case("break_after", AFTER, "hit"),
    case("break_after_helper", AFTER, "part", "y * 2 + 1", "y * 2 - 1", "the source has changed"),
    case("break_after_global", AFTER, "part", "SCALE = 2.0", "SCALE = 4.0", "expected item =="),
    case("break_after_attribute", AFTER, "part", "kind = 2", "kind = 3"),
    case("break_after_instance", AFTER, "part", "thing = Thing()", "thing = Thing(); thing.kind = 3"),
    case(
        "break_after_class",
        AFTER,
        "part",
        "    kind = 2",
        "    kind = 2\n    def __getattribute__(self, name):\n        return 5",
    ),
    case(
        "break_aliases",
        ALIASES,
        "hit",
        tail="def make():\n    return fn, [(torch.ones(3), torch.ones(3)) for _ in range(3)]\n",
    ),
    case(
        "break_aliased",
        ALIASES,
        "same",
        "y = torch.ones(3)",
        "y = x",
        tail="def make():\n    x = torch.ones(3)\n    y = torch.ones(3)\n    return fn, [(x, y)] * 2\n",
    ),
    case(
        "break_modes",
        MODES,
        "hit",
        tail="def make():\n    return fn, [(torch.ones(3, 3, requires_grad=True),)] * 3\n",
    ),
    case("break_cells", CELLS, "hit"),
    case("break_cells_changed", CELLS, "same", "k += 1", "k += 2"),
    case("break_handler", HANDLER, "local", reason="an exception"),
    case("break_generator", STEPS, "local", reason="a generator"),
    case("break_iterators", ITERATORS, "hit"),
    case("break_iterators_changed", ITERATORS, "same", '"b": 2', '"c": 2'),
    case("break_recursion", RECURSION, "hit"),
    case("break_branch", BRANCH, "hit", tail=SIGNS),
    case("break_branch_side", BRANCH, "same", "[(torch.ones(3),), ", "[", tail=SIGNS),
    case(
        "break_branch_new_side",
        BRANCH,
        "same",
        "[",
        "[(-torch.ones(3) * 3,), ",
        tail="def make():\n    return fn, [(torch.ones(3),)] * 2\n",
    ),
    case("break_branch_source", BRANCH, "miss", "y - 1", "y - 2", tail=SIGNS),
    case("break_print", PRINTS, "hit"),
    case("break_print_native", PRINTS, "hit", tail=X_TWICE + "BACKEND = 'native'\n"),
    case("break_print_source", PRINTS, "miss", "torch.relu(y), [y]", "torch.relu(-y), [y]"),
    case("break_print_global", PRINTS, "same", "SCALE = 2.0", "SCALE = 3.0"),
    case("break_print_comment", PRINTS, "hit", "def fn(x)", "# a comment\ndef fn(x)"),
    case("break_item", ITEM, "hit"),
    case(
        "break_item_values",
        ITEM,
        "hit",
        tail="def make():\n    return fn, [(torch.ones(3) * k,) for k in (1, 2, 3, 4)]\n",
    ),
    case("break_loop", LOOP, "hit"),
    case("break_loop_longer", LOOP, "miss", "[1, 2, 3]", "[1, 2, 3, 4]"),
    case("break_unknown_call", CALLS_UNKNOWN, "hit", tail=NET_TAIL),
    case("break_inside", INSIDE, "hit"),
]
