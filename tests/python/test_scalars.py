"""Numbers and texts that change from call to call: followed where replay can repeat what is done with them,
guarded everywhere else. Each way of using one is a program; eager is the oracle at every call."""

from __future__ import annotations

import pytest
import torch

import flashpoint
from tests.support import check_calls

PRELUDE = """
import collections, contextlib, dataclasses, functools, math, operator
class Box:
  def __init__(self, v=0): self.v = v
  def double(self): return self.v * 2
  @property
  def half(self): return self.v / 2
  def __call__(self, n, k=1): return n + k + self.v
  @staticmethod
  def plus(n, k): return n + k
@dataclasses.dataclass
class Data:
  n: float
  k: int = 3
Pair = collections.namedtuple('Pair', 'a b')
@contextlib.contextmanager
def scope(n):
  yield n + 1
def deco(f):
  @functools.wraps(f)
  def inner(*a, **k): return f(*a, **k)
  return inner
@deco
def decorated(n, k=2): return n * k
def both(a, b=5, *, c=7): return a, b * c
def default(a, b=2.5): return a + b
def star(*a, **k): return a, k
def gen(n):
  for i in range(3): yield n + i
def countdown(n): return 0 if n <= 0 else 1 + countdown(n - 1)
def seen(n):
  m = n + 1
  return locals()
box, store, log = Box(4), {}, []
G = 0
"""

