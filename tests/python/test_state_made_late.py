"""What comes into being when it is first asked for (an instance's dict, an operator of torch.ops), what belongs to
the running thread, and objects named by their address."""
# ruff: noqa: E501

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

import flashpoint
from tests.support import Call, check_calls

TRACK = """
def fn(o):
  if "seen" not in o.__dict__: o.__dict__["seen"] = []
  o.__dict__["seen"].append(1)
  return len(o.__dict__["seen"]), sorted(o.__dict__)
"""
# Instances that C code gives a dict when something needs it.
HOLDERS = {
    "mapping": "from collections import OrderedDict\nclass C(OrderedDict): pass\nmake = C",
    "dict": "class C(dict): pass\nmake = C",
    "list": "class C(list): pass\nmake = C",
    "tuple": "class C(tuple): pass\nmake = C",
    "number": "class C(int): pass\nmake = C",
    "exception": "make = ValueError",
    "function": "def make():\n  def f(): pass\n  return f",
    "instance": "class C: pass\nmake = C",
    "module": "import torch\nmake = torch.nn.Identity",
}


@pytest.mark.parametrize("kind", HOLDERS)
def test_a_dict_taken_whole(kind: str) -> None:
    source = HOLDERS[kind] + TRACK
    check_calls(source, [Call("o", pre="o = make()"), "o", "o", Call("o", pre="o = make()"), "o"])


@pytest.mark.parametrize("kind", HOLDERS)
def test_the_first_attribute(kind: str) -> None:
    source = HOLDERS[kind] + "\ndef fn(o, x):\n  o.note = x + 1\n  return o.note * 2, vars(o)"
    check_calls(source, [Call("o, x", pre="o = make()") for _ in range(4)])


def test_a_dict_that_lacked_a_name_is_written() -> None:
    source = """
class C(dict): pass
def fn(o):
  if not hasattr(o, "cache"): o.__dict__["cache"] = {}
  o.cache["key"] = 1
  return o.__dict__
"""
    check_calls(source, [Call("o", pre="o = C()") for _ in range(3)], expect="khh")


def test_an_operator_bound_by_the_recorded_call() -> None:
    with torch.library._scoped_library("flashpoint_late", "FRAGMENT") as library:
        library.define("double(Tensor x) -> Tensor")
        library.impl("double", lambda x: x * 2, "CompositeExplicitAutograd")

        @flashpoint.compile(fullgraph=True, backend="eager")
        def fn(x: Tensor) -> Tensor:
            return torch.ops.flashpoint_late.double.default(x) + 1

        before = flashpoint.counters()["hits"]
        for value in (1.0, 2.0, 3.0):
            assert fn(torch.tensor(value)).item() == 2 * value + 1
        assert flashpoint.counters()["hits"] == before + 2


def test_a_missing_operator_raises_as_in_eager() -> None:
    def fn(x: Tensor) -> Tensor:
        return torch.ops.flashpoint_late.is_not_there(x)

    with pytest.raises(AttributeError, match="is_not_there"):
        flashpoint.compile(fn, backend="eager")(torch.ones(2))


def test_each_thread_has_its_own_attributes() -> None:
    local = threading.local()
    local.scale = 2.0
    local.shift = torch.ones(2)

    def fn(x: Tensor) -> Tensor | None:
        return x * local.scale + local.shift if hasattr(local, "scale") else None

    compiled = flashpoint.compile(fn, fullgraph=True, backend="eager")
    x = torch.ones(2)
    before = flashpoint.counters()["hits"]
    for _ in range(2):
        assert torch.equal(compiled(x), fn(x))
    assert flashpoint.counters()["hits"] == before + 1
    local.scale = 3.0
    assert torch.equal(compiled(x), fn(x))
    others: list[object] = []

    def elsewhere() -> None:
        others.append(compiled(x))
        local.scale, local.shift = 5.0, torch.zeros(2)
        others.append(compiled(x))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert others[0] is None
    assert torch.equal(others[1], x * 5)
    del local.scale
    assert compiled(x) is None


@pytest.mark.parametrize("change", ["local.note = x", "local.note = 1; del local.note", "local.count += 1"])
def test_what_a_thread_writes(change: str) -> None:
    source = f"""
import threading
local = threading.local()
local.count = 0
def fn(x):
  {change}
  return x + 1, dict(local.__dict__)
"""
    check_calls(source, ["x", "y", "x", "y"])
    source = source.replace(", dict(local.__dict__)", "")
    check_calls(source, ["x", Call("x", post="vars(local)"), Call("y", post="vars(local)")], expect="k.h")


ADDRESSES = {
    "global": "d = {'a': 1}\ndef fn(x):\n  seen = {id(d): 1}\n  return x + 1 if id(d) in seen else x",
    "class": "class A: pass\nclass B: pass\ndef fn(x, c): return x + 1 if id(c) == id(A) else x - 1",
    "function": "def A(): pass\ndef B(): pass\ndef fn(x, c): return x + 1 if id(c) == id(A) else x - 1",
}


