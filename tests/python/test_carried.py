"""Objects of which only the type can be guarded: carried from break to break, never looked into."""

from __future__ import annotations

import pytest

from tests.support import check_calls

PRELUDE = "import io, sys, threading, decimal\nimport numpy as np\nclass T(torch.Tensor): pass\nclass I(int): pass\n"

# name -> program, arguments of three calls, whether the third one replays only
PROGRAMS = {
    "a stream": (
        "def fn(x):\n  y = x * 2\n  sys.stderr.flush()\n  return y + 1",
        ("x", "x * 2", "x * 3"),
        True,
    ),
    "numpy": (
        "def fn(x):\n  a = (x * 2).numpy()\n  b = a + 1\n  c = np.sin(b)\n  return torch.from_numpy(c) * x, float(c.sum())",
        ("x", "x * 2", "x * 3"),
        True,
    ),
    "an array that is handed back": (
        "def fn(x, a):\n  return x * 2, a",
        ("x, np.ones(3)", "x, np.zeros(3)", "x, np.ones(2)"),
        True,
    ),
    "an array in a list": (
        "def fn(x, a):\n  l = [a, x * 2]\n  return l[1] + 1, l[0].sum()",
        ("x, np.ones(3)", "x, np.zeros(3)", "x, np.ones(2)"),
        True,
    ),
    "an array in a tuple": (
        "def both(a, b): return b + 1, a\ndef fn(x, a):\n  t = (a, x * 2)\n  return both(*t), both(*t)[1].sum()",
        ("x, np.ones(3)", "x, np.zeros(3)", "x, np.ones(2)"),
        True,
    ),
    "an array in a tensor operation": (
        "def fn(x, a):\n  return x + 1, x[a], torch.tensor(a), torch.stack([x[0], torch.as_tensor(a[0]) + x[0]])",
        ("x, np.array([0])", "x, np.array([1])", "x, np.array([0, 1])"),
        True,
    ),
    "a sparse tensor": (
        "def fn(x, s):\n  y = x * 2\n  z = torch.mm(s, x)\n  return y + z, [s.to_dense()]",
        ("x, torch.eye(2).to_sparse()", "x * 2, (torch.eye(2) * 3).to_sparse()", "x, torch.eye(2).to_sparse()"),
        True,
    ),
    "a tensor subclass": (
        "def fn(x, s):\n  y = x * 2\n  z = s + y\n  return y * 3, z.sum().item()",
        ("x, x.as_subclass(T)", "x, (x + 1).as_subclass(T)", "x, x.as_subclass(T)"),
        True,
    ),
    "a number of a class of its own": (
        "def fn(x, n):\n  y = x * 2\n  return y + n, n",
        ("x, I(2)", "x, I(3)", "x, I(4)"),
        True,
    ),
    "a text stream": (
        "def fn(x, s):\n  y = x * 2\n  l = [s, y]\n  return l[0].getvalue(), y + 1",
        ("x, io.StringIO('a')", "x, io.StringIO('b')", "x, io.StringIO('c')"),
        True,
    ),
    "passed on": (
        "def g(s, y): return h(y, s=s)\ndef h(y, *, s): return y + 1, s\ndef fn(x, s):\n  y, s = g(s, x)\n  return y * 2, s.read()",
        ("x, io.StringIO('a')", "x, io.StringIO('b')", "x, io.StringIO('c')"),
        True,
    ),
    "passed on with a star": (
        "def g(*s, **k): return s[0].read(), k['s'].read()\ndef fn(x, s): return x * 2, g(s, s=s)",
        ("x, io.StringIO('a')", "x, io.StringIO('b')", "x, io.StringIO('c')"),
        False,
    ),
    "beside a number in a tuple": (
        "def fn(x, a):\n  t = (a, 3, x)\n  b, n, y = t\n  return y * n, [b, n], y + 1",
        ("x, np.ones(3)", "x, np.zeros(3)", "x, np.ones(2)"),
        True,
    ),
    "told from None": (
        "def fn(x, s=None):\n  if s is not None: return x * 2, s\n  return x",
        ("x, np.ones(1)", "x", "x, np.zeros(1)"),
        True,
    ),
    "its truth": (
        "def fn(x, d): return (x + 1 if d else x - 1), d + 1",
        ("x, decimal.Decimal(0)", "x, decimal.Decimal(1)", "x, decimal.Decimal(0)"),
        False,
    ),
    "stored": (
        "class B: pass\nb = B()\ndef fn(x, a):\n  b.a = a\n  return x + 1, b.a.sum()",
        ("x, np.ones(3)", "x, np.zeros(3)", "x, np.ones(2)"),
        False,
    ),
    "formatted": (
        "def fn(x, a): return x + 1, f'{a}', str(a), '%s' % a",
        ("x, np.ones(3)", "x, np.zeros(3)", "x, np.ones(2)"),
        False,
    ),
    "in a closure": (
        "def fn(x, a):\n  def g(): return a.sum()\n  return x + 1, g()",
        ("x, np.ones(3)", "x, np.zeros(3)", "x, np.ones(2)"),
        False,
    ),
    "iterated": (
        "def fn(x, a):\n  r = x\n  for v in a: r = r + float(v)\n  return r, sum(a), list(a), [*a]",
        ("x, np.ones(3)", "x, np.zeros(3)", "x, np.ones(2)"),
        False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_carried(name: str) -> None:
    source, calls, replays = PROGRAMS[name]
    outcomes = check_calls(PRELUDE + source, list(calls) * 2)
    assert outcomes[0].counters["captures_started"] >= 1
    if replays:
        last = outcomes[-1].counters
        assert last["captures_started"] == 0 and last["hits"] == 1 and last["eager_calls"] == 0, last
