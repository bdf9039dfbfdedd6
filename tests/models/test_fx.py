"""The tiny architectures through backends of torch.compile: outputs and gradients are equal to eager's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import flashpoint
from tests.models.expected import ONE_GRAPH
from tests.models.test_models import NAMES
from tools.compare import differences
from tools.models import ARCHITECTURES, build

QUICK = ("bert", "llama", "resnet")


def sweep(names: list[str], quick: tuple[str, ...] = QUICK) -> list[Any]:
    return [name if name in quick else pytest.param(name, marks=pytest.mark.sweep) for name in names]


class Counting:
    """Counts the graphs that a backend is handed."""

    def __init__(self, backend: str | None) -> None:
        from torch._dynamo.backends.registry import lookup_backend

        self.graphs = 0
        self.runs = 0
        self._compile = lookup_backend(backend) if backend is not None else None

    def __call__(self, module: torch.fx.GraphModule, examples: list[Any]) -> Callable[..., Any]:
        self.graphs += 1
        module.graph.lint()
        compiled = module if self._compile is None else self._compile(module, examples)

        def run(*inputs: Any) -> Any:
            self.runs += 1
            return compiled(*inputs)

        return run


@pytest.mark.parametrize("name", sweep(NAMES))
@pytest.mark.parametrize("backend", [None, "aot_eager"], ids=["graph", "aot_eager"])
def test_eval(name: str, backend: str | None) -> None:
    make_model, make_inputs = build(name, tiny=True)
    counting = Counting(backend)
    eager, compiled = make_model(), flashpoint.compile(make_model(), backend=counting)
    with torch.no_grad():
        for seed in range(3):
            expected = eager(**make_inputs(seed))
            actual = compiled(**make_inputs(seed))
            assert differences(expected, actual, atol=max(2e-5, ARCHITECTURES[name].atol)) == []
    if name in ONE_GRAPH:
        assert (counting.graphs, counting.runs) == (1, 2)
        assert flashpoint.counters()["hits"] == 2


def without_dropout(model: nn.Module) -> nn.Module:
    """Random numbers of a compiled graph need not be eager's."""
    for module in model.modules():
        for key, value in list(vars(module).items()):
            if isinstance(value, float) and ("drop" in key or key == "p"):
                setattr(module, key, 0.0)
    config = getattr(model, "config", None)
    for part in (config, getattr(config, "text_config", None), getattr(config, "vision_config", None)):
        for key, value in vars(part).items() if part is not None else ():
            if isinstance(value, float) and ("drop" in key or "mask" in key):
                setattr(part, key, 0.0)
    return model


def step(model: nn.Module, run: Callable[..., Any], inputs: dict[str, Tensor], optimizer: Any) -> list[Any]:
    """One step of training: outputs and gradients."""
    outputs = [t for t in tree_leaves(run(**inputs)) if isinstance(t, Tensor)]
    loss = sum((t.float() ** 2).mean() for t in outputs if t.requires_grad)
    loss.backward()
    gradients = [p.grad for p in model.parameters()]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return [outputs, gradients]


def is_one_graph(name: str) -> bool:
    """Whether a step of training is one recording by the core's own backend."""
    make_model, make_inputs = build(name, tiny=True)
    flashpoint.reset_counters()
    flashpoint.compile(without_dropout(make_model().train()))(**make_inputs(0))
    counters = flashpoint.counters()
    flashpoint.reset_counters()
    return counters["captures_kept"] == 1 and counters["captures_started"] == 1


@pytest.mark.parametrize("name", sweep(NAMES, ("bert", "resnet")))
@pytest.mark.parametrize("backend", [None, "aot_eager"], ids=["graph", "aot_eager"])
def test_train(name: str, backend: str | None) -> None:
    """Gradients flow through the graph; parameters change between the calls."""
    make_model, make_inputs = build(name, tiny=True)
    counting = Counting(backend)
    one_graph = is_one_graph(name)
    models = [without_dropout(make_model().train()) for _ in range(2)]
    compiled = flashpoint.compile(models[1], backend=counting)
    optimizers = [torch.optim.SGD(model.parameters(), lr=1e-2) for model in models]
    for seed in range(3):
        expected = step(models[0], models[0], make_inputs(seed), optimizers[0])
        actual = step(models[1], compiled, make_inputs(seed), optimizers[1])
        assert differences(expected, actual, atol=1e-4) == []
    if one_graph:
        assert (counting.graphs, counting.runs) == (1, 2)


@pytest.mark.parametrize("name", sweep(["bert", "gpt2", "llama", "resnet", "vit", "t5"], ("llama",)))
def test_autocast(name: str) -> None:
    make_model, make_inputs = build(name, tiny=True)
    counting = Counting("aot_eager")
    eager, compiled = make_model(), flashpoint.compile(make_model(), backend=counting)
    for _ in range(2):
        for seed in range(2):
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
                expected, actual = eager(**make_inputs(seed)), compiled(**make_inputs(seed))
            # The same kernels on the same numbers, though rounding may differ where autograd is traced.
            assert differences(expected, actual, atol=0.05) == []
        with torch.no_grad():
            assert differences(eager(**make_inputs(5)), compiled(**make_inputs(5)), atol=2e-5) == []
    assert counting.graphs == 2


@pytest.mark.parametrize("name", ["bert", "gpt2", "distilbert"])
def test_train_and_eval_take_turns(name: str) -> None:
    make_model, make_inputs = build(name, tiny=True)
    models = [without_dropout(make_model()) for _ in range(2)]
    counting = Counting("aot_eager")
    compiled = flashpoint.compile(models[1], backend=counting)
    optimizers = [torch.optim.SGD(model.parameters(), lr=1e-2) for model in models]
    for turn in range(3):
        for model in models:
            model.train()
        expected = step(models[0], models[0], make_inputs(turn), optimizers[0])
        actual = step(models[1], compiled, make_inputs(turn), optimizers[1])
        assert differences(expected, actual, atol=1e-4) == []
        for model in models:
            model.eval()
        for region in (torch.no_grad, torch.inference_mode):
            with region():
                expected, actual = models[0](**make_inputs(turn)), compiled(**make_inputs(turn))
            assert differences(expected, actual, atol=1e-4) == []
    assert counting.graphs == 3


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["bert", "resnet", "gpt2"])
def test_inductor(name: str) -> None:
    make_model, make_inputs = build(name, tiny=True)
    models = [without_dropout(make_model().train()) for _ in range(2)]
    compiled = flashpoint.compile(models[1], backend="inductor")
    optimizers = [torch.optim.SGD(model.parameters(), lr=1e-2) for model in models]
    for seed in range(3):
        expected = step(models[0], models[0], make_inputs(seed), optimizers[0])
        actual = step(models[1], compiled, make_inputs(seed), optimizers[1])
        assert differences(expected, actual, atol=1e-4) == []
    assert flashpoint.counters()["hits"] == 2