def test_the_address_of_what_stays() -> None:
    check_calls(ADDRESSES["global"], ["x", "x", Call("x", pre="d = {'a': 1}"), "x"], expect="khkh")


@pytest.mark.parametrize("kind", ["class", "function"])
def test_the_address_of_an_argument_that_names_code(kind: str) -> None:
    check_calls(ADDRESSES[kind], ["x, A", "x, A", "x, B", "x, B", "x, A"], expect="khkhh")


def test_the_address_of_a_fresh_object_is_a_break() -> None:
    def fn(x: Tensor) -> bool:
        made = [x + 1]
        return id(made) == id(made)

    with pytest.raises(RuntimeError, match="identity"):
        flashpoint.compile(fn, fullgraph=True, backend="eager")(torch.ones(2))


def test_a_number_of_a_base_class() -> None:
    source = """
class A:
  scale = 4
class B(A):
  def fn(self, x): return x * super().scale
fn = B().fn
"""
    check_calls(source, ["x", "x", Call("x", pre="A.scale = 5"), "x"], expect="khkh")


def test_functions_with_attributes_leave() -> None:
    source = """
import functools
def fn(x):
  y = x.cos()
  def named(): return y
  @functools.wraps(named)
  def wrapper(): return named() + 1
  wrapper.count = 3
  return wrapper(), wrapper.__name__, wrapper.__wrapped__(), wrapper
"""
    for outcome in check_calls(source, ["x", "x", "-x"], expect="khh"):
        assert outcome


FILTERS = {
    "caught": "def fn(x):\n  with warnings.catch_warnings():\n    warnings.simplefilter('ignore')\n    y = x.sin()\n  return y, warnings.filters",
    "recorded": "def fn(x):\n  with warnings.catch_warnings(record=True) as log: y = x.sin()\n  return y, log, warnings.filters",
    "added": "def fn(x):\n  warnings.filterwarnings('ignore', 'nothing')\n  return x + 1, list(warnings.filters)",
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters_of_warnings(name: str) -> None:
    check_calls("import warnings\n" + FILTERS[name], ["x", "x", "x"])


def test_a_change_of_the_filters_lets_warnings_show_again() -> None:
    source = """
import warnings
def warn(): warnings.warn("again", stacklevel=1)
def fn(x):
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    y = x + 1
  return y
def count():
  with warnings.catch_warnings(record=True) as log:
    pass
"""
    check_calls(source, ["x", "x", Call("x", pre="warn()"), Call("x", pre="warn()")], expect="khhh")


@pytest.mark.parametrize(
    "made", ["iter([1, 2, x])", "iter((1, 2))", "iter(range(1, 3))", "iter([])", "enumerate([x, x])"]
)
def test_next_of_an_iterator_of_the_caller(made: str) -> None:
    source = "def fn(x, it):\n  a = next(it, None)\n  b = next(it, 5)\n  return x + 1, a, b, it"
    check_calls(source, [Call("x, it", pre=f"it = {made}", post="list(it)") for _ in range(4)], expect="khhh")


def test_sets_are_copied() -> None:
    source = "import copy\nd = {'s': {1, 2, 3}, 'l': [1.0]}\ndef fn(x):\n  c = copy.deepcopy(d)\n  c['s'].add(4)\n  return x * len(c['s']), c, d"
    check_calls(source, ["x", "x", Call("x", pre="d['s'].add(9)"), "x"])


NAMESPACE = """
from types import SimpleNamespace
class Config(SimpleNamespace): pass
def fn(x, old):
  old.last = x + 1
  return SimpleNamespace(value=x * 2, of=Config(n=len(vars(old)), old=old)), vars(old)
"""


def test_namespaces_made_in_the_call() -> None:
    fresh = Call("x, old", pre="x, old = torch.rand(2), SimpleNamespace(a=1)")
    check_calls(NAMESPACE, [fresh, "x, old", "x, old", fresh, "x, old"])


# The object beside the dict of its attributes.
BESIDE = {
    "instance": "class C: pass\ndef fn(x):\n  o = C()\n  o.v = x + 1\n  return o, o.__dict__",
    "function": "def fn(x):\n  def f(): pass\n  f.v = x + 1\n  return f, f.__dict__",
    "namespace": "from types import SimpleNamespace\ndef fn(x):\n  o = SimpleNamespace(v=x)\n  return o, vars(o)",
}


@pytest.mark.parametrize("kind", BESIDE)
def test_an_object_beside_its_dict(kind: str) -> None:
    """What is changed in the dict is changed in the object, at every call."""
    scope: dict = {}
    exec(BESIDE[kind], scope)
    compiled = flashpoint.compile(scope["fn"])
    for n in range(4):
        made, attributes = compiled(torch.ones(2) * n)
        assert attributes is made.__dict__
        attributes["more"] = n
        assert made.more == n
        assert torch.equal(made.v, torch.ones(2) * n + (kind != "namespace"))
