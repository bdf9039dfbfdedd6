"""Torch's higher-order operators: their bodies are recorded, a choice by data is a branch of the trace tree."""
# fmt: off

from tests.python.torch_calls.entry import Entry

HIGHER_ORDER = [
    Entry("cond", "torch.cond", "def fn(x): return torch.cond(x.shape[0] > 1, lambda t: t.sin(), lambda t: t.cos(), (x,))", expect="khHH"),
    Entry("cond by data", "torch.cond", "def fn(x): return torch.cond(x.sum() > 0, lambda t: t.sin(), lambda t: t.cos(), (x,)) + 1", "x", "x", "-x", "-x", rule="each side has a recording of its own behind a break", expect="kh.h"),
    Entry("while_loop", "torch.while_loop", "from torch._higher_order_ops.while_loop import while_loop\ndef fn(x): return while_loop(lambda i, t: i < 2, lambda i, t: (i + 1, t * 2), (torch.tensor(0), x))", "x", "x", "x", rule="each question whether to go on is a break", expect="kh."),
    Entry("map", "torch._higher_order_ops.map", "from torch._higher_order_ops.map import map\ndef fn(x): return map(lambda row: row.sin() * 2, x)", expect="khHH"),
    Entry("scan", "torch._higher_order_ops.scan", "from torch._higher_order_ops.scan import scan\ndef fn(x): return scan(lambda c, r: (c + r, c * r), x[0] * 0, x)", expect="khHH"),
    Entry("associative_scan", "torch._higher_order_ops.associative_scan", "from torch._higher_order_ops.associative_scan import associative_scan\ndef fn(x): return associative_scan(lambda a, b: a + b, x, dim=0, combine_mode='generic')", "x", "x", "x", rule="recorded below autograd at the second call", expect=".kh"),
    Entry("checkpoint", "torch.utils.checkpoint.checkpoint", "from torch.utils.checkpoint import checkpoint\ndef fn(x): return checkpoint(torch.sin, x, use_reentrant=False) + 1", rule="a break around it"),
]  # fmt: skip

SECTIONS = {"higher order": HIGHER_ORDER}
