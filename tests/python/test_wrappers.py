"""What code that knows torch.compile's wrappers asks of Flashpoint's."""

import copy
import functools
import inspect
import pickle

import pytest
import torch
from torch._dynamo.eval_frame import innermost_fn

import flashpoint


def answer(x):
    """One more where it is compiled, two more in eager mode."""
    return x + (1 if torch.compiler.is_compiling() else 2)


def hits(call, times=3):
    before = flashpoint.counters()["hits"]
    for _ in range(times):
        call()
    return flashpoint.counters()["hits"] - before


def test_module_is_an_optimized_module():
    module = torch.nn.Linear(2, 3)
    compiled = flashpoint.compile(module)
    for wrapper in (
        compiled,
        copy.copy(compiled),
        copy.deepcopy(compiled),
        pickle.loads(pickle.dumps(compiled)),
    ):
        assert isinstance(wrapper, torch._dynamo.OptimizedModule)
        assert isinstance(wrapper, torch.nn.Module)
        assert type(wrapper) is type(compiled)
        assert type(wrapper._orig_mod) is torch.nn.Linear
    assert not isinstance(module, torch._dynamo.OptimizedModule)


def test_isinstance_in_compiled_code():
    compiled = flashpoint.compile(torch.nn.Linear(2, 3))

    @flashpoint.compile
    def program(module, x):
        return module(x) if isinstance(module, torch._dynamo.OptimizedModule) else x

    x = torch.ones(2)
    assert hits(lambda: program(compiled, x)) == 2
    assert torch.equal(program(compiled, x), compiled(x))
    assert torch.equal(program(compiled._orig_mod, x), x)


def test_module_compiles_other_callables_alike():
    graphs = []

    def backend(graph_module, inputs):
        graphs.append(graph_module)
        return graph_module.forward

    module = torch.nn.Linear(2, 3)
    compiled = flashpoint.compile(module, backend=backend)
    step = compiled.dynamo_ctx(lambda x: module(x) * 2)
    x = torch.ones(2)
    for _ in range(3):
        assert torch.equal(step(x), module(x) * 2)
    assert len(graphs) == 1
    child = compiled.dynamo_ctx(torch.nn.ReLU())
    assert isinstance(child, torch._dynamo.OptimizedModule)
    for _ in range(3):
        assert torch.equal(child(-x), torch.zeros(2))
    assert len(graphs) == 2


def test_innermost_function():
    compiled = flashpoint.compile(answer)
    assert innermost_fn(compiled) is answer

    @functools.wraps(compiled)
    def twice(x):
        return compiled(x) * 2

    assert innermost_fn(twice) is twice


def test_disabling_a_compiled_function():
    compiled = flashpoint.compile(answer)
    x = torch.zeros(2)
    disabled = torch.compiler.disable(compiled)
    assert hits(lambda: disabled(x)) == 0
    assert torch.equal(disabled(x), x + 2)
    assert hits(lambda: compiled(x)) == 2
    assert torch.equal(compiled(x), x + 1)


def test_compiling_a_compiled_function_with_torch():
    x = torch.zeros(2)
    again = torch.compile(flashpoint.compile(answer), backend="eager")
    assert torch.equal(again(x), x + 1)


def test_looks_like_the_function():
    def program(x, scale=2, *, shift=1):
        return x * scale + shift

    compiled = flashpoint.compile(program)
    for name in ("__code__", "__defaults__", "__kwdefaults__", "__globals__", "__closure__"):
        assert getattr(compiled, name) is getattr(program, name)
    assert inspect.signature(compiled) == inspect.signature(program)
    assert compiled.__code__ != flashpoint.compile(answer).__code__
    with pytest.raises(AttributeError):
        compiled.__code__ = answer.__code__


def test_forward_has_the_signature_of_the_original():
    module = torch.nn.MultiheadAttention(4, 2)
    compiled = flashpoint.compile(module)
    assert inspect.signature(compiled.forward) == inspect.signature(module.forward)
    assert compiled.forward.__name__ == "forward"
    x = torch.ones(3, 4)
    assert hits(lambda: compiled(x, x, x)) == 2
    again = flashpoint.compile(compiled.forward)  # with hooks, as the module's call
    module.register_forward_hook(lambda module, args, result: result[0] * 0)
    assert torch.equal(again(x, x, x), torch.zeros(3, 4))
