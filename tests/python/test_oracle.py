"""The oracle itself: it passes a faithful package and fails each of the wrong ones."""

from __future__ import annotations

import pytest
import torch

from tests import fake
from tests.support import Call, Mismatch, check_calls
from tests.world import run

FAITHFUL = fake.Identity()

WRONG = [
    (fake.Stale(), "def fn(x, n): return x * n", ["x, 2", "x, 3"]),
    (fake.Stale(), "def fn(x, n):\n  x.add_(n)\n  return None", ["x, 2", "x, 2"]),
    (fake.Stale(), "def fn(n):\n  raise ValueError(n)", ["1", "2"]),
    (fake.DropsMutations(), "l = []\ndef fn(l): l.append(1)", ["l", "l"]),
    (fake.DropsMutations(), "l = []\ndef fn(l): return l", ["l", "l"]),
    (fake.DropsMutations(), "class A: pass\na = A()\ndef fn(a): a.k = x", ["a", Call("a", pre="a = A()")]),
    (fake.FreezesScalars(), "def fn(x, n): return x + n", ["x, 1", "x, 1", "x, 2"]),
    (fake.FreezesScalars(), "def fn(s): return s + '!'", ["'a'", "'b'"]),
    (fake.ClonesResults(), "def fn(x): return x", ["x", "x"]),
    (fake.ClonesResults(), "def fn(x): return x[0]", ["x", "x"]),
    (fake.DrawsTwice(), "def fn(): return torch.rand(2)", ["", ""]),
    (fake.LosesGradMode(), "def fn(x): return x + 1", ["x", "x"]),
]


@pytest.mark.parametrize("package, source, calls", WRONG, ids=lambda v: getattr(v, "name", None))
def test_a_wrong_package_is_caught(package: fake.Identity, source: str, calls: list) -> None:
    check_calls(source, calls, package=FAITHFUL)
    with pytest.raises(Mismatch):
        check_calls(source, calls, package=package)


@pytest.mark.parametrize(
    "left, right",
    [
        ("1", "True"),
        ("1", "1.0"),
        ("0.0", "-0.0"),
        ("(1,)", "[1]"),
        ("{1: 2}", "{True: 2}"),
        ("[x, x]", "[x, x + 0]"),
        ("x", "x.to(torch.int64)"),
        ("x", "nn.Parameter(x)"),
        ("x", "x.clone().requires_grad_()"),
        ("[1, 2]", "[2, 1]"),
        ("{'a': 1, 'b': 2}", "{'b': 2, 'a': 1}"),
        ("x[0]", "x[0].clone()"),
        ("torch.Size([2])", "(2,)"),
        ("iter([1, 2])", "iter([2])"),
        ("float('nan')", "float('inf')"),
        ("x", "x.reshape(3, 2)"),
        ("np.ones(2)", "np.ones(2, np.float32)"),
        ("itertools.count(1)", "itertools.count(2)"),
        ("(i for i in [1])", "(i for i in [2])"),
        ("x", "x.view(torch.int32).view(torch.float32).neg().neg_()*0 + x + 1"),
    ],
)
def test_descriptions_tell_things_apart(left: str, right: str) -> None:
    source = f"left = lambda: ({left})\nright = lambda: ({right})\ndef fn(k): return left() if k else right()"

    class Swaps(fake.Identity):
        def compile(self, fn, **options):
            return lambda k: fn(not k)

    with pytest.raises(Mismatch):
        check_calls(source, ["True"], package=Swaps())


def test_a_world_leaves_no_mode_behind() -> None:
    """A call that raises does not come to its `post`, so what `pre` entered is put back by the world."""
    source = """
from torch.utils._python_dispatch import TorchDispatchMode
class D(TorchDispatchMode):
  def __torch_dispatch__(self, f, t, a=(), k=None): return f(*a, **(k or {}))
class M(torch.overrides.TorchFunctionMode):
  def __torch_function__(self, f, t, a=(), k=None): return f(*a, **(k or {}))
def fn(x): raise ValueError
"""
    enter = "D().__enter__(); M().__enter__(); torch.set_float32_matmul_precision('high')"
    assert run(source, [Call("x", pre=enter)])[0].raised
    assert torch._C._len_torch_dispatch_stack() == torch._C._len_torch_function_stack() == 0
    assert torch.get_float32_matmul_precision() == "highest"
