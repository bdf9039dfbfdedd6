"""Calls of modules that have no hooks: one guard stands for the way from __call__ to forward().

What that way would have met is changed between calls, and inside of them; eager mode is the oracle.
"""

from __future__ import annotations

import pytest
import torch

import flashpoint
from tests.support import Call, check_calls

_M = """class M(nn.Module):
  def __init__(self):
    super().__init__()
    self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
  def forward(self, x): return self.b(torch.relu(self.a(x)))
torch.manual_seed(0)
m = M()
def fn(x): return m(x)
"""

# What happens between a recorded call and the next, and what takes it back.
CHANGES = {
    "forward hook": ("h = m.b.register_forward_hook(lambda mod, a, o: o * 2)", "h.remove()"),
    "forward pre-hook": ("h = m.a.register_forward_pre_hook(lambda mod, a: (a[0] + 1,))", "h.remove()"),
    "full backward hook": ("h = m.a.register_full_backward_hook(lambda *a: None)", "h.remove()"),
    "global hook": (
        "h = nn.modules.module.register_module_forward_hook(lambda mod, a, o: o + 1)",
        "h.remove()",
    ),
    "hook dict replaced": (
        "m.a._forward_hooks = collections.OrderedDict({1: lambda mod, a, o: o * 3})",
        "m.a._forward_hooks = collections.OrderedDict()",
    ),
    "plain hook dict": ("m.a._forward_hooks = {1: lambda mod, a, o: o * 3}", "m.a._forward_hooks = {}"),
    "own forward": ("m.a.forward = lambda x: x - 1", "del m.a.forward"),
    "own _call_impl": ("m.a._call_impl = lambda x: x - 1", "del m.a._call_impl"),
    "compiled call": ("m.a._compiled_call_impl = lambda x: x - 1", "m.a._compiled_call_impl = None"),
    "class forward": ("keep = M.forward; M.forward = lambda self, x: self.a(x)", "M.forward = keep"),
    "class _call_impl": (
        "M._call_impl = lambda self, *a, **k: self.forward(*a, **k) * 5",
        "del M._call_impl",
    ),
    "class __call__": ("M.__call__ = lambda self, x: self.forward(x) * 7", "del M.__call__"),
    "class hook attribute": (
        "M._forward_hooks = property(lambda self: {1: lambda mod, a, o: o * 11})",
        "del M._forward_hooks",
    ),
    "submodule replaced": ("keep = m.a; m.a = nn.Identity()", "m.a = keep"),
    "other class": ("m.a.__class__ = nn.Identity", "m.a.__class__ = nn.Linear"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_between_calls(name: str) -> None:
    change, back = CHANGES[name]
    calls = [Call("x", expect="k"), Call("x", expect="h"), Call("y", change, expect="m"), "y"]
    check_calls(_M, [*calls, Call("x", back), "x", Call("y", change), Call("x", back)])


# Programs that change the way themselves.
PROGRAMS = {
    "hook before the call": "def fn(x):\n  h = m.a.register_forward_hook(lambda mod, a, o: o * 2)\n"
    "  r = m(x)\n  h.remove()\n  return r, m(x)\n",
    "hook between calls": "def fn(x):\n  r = m(x)\n  h = m.a.register_forward_hook(lambda mod, a, o: o * 2)\n"
    "  s = m(x)\n  h.remove()\n  return r, s\n",
    "hook that stays": "def fn(x):\n  r = m(x)\n  if not m.a._forward_hooks:\n"
    "    m.a._forward_hooks[1] = lambda mod, a, o: o * 2\n  return r, m(x)\n",
    "hook from a hook": "def fn(x):\n  if not m.a._forward_pre_hooks:\n"
    "    m.a._forward_pre_hooks[1] = lambda mod, a: mod._forward_hooks.clear()\n"
    "  m.a._forward_hooks[2] = lambda mod, a, o: o * 2\n  return m(x), len(m.a._forward_hooks)\n",
    "shared hook dict": "d = collections.OrderedDict()\ndef fn(x):\n  r = m(x)\n"
    "  d[1] = lambda mod, a, o: o * 2\n  s = m(x)\n  d.clear()\n  return r, s\n",
    "own forward for a while": "def fn(x):\n  r = m(x)\n  m.a.forward = lambda x: x - 1\n  s = m(x)\n"
    "  del m.a.forward\n  return r, s, m(x)\n",
    "state beside it": "m.n = 0\nm.register_buffer('k', torch.zeros(()))\n"
    "def forward(self, x):\n  self.n += 1\n  self.k += 1\n  return self.b(self.a(x)) * self.n\n"
    "M.forward = forward\ndef fn(x): return m(x) + m(x)\n",
    "keywords": "M.forward = lambda self, x, *r, k=1, **o: self.a(x) * k + len(r) + o.get('z', 0)\n"
    "def fn(x): return m(x), m(x, 1, 2), m(x, k=3), m(x, z=4, k=2), m(x=x)\n",
    "numbers": "M.forward = lambda self, x, k: self.a(x) * k\n"
    "def fn(x): return m(x, m.a.in_features) + m(x, 2.5)\n",
    "frames": "def forward(self, x):\n  f, names = sys._getframe(), []\n"
    "  while f is not None and f.f_code.co_name != 'fn': names.append(f.f_code.co_name); f = f.f_back\n"
    "  return self.a(x), names\nM.forward = forward\n",
    "error": "def forward(self, x):\n  y = self.a(x)\n  raise ValueError(x.shape[0])\nM.forward = forward\n"
    "def fn(x):\n  try: m(x)\n  except ValueError as e:\n"
    "    t, lines = e.__traceback__, []\n"
    "    while t is not None: lines.append((t.tb_frame.f_code.co_name, t.tb_lineno)); t = t.tb_next\n"
    "    return lines, str(e)\n",
    "break inside": "def forward(self, x):\n  y = self.a(x)\n  print(float(y.sum()) > 0)\n"
    "  return self.b(y)\nM.forward = forward\n",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program(name: str) -> None:
    check_calls(_M + PROGRAMS[name], ["x", "x", "y", "x", "y"])


def test_a_hook_dict_becomes_a_shared_one() -> None:
    source = _M + (
        "d = collections.OrderedDict()\n"
        "def fn(x):\n  d[1] = lambda mod, a, o: o * 2\n  r = m(x)\n  d.clear()\n  return r\n"
    )
    share = "m.a._forward_hooks = d"
    check_calls(source, ["x", "x", Call("x", share), "y", Call("x", "m.a._forward_hooks = type(d)()"), "y"])


def test_one_guard_per_module() -> None:
    model = torch.nn.Sequential(*[torch.nn.Linear(3, 3) for _ in range(5)])
    text = flashpoint.explain(model)(torch.ones(2, 3)).entries[0].guards
    lines = str(text).splitlines() if isinstance(text, str) else [str(line) for line in text]
    assert sum("calls its class's forward" in line for line in lines) == 6
    # Beside it only what the class does not have.
    hooks = [line for line in lines if "_forward_hooks" in line and "_global" not in line]
    assert all("no class attribute" in line for line in hooks)
