"""What a recording keeps of values and of code that no operator shows: numbers, branches and sizes from data,
`.data`, autograd.Function, the constructors of before torch 0.4."""
# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import flashpoint
from tests.support import Call, check_calls


@pytest.fixture(autouse=True)
def value_guards() -> Iterator[None]:
    with flashpoint.config.patch(value_guards=True):
        yield


READS = {
    "truth": "def fn(x): return x + 1 if x.sum() > 0 else x - 1",
    "not": "def fn(x): return x * 2 if not (x >= 0).all() else x * 3",
    "and": "def fn(x): return x * 2 if x.sum() > 0 and x.max() > 0 else x * 3",
    "assert": "def fn(x):\n  assert not torch.isnan(x).any()\n  return x * (2 if x[0, 1] > 0 else 3)",
    "item": "def fn(x): return x * x.sign().sum().item()",
    "item of bool": "def fn(x): return x, (x >= 0).all().item()",
    "int": "def fn(x): return [x, x * 2, x * 3][int((x.sum() > 0).long())]",
    "float": "def fn(x): return x * float(x.sign().sum())",
    "index": "def fn(x): return [x, x * 2][(x.sum() > 0).long()]",
    "range": "def fn(x):\n  for i in range((x > 0).sum()): x = x + i\n  return x",
    "slice": "def fn(x): return x[: (x.sum() > 0).long() + 1] * 2",
    "arange": "def fn(x): return torch.arange((x > 0).sum()) * 2",
    "tolist": "def fn(x): return x * 2, x.sign().tolist()",
    "sizes": "def fn(x):\n  y = x[x > 0]\n  return y * y.shape[0]",
    "numel": "def fn(x): return x * (x > 0).nonzero().numel()",
    "dimensions": "def fn(x):\n  y = (x > 4).nonzero().squeeze()\n  return y + y.dim()",
    "unbind": "def fn(x): return [r * 2 for r in (x > 0).nonzero()]",
    "split": "def fn(x): return torch.split(x.flatten(), [int((x > 0).sum()), int((x <= 0).sum())])",
    "text": "def fn(x): return x, f'{x.sum()} of {x.sign().sum():.1f}'",
    "literal": "def fn(x): return x[0] + torch.tensor([x.sign().sum(), 2.0, x[0, 0]])",
    "operator": "import operator\ndef fn(x): return x * operator.index((x > 0).sum())",
    "random numbers before": "def fn(x):\n  r = torch.rand(2, 3)\n  return r + x if x.sum() > 0 else r - x",
    "random numbers behind": "def fn(x): return torch.rand(2, 3) if x.sum() > 0 else torch.randn(2, 3)",
    "grad mode": "def fn(x):\n  with torch.no_grad():\n    if x.sum() > 0: return x + 1\n    return x - 1",
    "while": "def fn(x):\n  while x.sum() > 0: x = x - 1\n  return x",
}


@pytest.mark.parametrize("backend", ["eager", "native"])
@pytest.mark.parametrize("name", READS)
def test_another_value_is_another_recording(name: str, backend: str) -> None:
    check_calls(READS[name], ["x", "x", "-x", "-x", "x", "-x"], expect="khkhhh", backend=backend)


def test_switched_off_it_is_a_break() -> None:
    with flashpoint.config.patch(value_guards=False):
        outcomes = check_calls(READS["truth"], ["x", "x", "-x"])
    first = outcomes[0].counters
    assert first["breaks_resumed"] + first["captures_dropped"] >= 1


WRITES = {
    "input": "def fn(x):\n  x.add_(1)\n  return x * 2 if x.sum() > 0 else x * 3",
    "view of an input": "def fn(x):\n  x[0].mul_(2)\n  return x * x.sum().item()",
    "buffer": "b = torch.zeros(3)\ndef fn(x):\n  b.add_(x[0])\n  return x if b.sum() > 0 else -x",
    "data": "def fn(x):\n  x.data = x.data + 1\n  return x * 2 if x.sum() > 0 else x * 3",
    "sizes": "def fn(x):\n  x.add_(1)\n  y = x[x > 0]\n  return y * y.shape[0]",
}


@pytest.mark.parametrize("name", WRITES)
def test_after_a_write_it_is_a_break(name: str) -> None:
    """A replay that ends half way must not have changed anything."""
    outcomes = check_calls(WRITES[name], [Call("t", pre=f"t = {v}.clone()") for v in ("x", "x", "-x", "-x")])
    first = outcomes[0].counters
    assert first["breaks_resumed"] + first["captures_dropped"] >= 1


def test_effects_wait_for_the_last_value() -> None:
    check_calls(
        "class S: n = 0\ns, seen = S(), []\ndef fn(x):\n  s.n += 1; seen.append(s.n)\n"
        "  return (x + 1 if x.sum() > 0 else x - 1), s.n, list(seen)",
        ["x", "x", "-x", "-x"],
    )


