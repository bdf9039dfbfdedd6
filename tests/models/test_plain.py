"""The plain models: results, inputs, state, gradients and random numbers equal eager's, with and without
gradients."""

from __future__ import annotations

import collections
import importlib
import pkgutil
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import flashpoint
from flashpoint.explaining import inspect_compiled
from tests.models import plain
from tests.models.plain.case import Case
from tools.compare import differences

CASES: dict[str, Case] = {
    name: case
    for module in pkgutil.iter_modules(plain.__path__)
    for name, case in getattr(importlib.import_module(f"{plain.__name__}.{module.name}"), "CASES", {}).items()
}
# One of each kind, for every run; the others are a sweep.
SAMPLE = frozenset(
    """
    actor_critic branches checked critic_training data_writes diffusion_unet domain_adversarial
    flexible_inputs gpt hooked lstm_tagger numpy_constants sage seq2seq tree_lstm unet
    vq_ema_training yolo_head
    """.split()
)
RUNS = [
    pytest.param(
        name,
        grad,
        marks=() if name in SAMPLE else pytest.mark.sweep,
        id=f"{name}-{'grad' if grad else 'no_grad'}",
    )
    for name, case in CASES.items()
    for grad in ((False, True) if case.grad else (False,))
]


@pytest.fixture(autouse=True)
def value_guards() -> Iterator[None]:
    with flashpoint.config.patch(value_guards=True):
        yield


def _seed(number: int) -> None:
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number)


def _state(model: nn.Module) -> dict[str, Any]:
    """What a forward may have changed: parameters, buffers, and attributes that hold data."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if key.startswith("_") and key not in ("_buffers", "_parameters"):
                continue
            if isinstance(value, np.ndarray):
                value = torch.from_numpy(value)
            elif isinstance(value, collections.deque):
                value = list(value)
            items = list(value.values()) if isinstance(value, dict) else value
            items = items if isinstance(items, (list, tuple)) else [items]
            if not any(callable(item) for item in items):
                found[f"{name}.{key}"] = value
    return found


def _tensors(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result] if result.requires_grad else []
    if isinstance(result, dict):
        result = list(result.values())
    return [t for part in result for t in _tensors(part)] if isinstance(result, (list, tuple)) else []


def _gradients(model: nn.Module, result: Any) -> dict[str, Tensor | None]:
    tensors = _tensors(result)
    if tensors:
        torch.stack([t.abs().pow(2).sum() for t in tensors]).sum().backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize(("name", "grad"), RUNS)
def test_equals_eager(name: str, grad: bool) -> None:
    case = CASES[name]
    models = []
    for _ in range(2):
        _seed(0)
        models.append(case.make().train(case.training))
    eager, model = models
    compiled = flashpoint.compile(model)
    with torch.set_grad_enabled(grad), flashpoint.config.patch(poison_empty=True):
        for call, seed in enumerate((0, 0, 1, 2)):
            outcomes = []
            for fn, module in ((eager, eager), (compiled, model)):
                args = case.inputs(torch.Generator().manual_seed(seed))
                _seed(call)
                flashpoint.reset_counters()
                result = fn(*args)
                drawn = torch.rand(2), random.random(), float(np.random.rand())
                outcomes.append([result, args, drawn, _state(module)])
                if grad and call == 2:
                    try:
                        outcomes[-1].append(_gradients(module, result))
                    except RuntimeError as error:  # it wrote to what its own backward needs
                        outcomes[-1].append(str(error))
                    module.zero_grad()
            assert differences(*outcomes, atol=case.atol) == []
    counters = flashpoint.counters()
    told = inspect_compiled(compiled)
    if not case.kept:
        return
    assert told.graph_count >= 1 and not told.breaks, str(told)
    if not case.changes:
        assert counters["hits"] == 1 and counters["captures_started"] == 0, counters


def test_sample_exists() -> None:
    assert set(CASES) >= SAMPLE and len(CASES) >= 150
