"""Updates of parameters, and whole training steps, with backend="native": each is one graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import flashpoint
from benchmarks.measure import Options, counting, interleave, result

Update = Callable[[list[Tensor], list[Tensor], list[Tensor], list[Tensor], float], None]


def adamw(ps: list[Tensor], gs: list[Tensor], ms: list[Tensor], vs: list[Tensor], lr: float) -> None:
    for p, g, m, v in zip(ps, gs, ms, vs, strict=True):
        p.mul_(1 - lr * 0.01)
        m.lerp_(g, 0.1)
        v.mul_(0.999).addcmul_(g, g, value=0.001)
        p.addcdiv_(m, (v.sqrt() / 0.6).add_(1e-8), value=-lr)


def adamw_on_lists(ps: list[Tensor], gs: list[Tensor], ms: list[Tensor], vs: list[Tensor], lr: float) -> None:
    torch._foreach_mul_(ps, 1 - lr * 0.01)
    torch._foreach_lerp_(ms, gs, 0.1)
    torch._foreach_mul_(vs, 0.999)
    torch._foreach_addcmul_(vs, gs, gs, 0.001)
    roots = torch._foreach_sqrt(vs)
    torch._foreach_div_(roots, 0.6)
    torch._foreach_add_(roots, 1e-8)
    torch._foreach_addcdiv_(ps, ms, roots, -lr)


def moving_average(ps: list[Tensor], gs: list[Tensor], ms: list[Tensor], vs: list[Tensor], lr: float) -> None:
    for p, m in zip(ps, ms, strict=True):
        m.mul_(0.999).add_(p, alpha=0.001)


def training_step(width: int, foreach: bool) -> Callable[[Tensor, Tensor], Tensor]:
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for _ in range(4):
        layers += [torch.nn.Linear(width, width), torch.nn.GELU(), torch.nn.LayerNorm(width)]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(width, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=foreach)

    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def measure(
    name: str, case: str, calls: dict[str, Callable[[], Any]], options: Options
) -> Iterator[dict[str, Any]]:
    for call in calls.values():
        for _ in range(5):  # the level and the changing number are learned by then
            call()
    gained: dict[str, int] = {}
    with counting(gained):
        times = interleave(calls, options.rounds(25))
    more = {key: gained[key] for key in ("hits", "kernels_run")}
    yield result(name, case, times, unit="us", calls=len(times["flashpoint"]), **more)


def run(options: Options) -> Iterator[dict[str, Any]]:
    updates: dict[str, Update] = {
        "adamw": adamw,
        "adamw on lists": adamw_on_lists,
        "moving average": moving_average,
    }
    few = 1 if options.quick else None
    for shape, count in (((256,), 60), ((64, 64), 60), ((768, 768), 12))[:few]:
        for name, update in updates.items():
            flashpoint.reset()
            calls: dict[str, Callable[[], Any]] = {}
            for contender in ("eager", "flashpoint"):
                compiled = contender == "flashpoint"
                function = flashpoint.compile(update, backend="native") if compiled else update
                state = [[torch.rand(shape) + 0.1 for _ in range(count)] for _ in range(4)]
                rates = iter(range(1, 1_000_000))
                calls[contender] = lambda f=function, s=state, r=rates: f(*s, 1e-3 / next(r))
            with torch.no_grad():
                yield from measure("updates", f"{name}, {count} of {list(shape)}", calls, options)
    for width, batch in ((64, 32), (256, 64), (512, 128))[:few]:
        x, y = torch.randn(batch, width), torch.randint(0, 10, (batch,))
        for foreach in (False, True):
            flashpoint.reset()
            eager = training_step(width, foreach)
            native = flashpoint.compile(training_step(width, foreach), backend="native")
            calls = {"eager": lambda f=eager, a=(x, y): f(*a), "flashpoint": lambda f=native, a=(x, y): f(*a)}
            case = f"MLP of width {width}, AdamW{', on lists' if foreach else ''}"
            yield from measure("training steps", case, calls, options)