# Statements over x (a tensor) and n; `r` is returned beside a tensor. Also run with n an int.
USES = {
    "arithmetic": "r = (n + 1) * 2 - n / 3",
    "powers": "r = n ** 2, -n, +n, abs(n), divmod(n, 2), n // 2, n % 3",
    "augmented": "r = n\nr += 1\nr *= n",
    "swap": "a, b = n, n + 1\na, b = b, a\nr = a, b",
    "walrus": "r = (m := n * 2) + m",
    "tuple": "t = (n, x, n + 1)\na, b, c = t\nr = a, c, t[0]",
    "nested tuple": "r = (n, (n, (n + 1,)))",
    "tuple index": "t = (n, 2)\nr = t[0] + t[1], len(t), t == (n, 2), n in t",
    "tuple argument": "r = both((n, 1), b=2)",
    "tuple then list": "t = (n, 2)\nr = list(t), [t], {'t': t}",
    "tuple spread over a call": "t = (n, 2)\nr = default(*t), both(*t, **{'c': n})",
    "star unpack": "a, *b = (n, 1, 2)\nr = a, b",
    "list": "r = [n, n + 1]",
    "dict": "r = {'a': n, n: 2}",
    "set": "r = sorted({n, 1, 2})",
    "append": "r = []\nr.append(n)\nr.append(n * 2)",
    "comprehension": "r = [i * n for i in range(3)]",
    "dict comprehension": "r = {i: n for i in range(2)}",
    "generator": "r = list(gen(n))",
    "generator expression": "r = sum(i * n for i in range(3))",
    "closure": "def f(): return n + 1\nr = f()",
    "cell that changes": "def f():\n  nonlocal n\n  n += 1\n  return n\nr = f(), n",
    "lambda": "r = (lambda a, b=n: a + b)(n)",
    "call": "r = both(n, c=n)",
    "call with default": "r = default(n), default(n, n), default(b=n, a=1)",
    "star call": "r = star(n, *(n, 1), k=n, **{'m': n})",
    "recursion": "r = countdown(n)",
    "method": "r = box(n), box(n, k=n), Box.plus(n, 1)",
    "constructor": "b = Box(n)\nr = b.v, b.double(), b.half",
    "dataclass": "d = Data(n)\nr = d.n, d.k, repr(d)",
    "named tuple": "p = Pair(n, 1)\nr = p.a, p",
    "decorated": "r = decorated(n), decorated(n, k=n)",
    "partial": "r = functools.partial(both, n)(2)",
    "context manager": "with scope(n) as m:\n  r = m",
    "finally": "try:\n  r = n + 1\nfinally:\n  r = r, n",
    "raised and caught": "try:\n  raise ValueError(n)\nexcept ValueError as e:\n  r = e.args[0]",
    "division by zero": "try:\n  r = 1 / (n - 2)\nexcept ZeroDivisionError:\n  r = 'zero'",
    "locals": "r = seen(n)['m']",
    "own locals": "m = n\nr = sorted(locals())",
    "vars of an instance": "r = vars(Box(n))",
    "attribute store": "box.v = n\nr = box.v\nbox.v = 4",
    "global store": "global G\nG = n\nr = G + 1",
    "subscript store": "store['k'] = n\nr = store['k']",
    "outer list": "log.append(n)\nr = log[-1]",
    "truth": "r = 'yes' if n else 'no'",
    "comparison": "r = n > 1, n == 2, n != 2, 0 < n < 3",
    "boolean operators": "r = n and 5, n or 6, not n",
    "identity": "m = n\nr = m is n, n is None, n is not None",
    "membership": "r = n in (1, 2), n in [2], n in {2: 1}",
    "while": "r, i = 0, 0\nwhile i < n:\n  i += 1\n  r += n",
    "range": "r = list(range(int(n)))",
    "types": "r = isinstance(n, float), type(n) is int, isinstance(n, (int, str))",
    "conversions": "r = int(n), float(n), str(n), bool(n), round(n, 1), complex(n)",
    "min and max": "r = min(n, 2), max(n, 2, 3), sum([n, 1])",
    "math": "r = math.sqrt(abs(n)), math.floor(n), math.isnan(n), operator.add(n, 1)",
    "f-string": "r = f'{n}', f'{n:.3f} and {n!r}', f'{n:>{8}}', f'{x.shape[0]}{n}'",
    "percent": "r = '%s' % n, '%.2f|%s' % (n, n)",
    "str.format": "r = '{} {a}'.format(n, a=n)",
    "format spec": "w = int(n) + 5\nr = f'{1.5:{w}}'",
    "hash and key": "r = hash(n), {2: 'a', 2.5: 'b', 3: 'c'}.get(n)",
    "match": "match n:\n  case 2: r = 'two'\n  case float(): r = 'float'\n  case _: r = 'other'",
    "map and zip": "r = list(map(abs, [n])), list(zip([n], (n,))), list(enumerate([n]))",
    "sorted": "r = sorted([3, n, 1]), sorted([1, 2], key=lambda v: v * n)",
    "tensor times number": "r = x * n, n * x, x + n, n - x, x / (n + 1), x ** 2 * n",
    "tensor alpha": "r = torch.add(x, x, alpha=n)",
    "full": "r = torch.full((2,), n), torch.full_like(x, n)",
    "clamp": "r = x.clamp(min=n), x.clamp(-1.0, n + 1)",
    "fill": "r = x.clone().fill_(n)",
    "new tensor": "r = torch.tensor(n), torch.tensor([n, 1.0])",
    "shapes": "m = int(abs(n)) + 1\nr = torch.ones(m, 2), x[:m], x.repeat(1, m)",
    "index": "m = int(n) % 2\nr = x[m], x[m:], x[[m]]",
    "store in tensor": "y = x.clone()\ny[0] = n\nr = y",
    "linspace": "r = torch.linspace(0, n, 3), torch.arange(0, abs(n) + 1)",
    "scalar and tensor mixed": "s = n * 2\ny = x * s\nt = s + 1\nr = y + t, t, s",
    "break between": "s = n * 2\nprint(end='')\nr = s + n, x * s",
    "break in callee": "def f(a):\n  b = a + 1\n  print(end='')\n  return b * 2\nr = f(n) + n, x + f(1)",
    "break with tuple": "t = (n, 1)\nprint(end='')\nr = t, t[0]",
    "break in loop": "r = 0.0\nfor i in range(3):\n  r += n * i\n  print(end='')",
    "break in f-string": "r = f'{n} {print(end=str())} {n * 2}'",
    "item": "s = (x * n).sum().item()\nr = s, s * 2, f'{s:.2f}', (s, s)",
    "item in loop": "r = 0.0\nfor i in range(3):\n  r += (x * i * n).sum().item()",
    "item in callee": "def f(y): return y.mean().item()\nr = f(x * n) + f(x), x + 1",
    "item compared": "s = (x * n).sum().item()\nr = x + 1 if s > 4 else x - 1",
    "item as shape": "s = int((x * n).sum().abs().item()) + 1\nr = torch.ones(s).sum() + x",
    "item times tensor": "r = x * (x * n).sum().item()",
    "tolist": "a, b = (x * n).tolist()\nr = a + b, x * 2",
    "truth of a tensor": "r = x + 1 if (x * n).sum() > 1 else x - 1",
    "texts": "s = str(n) + '!'\nr = s, s * 2, s.upper(), s[0], len(s), 'x' in s, s == '2!'",
    "bytes": "r = str(n).encode() + b'!'",
}  # fmt: skip