def test_values_that_keep_changing_wear_out() -> None:
    """Recordings that keep missing go, and so do attempts to make more; the results stay."""

    def fn(x: torch.Tensor) -> torch.Tensor:
        return x * x.sum().item()

    compiled = flashpoint.compile(fn)
    for i in range(40):
        x = torch.full((3,), float(i))
        assert torch.equal(compiled(x), fn(x))
    flashpoint.reset_counters()
    x = torch.full((3,), 99.0)
    assert torch.equal(compiled(x), fn(x))
    counters = flashpoint.counters()
    assert counters["captures_started"] == 0 and counters["unexpected_values"] == 0, counters


def test_two_sides_in_turn_do_not_wear_out() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 0 else x - 1

    compiled = flashpoint.compile(fn)
    for i in range(30):
        x = torch.full((3,), 1.0 if i % 2 else -1.0)
        flashpoint.reset_counters()
        assert torch.equal(compiled(x), fn(x))
        if i >= 2:
            assert flashpoint.counters()["hits"] == 1


@pytest.mark.parametrize("name", READS)
def test_with_breaks_resumed(name: str) -> None:
    with flashpoint.config.patch(resume_breaks=True):
        check_calls(READS[name], ["x", "x", "-x", "-x", "x", "-x"])


_GRAD = dict(pre="t = ({}).clone().requires_grad_()", post="(r.sum().backward(), t.grad)")


def _grad_calls(*values: str, args: str = "t") -> list[Call]:
    return [Call(args, pre=_GRAD["pre"].format(v), post=_GRAD["post"]) for v in values]


_FN = (
    "class Fn(torch.autograd.Function):\n  @staticmethod\n  def forward(ctx, t, k=3):\n"
    "    ctx.k = k\n    ctx.save_for_backward(t)\n    return {body}\n"
    "  @staticmethod\n  def backward(ctx, g):\n    t, = ctx.saved_tensors\n    return g * ctx.k * t, None\n"
)
FUNCTIONS = {
    "plain": _FN.format(body="t * k") + "def fn(t): return Fn.apply(t, 2) + 1",
    "default argument": _FN.format(body="t * k") + "def fn(t): return Fn.apply(t) * 2",
    "branch inside": _FN.format(body="t * k if t.sum() > 0 else t - k")
    + "def fn(t): return Fn.apply(t, 2) + 1",
    "random numbers": _FN.format(body="t * torch.rand(2, 3)")
    + "def fn(t): return Fn.apply(t, 2) * torch.rand(2, 3)",
    "in place on what it made": _FN.format(body="t.clone().mul_(k)")
    + "def fn(t): return Fn.apply(t, 2).sin()",
    "twice": _FN.format(body="t * k") + "def fn(t): return Fn.apply(Fn.apply(t, 2), 3)",
    "of what was made": _FN.format(body="t * k") + "def fn(t): return Fn.apply((t * 2).sin(), 3).cos()",
    "numpy inside": _FN.format(body="torch.from_numpy(t.detach().numpy() * k)")
    + "def fn(t): return Fn.apply(t, 2) + 1",
    "several results": (
        "class Fn(torch.autograd.Function):\n  @staticmethod\n  def forward(ctx, t):\n"
        "    i = t.argmax()\n    ctx.mark_non_differentiable(i)\n    return t * 2, i\n"
        "  @staticmethod\n  def backward(ctx, g, _): return g * 7\n"
        "def fn(t):\n  y, i = Fn.apply(t)\n  return y + i"
    ),
    "setup_context": (
        "class Fn(torch.autograd.Function):\n  @staticmethod\n  def forward(t, k): return t * k\n"
        "  @staticmethod\n  def setup_context(ctx, inputs, output): ctx.k = inputs[1]\n"
        "  @staticmethod\n  def backward(ctx, g): return g * ctx.k * 5, None\n"
        "def fn(t): return Fn.apply(t, 2) + 1"
    ),
    "argument written to": (
        "class Fn(torch.autograd.Function):\n  @staticmethod\n  def forward(ctx, t):\n"
        "    ctx.mark_dirty(t)\n    return t.mul_(2)\n  @staticmethod\n  def backward(ctx, g): return g * 5\n"
        "def fn(t): return Fn.apply(t * 3) + 1"
    ),
    "argument returned": (
        "class Fn(torch.autograd.Function):\n  @staticmethod\n  def forward(ctx, t): return t\n"
        "  @staticmethod\n  def backward(ctx, g): return g * 5\ndef fn(t): return Fn.apply(t * 3) + 1"
    ),
    "writes a global": (
        "seen = []\nclass Fn(torch.autograd.Function):\n  @staticmethod\n  def forward(ctx, t):\n"
        "    seen.append(len(seen))\n    return t * len(seen)\n  @staticmethod\n  def backward(ctx, g): return g * 5\n"
        "def fn(t): return Fn.apply(t) + 1"
    ),
    "reads what was written": (
        "class S: k = 1\nclass Fn(torch.autograd.Function):\n  @staticmethod\n  def forward(ctx, t): return t * s.k\n"
        "  @staticmethod\n  def backward(ctx, g): return g * 5\n"
        "s = S()\ndef fn(t):\n  s.k += 1\n  return Fn.apply(t) + 1"
    ),
}
RECORDED = [name for name in FUNCTIONS if name not in
            ("argument written to", "writes a global", "reads what was written", "numpy inside")]  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_with_gradients(name: str) -> None:
    calls = _grad_calls("x", "x", "-x", "x + 1", "x")
    outcomes = check_calls(FUNCTIONS[name], calls)
    kept = outcomes[0].counters["captures_kept"] == 1
    assert kept == (name in RECORDED)
    if kept:
        assert all(outcome.counters["hits"] == 1 for outcome in outcomes[1:])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_without_gradients(name: str) -> None:
    check_calls(FUNCTIONS[name], ["x.clone()", "x.clone()", "-x", "y", "x.clone()"])


