"""What the installed torch brings to test itself, as programs: modules, optimizers, examples of export.

Eager mode on a copy is the oracle, for results, gradients, buffers and optimizer state.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.testing._internal.common_modules import ModuleInfo, module_db
from torch.testing._internal.common_optimizers import OptimizerInfo, optim_db
from torch.utils._pytree import tree_leaves, tree_map_only

import flashpoint

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch._export.db.examples import all_examples

    EXAMPLES = all_examples()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def cloned(tree: Any) -> Any:
    return tree_map_only(torch.Tensor, lambda t: t.detach().clone().requires_grad_(t.requires_grad), tree)


def tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def real_sum(t: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(t).sum() if t.is_complex() else t.float().sum()


def run(module: torch.nn.Module, call: Callable, args: Any, grad: bool) -> Any:
    """Outputs, gradients and buffers of one call, or what it raised."""
    args, kwargs = cloned(args)
    torch.manual_seed(3)
    try:
        with torch.set_grad_enabled(grad):
            result = call(*args, **kwargs)
        if grad and (losses := [real_sum(t) for t in tensors(result) if t.requires_grad]):
            sum(losses).backward()
    except Exception as error:
        return type(error), str(error)
    leaves = [*module.parameters(), *tensors((args, kwargs))]
    gradients = [leaf.grad for leaf in leaves if leaf.is_leaf]
    module.zero_grad()
    return (
        type(result),
        [t.detach() for t in tensors(result)],
        gradients,
        [b.clone() for b in module.buffers()],
    )


def check_same(got: Any, want: Any, exact: bool) -> None:
    assert type(got[0]) is type(want[0]) and len(got) == len(want)
    if len(want) == 2:
        assert got == want
        return
    assert got[0] is want[0]
    tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-4, "atol": 1e-5}
    for a, b in zip(tree_leaves(got[1:]), tree_leaves(want[1:]), strict=True):
        torch.testing.assert_close(a, b, equal_nan=True, **tolerance)


@pytest.fixture
def no_fast_path() -> Iterator[None]:
    """Transformer modules leave a path that gives padding other values, where a compiler traces them."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(enabled)


@pytest.mark.sweep
@pytest.mark.usefixtures("no_fast_path")
@pytest.mark.parametrize("backend", ["eager", "native"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("info", module_db, ids=[info.module_cls.__name__ for info in module_db])
def test_module(info: ModuleInfo, training: bool, backend: str) -> None:
    inputs = info.module_inputs_func(
        info, device="cpu", dtype=torch.float32, requires_grad=True, training=training
    )
    compiled_any = False
    for entry in inputs:
        if entry.forward_input is None:
            continue
        torch.manual_seed(0)
        module = info.module_cls(*entry.constructor_input.args, **entry.constructor_input.kwargs)
        module.train(training)
        other = copy.deepcopy(module)
        compiled = flashpoint.compile(other, backend=backend)
        before = flashpoint.counters()["hits"]
        args = (entry.forward_input.args, entry.forward_input.kwargs)
        for grad in (True, True, False, False):
            check_same(run(other, compiled, args, grad), run(module, module, args, grad), backend == "eager")
        compiled_any |= flashpoint.counters()["hits"] > before
    assert compiled_any


@pytest.mark.sweep
@pytest.mark.parametrize("variant", ["", "foreach", "no foreach", "fused", "capturable"])
@pytest.mark.parametrize("info", optim_db, ids=[info.optim_cls.__name__ for info in optim_db])
def test_optimizer(info: OptimizerInfo, variant: str) -> None:
    name = variant.removeprefix("no ")
    extra = {name: name == variant} if variant else {}
    built = False
    for entry in info.optim_inputs_func(device="cpu"):
        worlds = []
        for _ in range(2):
            torch.manual_seed(0)
            model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
            try:
                worlds.append((model, info.optim_cls(list(model.parameters()), **{**entry.kwargs, **extra})))
            except (RuntimeError, TypeError, ValueError):
                break  # not a combination that this optimizer takes
        if len(worlds) < 2:
            continue
        built = True

        def step(model: Any, optimizer: Any, x: torch.Tensor) -> Any:
            def closure() -> torch.Tensor:
                optimizer.zero_grad()
                loss = (model(x) ** 2).mean()
                loss.backward()
                return loss

            if isinstance(optimizer, torch.optim.LBFGS):
                return optimizer.step(closure)
            loss = closure()
            optimizer.step()
            return loss

        compiled = flashpoint.compile(step, backend="eager")
        for i in range(8):
            x = torch.randn(5, 6, generator=torch.Generator().manual_seed(i))
            outcomes = []
            for fn, (model, optimizer) in zip((step, compiled), worlds, strict=True):
                try:
                    outcomes.append((fn(model, optimizer, x), None))
                except Exception as error:
                    outcomes.append((None, repr(error)))
            assert outcomes[0][1] == outcomes[1][1]
            if outcomes[0][1] is not None:
                break
            for a, b in zip(
                tree_leaves((outcomes[0][0], worlds[0][0].state_dict(), worlds[0][1].state_dict())),
                tree_leaves((outcomes[1][0], worlds[1][0].state_dict(), worlds[1][1].state_dict())),
                strict=True,
            ):
                assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    if not built:
        pytest.skip("the optimizer's constructor refuses this variant")


# They choose by what a tensor holds, outside torch.cond.
NOT_WHOLE = {"constrain_as_size_example", "constrain_as_value_example"}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_export_example(name: str) -> None:
    case = EXAMPLES[name]
    kwargs = case.example_kwargs or {}

    def outcome(fn: Callable) -> Any:
        args = copy.deepcopy((case.example_args, kwargs))
        result = fn(*args[0], **args[1])
        return tree_leaves((result, args))

    compiled = flashpoint.compile(copy.deepcopy(case.model), backend="eager", fullgraph=name not in NOT_WHOLE)
    before = flashpoint.counters()["hits"]
    for _ in range(3):
        for a, b in zip(outcome(compiled), outcome(copy.deepcopy(case.model)), strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    assert flashpoint.counters()["hits"] - before == 2
