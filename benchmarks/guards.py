"""What guards cost: alone, warm and with cold caches; in a hit; among many entries; and building results.

"guards alone" evaluates the guards of one entry, the state of torch included, and runs nothing; the peer's
figure is that of torch's own profiler of guard trees. Cold: a buffer larger than the caches is written
between evaluations.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import flashpoint
from benchmarks.measure import PEER, Options, counting, interleave, result, steady
from benchmarks.overhead import add, lookup
from flashpoint import code_state

EVICTION = torch.zeros(1 << 24)  # 64 MiB
Case = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


@dataclass
class Settings:
    scale: float
    names: list[str]


def nested(
    x: torch.Tensor,
    y: torch.Tensor,
    weights: dict[str, torch.Tensor],
    pair: tuple[torch.Tensor, tuple[int, float]],
    layers: list[dict[str, Any]],
    settings: Settings,
    flag: bool,
    mode: str = "sum",
) -> torch.Tensor:
    """Eight arguments, most of them containers of containers."""
    z = x @ weights["w"] + weights["b"]
    for layer in layers:
        z = z * layer["scale"] + layer["shift"]
    z = z * settings.scale + len(settings.names)
    if flag and mode == "sum":
        z = z + y.sum()
    return z + pair[0] * pair[1][0] + pair[1][1]


def nested_case() -> Case:
    x = torch.ones(4, 4)
    layers = [{"scale": x, "shift": x}, {"scale": x + 1, "shift": x}]
    weights = {"w": torch.ones(4, 4), "b": torch.ones(4)}
    arguments = (x, x + 2, weights, (x + 3, (2, 0.5)), layers, Settings(0.5, ["a", "b"]), True, "sum")
    return nested, arguments, {}


def linears() -> Case:
    return nn.Sequential(*(nn.Linear(8, 8) for _ in range(300))).eval(), (torch.ones(1, 8),), {}


def hugging(model: str, config: str, **sizes: Any) -> Callable[[], Case]:
    """As deep as the published ones, but narrow: guards know no widths."""

    def make() -> Case:
        import transformers

        built = getattr(transformers, model)(getattr(transformers, config)(vocab_size=128, **sizes)).eval()
        return built, (), {"input_ids": torch.randint(0, 100, (1, 8)), "use_cache": False}

    return make


CASES: dict[str, Callable[[], Case]] = {
    "8 arguments, nested containers": nested_case,
    "300 Linear modules": linears,
    "bert-base": hugging("BertModel", "BertConfig", hidden_size=48, intermediate_size=64),
    "gpt2": hugging("GPT2LMHeadModel", "GPT2Config", n_embd=48),
    "llama, 16 layers": hugging(
        "LlamaForCausalLM",
        "LlamaConfig",
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=16,
        num_attention_heads=4,
    ),
}


def peers_guards(case: Case) -> Callable[[], float] | None:
    """Seconds of one evaluation of torch.compile's guards; None where the last call made no single entry."""
    from torch._C._dynamo.eval_frame import _debug_get_cache_entry_list
    from torch._C._dynamo.guards import profile_guard_manager

    target, args, kwargs = case
    torch._dynamo.reset()
    compiled = torch.compile(target, backend="eager")
    for _ in range(2):
        compiled(*args, **kwargs)
    function = type(target).forward if isinstance(target, nn.Module) else target
    function = getattr(function, "__wrapped__", function)
    found = _debug_get_cache_entry_list(function.__code__)
    if len(found) != 1:
        return None
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    first = (target, *args) if isinstance(target, nn.Module) else args
    scope = {name: None for name in names} | dict(zip(names, first, strict=False)) | kwargs
    root = found[0].guard_manager.root
    return lambda: profile_guard_manager(root, scope, 100) * 1e-6


def alone(name: str, options: Options) -> Iterator[dict[str, Any]]:
    case = target, args, kwargs = CASES[name]()
    compiled = flashpoint.compile(target, backend="eager")
    with torch.no_grad():
        for _ in range(3):
            compiled(*args, **kwargs)
        (entry, *_) = code_state.entries_of(compiled)
        first = (target, *args) if isinstance(target, nn.Module) else args

        def guards(times: int) -> float:
            return code_state.time_guards(entry, *first, times=times, **kwargs)

        guards(10)
        times: dict[str, list[float]] = {"warm": [], "cold": []}
        peer = peers_guards(case) if options.torch_compile else None
        for _ in range(options.rounds(40)):
            times["warm"].append(guards(100))
            if peer is not None:
                times.setdefault(PEER, []).append(peer())
            EVICTION.add_(1)
            times["cold"].append(guards(1))
    yield result("guards alone", name, times, unit="us", guards=len(entry.guards))


def results(options: Options) -> Iterator[dict[str, Any]]:
    """What a result takes to build: a hit that makes it over one that returns a tensor of the same graph."""
    from transformers import DynamicCache
    from transformers.modeling_outputs import BaseModelOutputWithPast

    x = torch.ones(2, 2, 2, 2)

    def bare(x: torch.Tensor) -> Any:
        return x + 1

    def output(x: torch.Tensor) -> Any:
        return BaseModelOutputWithPast(last_hidden_state=x + 1)

    def nest(x: torch.Tensor) -> Any:
        y = x + 1
        return {"a": [y, (y, 1)], "b": {"c": y, "d": [1, 2, 3]}}

    def cache(x: torch.Tensor) -> Any:
        made, y = DynamicCache(), x + 1
        for layer in range(12):
            made.update(y, y, layer)
        return made

    for make in (output, nest, cache):
        compiled = {
            "bare": flashpoint.compile(bare, backend="eager"),
            "flashpoint": flashpoint.compile(make, backend="eager"),
        }
        for function in compiled.values():
            for _ in range(3):
                function(x)
        calls = {"eager": lambda f=make: f(x)} | {n: lambda f=f: f(x) for n, f in compiled.items()}
        gained: dict[str, int] = {}
        repeat = 200
        with counting(gained):
            times = interleave(calls, options.rounds(40), repeat)
        built = statistics.median(a - b for a, b in zip(times["flashpoint"], times["bare"], strict=True))
        counts = {"calls": len(compiled) * repeat * len(times["flashpoint"]), "hits": gained["hits"]}
        yield result("results", make.__name__, times, unit="us", built_in=round(built * 1e6, 3), **counts)


def run(options: Options) -> Iterator[dict[str, Any]]:
    small = torch.ones(8), torch.ones(8)
    yield steady("hit overhead", "a + b", add, small, options, rounds=60, repeat=2000)
    for name in list(CASES)[:2] if options.quick else CASES:
        flashpoint.reset()
        yield from alone(name, options)
    for count in (64, 200):
        yield lookup(count, options)
    with torch.no_grad():
        yield from results(options)