def source(name: str) -> str:
    body = USES[name].replace("\n", "\n  ")
    return f"{PRELUDE}\ndef fn(x, n):\n  {body}\n  return x + 1, r\n"


# What has no int, takes for ever, or hashes by address.
WHOLE_NUMBERS = (
    *("range", "index", "shapes", "while", "set", "hash and key", "recursion", "item as shape", "linspace"),
    *("format spec", "conversions", "math"),
)
VALUES = ("2.5", "2.5", "3.5", "0.0", "-1.5", "2.5", "float('nan')", "1e300", "2.5")
INTEGERS = ("2", "2", "3", "0", "-1", "4", "1000", "5", "2")


@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize("values", [VALUES, INTEGERS], ids=["float", "int"])
def test_use(name: str, values: tuple[str, ...]) -> None:
    if values is INTEGERS and name in ("shapes", "item as shape"):
        values = tuple(v for v in values if v != "1000")
    if values is VALUES and name in WHOLE_NUMBERS:
        values = tuple(v for v in values if v not in ("1e300", "float('nan')"))
    outcomes = check_calls(source(name), [f"x, {v}" for v in values])
    kept = outcomes[0].counters["captures_kept"]
    assert kept or name in ("own locals", "locals"), outcomes[0].counters


def counters_of(*calls: object, fn: object) -> list[dict[str, int]]:
    flashpoint.reset()
    compiled = flashpoint.compile(fn)
    counts = []
    for arguments in calls:
        flashpoint.reset_counters()
        compiled(*arguments)
        counts.append(flashpoint.counters())
    return counts


def test_a_number_that_is_only_carried_is_not_guarded() -> None:
    def fn(x: torch.Tensor, n: float) -> tuple[object, ...]:
        scaled = n * 2
        return x + 1, scaled, (n, f"{scaled:.2f}")

    x = torch.ones(2)
    first, *rest = counters_of((x, 1.0), (x, 2.0), (x, 3.5), fn=fn)
    assert first["captures_kept"] == 1
    assert all(c["hits"] == 1 and c["captures_started"] == 0 for c in rest)


def test_another_type_is_another_recording() -> None:
    counts = counters_of((torch.ones(2), 1.0), (torch.ones(2), 1), fn=lambda x, n: (x + 1, n * 2))
    assert [c["captures_kept"] for c in counts] == [1, 1]


def test_a_sum_of_items_is_followed() -> None:
    def fn(x: torch.Tensor) -> tuple[torch.Tensor, float]:
        total = 0.0
        for _ in range(4):
            x = x * 1.5
            total += x.sum().item()
        return x, total

    x = torch.ones(3)
    first, *rest = counters_of((x,), (x * 2,), (x * 3,), fn=fn)
    assert first["captures_kept"] == 5 and first["breaks_resumed"] == 4
    assert all(c["resume_hits"] == 4 and c["captures_started"] == 0 for c in rest)


def test_a_number_that_varies_breaks_instead_of_being_recorded_again() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum().item() > 3 else x - 1

    calls = [(torch.full((2,), float(i)),) for i in range(12)]
    counts = counters_of(*calls, fn=fn)
    assert all(c["captures_started"] == 0 and c["resume_hits"] == 1 for c in counts[-6:])
