"""Runs a program of several features twice, eagerly and compiled, with the same changes between the calls."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
import random
import re
import sys
import types
import warnings
from dataclasses import dataclass
from typing import Any

import torch

import flashpoint
from tests.mutations.features import ARGUMENTS, FEATURES, USE_OF_ARGUMENTS, Feature

PRELUDE = """
import collections, contextvars, dataclasses, enum, functools, operator, sys, types
import torch
from torch import nn
torch.manual_seed(0)
x0, x1, y0 = torch.linspace(-1, 1, 12).reshape(4, 3), torch.linspace(0, 2, 12).reshape(4, 3), torch.ones(4, 3)
"""


set_seed = torch.default_generator.manual_seed  # torch.manual_seed looks at the stack as well


@functools.lru_cache(maxsize=4096)
def code_of(source: str) -> types.CodeType:
    return compile(source, "<change>", "exec")


@dataclass
class Tally:
    """How a run went. differences: (seed, step, change, eager, compiled)."""

    steps: int = 0
    raised: int = 0
    hits: int = 0
    differences: tuple[tuple[int, int, str, str, str], ...] = ()


@contextlib.contextmanager
def ambient() -> Any:
    """Puts back what changes reach beyond their world."""
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        torch.use_deterministic_algorithms(deterministic)


class World:
    """A namespace of its own, and the process-wide settings as this namespace's changes left them."""

    def __init__(self, source: str, name: str) -> None:
        self.name = name
        sys.modules[name] = module = types.ModuleType(name)
        self.scope = vars(module)
        self.context = contextvars.copy_context()
        self.settings = (True, torch.float32, False)
        self.run(source)

    def run(self, source: str) -> None:
        set_seed(2)
        self.inside(lambda: exec(code_of(source), self.scope))

    def inside(self, step: Any) -> Any:
        grad, dtype, deterministic = self.settings
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        torch.use_deterministic_algorithms(deterministic)
        try:
            return self.context.run(step)
        finally:
            self.settings = (
                torch.is_grad_enabled(),
                torch.get_default_dtype(),
                torch.are_deterministic_algorithms_enabled(),
            )

    def call(self, arguments: str) -> str:
        def step() -> str:
            set_seed(1)
            try:
                return described(eval(f"fn({arguments})", self.scope))
            except Exception as error:
                return f"raised {type(error).__name__}: {error}".replace(self.name, "world")

        return self.inside(step)


def described(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        about = (type(value).__name__, value.dtype, tuple(value.shape), value.stride(), value.requires_grad)
        return " ".join(map(str, (*about, value.detach().reshape(-1).tolist())))
    if isinstance(value, tuple):
        return "(" + ", ".join(described(v) for v in value) + ")"
    return (
        f"{type(value).__name__} {value!r}"
        if value is None or isinstance(value, int | float)
        else repr(value)
    )


NUMBER = re.compile(r"-?\d+\.\d+(?:e[-+]?\d+)?")


def is_close(want: str, got: str) -> bool:
    """The same but for the rounding of generated code, which adds in another order."""
    if NUMBER.sub("#", want) != NUMBER.sub("#", got):
        return False
    pairs = zip(NUMBER.findall(want), NUMBER.findall(got), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=1e-5, abs_tol=1e-5) for a, b in pairs)


def source_of(features: list[Feature], uses: list[str]) -> str:
    values = [f.value for f in features] + uses
    body = "".join(f"  v{i} = {value}\n" for i, value in enumerate(values))
    result = ", ".join(f"v{i}" for i in range(len(values)))
    states = "\n".join(f.state for f in features)
    return f"{PRELUDE}{states}\ndef fn(x, y, k, options):\n{body}  return {result}\n"


def drive(seed: int, steps: int, limit: int = 64, backend: str = "native") -> Tally:
    """One program; its calls differ by one change each, half of them by none that a result depends on."""
    rng = random.Random(seed)
    features = rng.sample(FEATURES, rng.randint(1, 3))
    source = source_of(features, rng.sample(USE_OF_ARGUMENTS, rng.randint(0, 2)))
    changes = [change for f in features for change in f.changes]
    quiet = [change for f in features for change in f.quiet] or ["pass"]
    arguments = {name: choices[0] for name, choices in ARGUMENTS.items()}
    tally, differences = Tally(), []
    with ambient():
        eager, compiled = World(source, "world_eager"), World(source, "world_compiled")
        # Many entries have more occasions to answer a call that is not theirs.
        compiled.scope["fn"] = flashpoint.compile(
            compiled.scope["fn"], backend=backend, recompile_limit=limit if seed % 2 else None
        )
        before = flashpoint.counters()["hits"]
        for step in range(steps):
            what = rng.random()
            change = ""
            if what < 0.25:
                change = rng.choice(changes)
            elif what < 0.45:
                change = rng.choice(quiet)
            elif what < 0.6:
                name = rng.choice(list(ARGUMENTS))
                arguments[name] = rng.choice(ARGUMENTS[name])
            elif what < 0.7:
                arguments = {name: choices[0] for name, choices in ARGUMENTS.items()}
            for world in (eager, compiled):
                with contextlib.suppress(Exception):
                    world.run(change)
            call = ", ".join(arguments.values())
            want, got = eager.call(call), compiled.call(call)
            tally.steps += 1
            tally.raised += want.startswith("raised ")
            if want != got and not (backend == "native" and is_close(want, got)):
                differences.append((seed, step, f"{change} | {call}", want, got))
                break
            if step % limit == limit - 1:
                flashpoint.reset()
        tally.hits = flashpoint.counters()["hits"] - before
    tally.differences = tuple(differences)
    return tally