def test_a_function_is_guarded_by_what_it_reads() -> None:
    source = (
        "K = 2\nclass Fn(torch.autograd.Function):\n  @staticmethod\n  def forward(ctx, t): return t * K\n"
        "  @staticmethod\n  def backward(ctx, g): return g * K\ndef fn(t): return Fn.apply(t) + 1"
    )
    calls = _grad_calls("x", "x")
    for k in (3, 3, 2):
        calls.append(Call("t", pre=f"K = {k}; t = x.clone().requires_grad_()", post=_GRAD["post"]))
    check_calls(source, calls)


DATA = {
    "shape": "def fn(t): return t * t.data.shape[0]",
    "value": "def fn(t): return t * t.data.exp()",
    "written": "def fn(t):\n  u = t * 2\n  u.data.mul_(3)\n  return u + 1",
    "written before use": "def fn(t):\n  u = t * 1\n  u.data.clamp_(-1, 1)\n  return u * u",
    "assigned": "def fn(t):\n  u = t * 2\n  u.data = u.data * 3\n  return u * 2",
    "parameter": "w = torch.full((2, 3), 2.0, requires_grad=True)\n"
    "def fn(t):\n  w.data = w.data * 0.9\n  return w * t",
    "parameter in place": "w = torch.full((2, 3), 2.0, requires_grad=True)\n"
    "def fn(t):\n  w.data.mul_(0.9)\n  return w * t",
    "two names": "def fn(t):\n  u = t * 2\n  v = u.data\n  u.data = v + 1\n  v.mul_(5)\n  return u + v",
    "of another size": "def fn(t):\n  u = t.detach() * 2\n  u.data = torch.ones(4)\n  return u + 1, t * 1",
    "variable": "from torch.autograd import Variable\ndef fn(t): return Variable(t.data) + t",
    "variable with its keyword": "from torch.autograd import Variable\n"
    "def fn(t): return t * Variable(t.data, requires_grad=False)",
}


@pytest.mark.parametrize("backend", ["eager", "native"])
@pytest.mark.parametrize("name", DATA)
def test_data(name: str, backend: str) -> None:
    source = DATA[name] if name != "of another size" else DATA[name].replace("t * 1", "None")
    post = _GRAD["post"] if name != "of another size" else ""
    calls = [Call("t", pre=_GRAD["pre"].format(v), post=post) for v in ("x", "x", "y", "-x", "x")]
    outcomes = check_calls(source, calls, backend=backend)
    assert outcomes[0].counters["captures_kept"] == 1
    assert sum(outcome.counters["hits"] for outcome in outcomes) >= 3


LEGACY = {
    "floats": "def fn(x): return x * torch.FloatTensor([1, 2, 3])",
    "longs": "def fn(x): return x[:, torch.LongTensor([2, 0])]",
    "bytes": "def fn(x): return x[:, torch.ByteTensor([1, 0, 1]).bool()]",
    "a list of lists": "def fn(x): return x + torch.Tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])",
    "sizes": "def fn(x): return x + torch.FloatTensor(2, 3).fill_(4)",
    "a size": "def fn(x): return x + torch.Tensor(x.size()).zero_()",
    "written to": "def fn(x):\n  t = torch.Tensor([1, 2, 3])\n  t += x[0]\n  return t",
    "new of sizes": "def fn(x): return x + x.new(x.size(0), 3).fill_(2)",
    "new of data": "def fn(x): return x + x.new([1, 2, 3])",
    "numpy's numbers": "import numpy as np\ndef fn(x): return x / np.sqrt(x.size(1)) + np.float32(2) * np.log(3.0) + int(np.prod(x.shape))",
    "numpy's numbers kept": "import numpy as np\nclass S: pass\ns = S(); s.k = np.sqrt(2.0)\ndef fn(x): return x * s.k",
}


@pytest.mark.parametrize("name", LEGACY)
def test_legacy_constructors(name: str) -> None:
    check_calls(LEGACY[name], ["x", "x", "-x", "x"], expect="khhh")


def test_a_kept_number_of_numpy_is_guarded() -> None:
    source = LEGACY["numpy's numbers kept"]
    check_calls(source, ["x", "x", Call("x", pre="s.k = np.sqrt(3.0)"), "x"], expect="khkh")
    check_calls(source, ["x", "x", Call("x", pre="s.k = np.float32(2)"), "x"], expect="khkh")
