"""Generated kernels: what backend="native" makes of common pieces of models, and how long making it takes.

Sizes are such that the kernel is most of a call. With --torch-compile the peer is inductor.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import flashpoint
from benchmarks.measure import PEER, Options, add_ratios, counting, interleave, result


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def chain(x: Tensor, y: Tensor) -> Tensor:
    for i in range(10):
        x = torch.relu(x * 0.9 + y) - y * i
    return x


def norm(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    x = x + y
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * w


def norm_over_channels(x: Tensor) -> Tensor:
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    return (x - mean) * torch.rsqrt(variance + 1e-6)


def masked_mean(x: Tensor, m: Tensor) -> Tensor:
    return (x * m.unsqueeze(-1)).sum(1) / m.sum(1, keepdim=True)


def cases() -> dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]]:
    x, y = torch.randn(512, 768), torch.randn(512, 768)
    w, b = torch.randn(768), torch.randn(768)
    wide, bias = torch.randn(512, 3072), torch.randn(3072)
    scores, mask = torch.randn(1, 12, 256, 256), torch.rand(256, 256) > 0.2
    heads, cos, sin = torch.randn(1, 12, 512, 64), torch.randn(512, 64), torch.randn(512, 64)
    big = torch.randn(4 << 20), torch.randn(4 << 20)
    image = torch.randn(1, 64, 112, 112)
    stats = torch.randn(64), torch.rand(64) + 0.5, torch.randn(64), torch.randn(64)
    return {
        "bias, gelu": (lambda x, b: F.gelu(x + b), (wide, bias)),
        "gelu, tanh": (lambda x, b: F.gelu(x + b, approximate="tanh"), (wide, bias)),
        "add, layer_norm": (lambda x, y, w, b: F.layer_norm(x + y, (768,), w, b), (x, y, w, b)),
        "add, rms norm": (norm, (x, y, w)),
        "masked softmax": (
            lambda s, m: torch.softmax((s * 0.125).masked_fill(m, -torch.inf), -1),
            (scores, mask),
        ),
        "swiglu": (lambda a, b: F.silu(a) * b, (wide, torch.randn(512, 3072))),
        "rotary": (rotary, (heads, cos, sin)),
        "chain of 40": (chain, (wide, torch.randn(512, 3072))),
        "batch_norm, relu": (lambda x, m, v, w, b: F.relu(F.batch_norm(x, m, v, w, b)), (image, *stats)),
        "group_norm, silu": (lambda x, w, b: F.silu(F.group_norm(x, 8, w, b)), (image, w[:64], b[:64])),
        "norm over channels": (norm_over_channels, (image,)),
        "scale, sum over rows": (lambda x, y: (x * y).sum(0), (x, y)),
        "masked mean": (masked_mean, (torch.randn(8, 128, 768), torch.rand(8, 128).round())),
        "softmax": (lambda x: torch.softmax(x * 2, -1), (scores,)),
        "cross entropy": (F.cross_entropy, (torch.randn(512, 8192), torch.randint(0, 8192, (512,)))),
        "16M elements": (lambda x, y: torch.relu(x * 1.5 + y), (torch.randn(1 << 24), torch.randn(1 << 24))),
        "4M elements": (lambda x, y: torch.relu(x * 1.5 + y), big),
    }


def run(options: Options) -> Iterator[dict[str, Any]]:
    ratios: dict[str, list[float]] = {"flashpoint": [], PEER: []}
    for name, (fn, inputs) in cases().items():
        flashpoint.reset()
        native = flashpoint.compile(fn, backend="native")
        calls = {"eager": lambda f=fn, a=inputs: f(*a), "flashpoint": lambda f=native, a=inputs: f(*a)}
        made: dict[str, float] = {}
        with torch.no_grad():
            native(*inputs)
            start = time.perf_counter()
            native(*inputs)
            made["flashpoint"] = round(1e3 * (time.perf_counter() - start), 2)
            if options.torch_compile:
                torch._dynamo.reset()
                peer = torch.compile(fn)
                start = time.perf_counter()
                peer(*inputs)
                made[PEER] = round(1e3 * (time.perf_counter() - start), 2)
                calls[PEER] = lambda f=peer, a=inputs: f(*a)
            gained: dict[str, int] = {}
            with counting(gained):
                times = interleave(calls, options.rounds(40), 3)
        add_ratios(ratios, times)
        yield result(
            "kernels",
            name,
            times,
            unit="us",
            compile_ms=made,
            kernels_run=gained["kernels_run"],
            hits=gained["hits"],
            calls=3 * len(times["flashpoint"]),
        )
    means = {k: round(statistics.geometric_mean(v), 3) for k, v in ratios.items() if v}
    line: dict[str, Any] = {"benchmark": "kernels", "case": "geometric mean over eager", **means}
    if options.torch_compile:
        line["flashpoint_over_peer"] = round(means["flashpoint"] / means[PEER], 3)
    yield line
