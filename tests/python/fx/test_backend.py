"""`backend=callable` and the names of torch.compile: what the backend gets, and what is done with its result."""

from __future__ import annotations

import copy
import gc
import operator
import threading
import weakref

import pytest
import torch
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed, InvalidBackend
from torch._subclasses.fake_tensor import FakeTensor

import flashpoint
from tests.python.fx.support import Recording, check


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("scale", torch.full((4,), 2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.fc(x)) * self.scale


def test_the_backend_is_called_once_and_answers_the_later_calls() -> None:
    backend = Recording()
    net = Net()
    compiled = flashpoint.compile(net, backend=backend)
    for call in range(3):
        x = torch.randn(2, 4)
        torch.testing.assert_close(compiled(x), net(x))
        assert (backend.graphs, backend.runs) == (1, call)
    compiled(torch.randn(3, 4))
    assert backend.graphs == 2  # a new shape


def test_inputs_are_the_programs_own_tensors() -> None:
    backend = Recording()
    net, x = Net(), torch.randn(2, 4)
    flashpoint.compile(net, backend=backend)(x)
    (examples,) = backend.examples
    by_name = dict(zip(backend.inputs(), examples, strict=True))
    assert by_name["l_x_"] is x
    assert by_name["l_self_modules_fc_parameters_weight_"] is net.fc.weight
    assert by_name["l_self_modules_fc_parameters_bias_"] is net.fc.bias
    assert by_name["l_self_buffers_scale_"] is net.scale
    seen = []

    def keep(module, examples):
        return lambda *inputs: seen.append(inputs) or module(*inputs)

    compiled = flashpoint.compile(net, backend=keep)
    compiled(x), compiled(x)
    (inputs,) = seen
    assert sorted(map(id, inputs)) == sorted(map(id, (x, net.fc.weight, net.fc.bias, net.scale)))
    assert any(isinstance(t, nn.Parameter) for t in inputs)


def test_nodes_carry_fakes_of_one_mode_and_a_tracing_context_is_active() -> None:
    backend = Recording()
    flashpoint.compile(Net(), backend=backend)(torch.randn(2, 4))
    (context,) = backend.contexts
    for node in backend.modules[0].graph.nodes:
        if node.op == "output":
            continue
        fake = node.meta["example_value"]
        assert isinstance(fake, FakeTensor) and fake.fake_mode is context.fake_mode
    assert tuple(fake.shape) == (2, 4) and fake.requires_grad
    assert torch._guards.TracingContext.try_get() is None


def test_a_written_input_is_shown_as_it_was_at_entry() -> None:
    backend = Recording()

    def f(x, w):
        x.add_(w)
        return x + 1

    w = torch.randn(3, requires_grad=True)
    flashpoint.compile(f, backend=backend)(torch.randn(3), w)
    x = backend.modules[0].graph.find_nodes(op="placeholder")[0].meta["example_value"]
    assert not x.requires_grad and x.is_leaf
    assert not backend.examples[0][0].requires_grad
    check(f, lambda: (torch.randn(3), torch.randn(3, requires_grad=True)), "aot_eager")


def test_a_function_without_operators_is_not_handed_over() -> None:
    backend = Recording()
    compiled = flashpoint.compile(lambda x: (x, 3), backend=backend)
    x = torch.randn(2)
    assert compiled(x)[0] is x and compiled(x)[0] is x
    assert backend.graphs == 0 and flashpoint.counters()["hits"] == 1


def test_a_graph_break_makes_two_graphs() -> None:
    backend = Recording()

    def f(x):
        y = x * 2
        flashpoint.graph_break()
        return y + 1

    check(f, lambda: (torch.randn(3, requires_grad=True),), backend)
    assert backend.graphs == 2 and backend.runs == 4


def test_a_literal_is_fresh_in_every_run() -> None:
    def f(x):
        t = torch.tensor([1.0, 2.0])
        t.add_(x)
        return t

    for backend in (Recording(), "aot_eager"):
        check(f, lambda: (torch.randn(2),), backend)


def test_operators_with_several_results() -> None:
    def f(x):
        values, indices = x.sort(dim=0)
        a, b = values.chunk(2)
        return torch.cat([b, a]), indices, torch.var_mean(x)[1]

    check(f, lambda: (torch.randn(4),), Recording())
    check(f, lambda: (torch.randn(4, requires_grad=True),), "aot_eager")


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.factor, None


@pytest.mark.parametrize("backend", [Recording(), "aot_eager"], ids=["recording", "aot_eager"])
def test_custom_autograd_functions(backend) -> None:
    def f(x):
        return Double.apply(x + 1, 5) * 3

    check(f, lambda: (torch.randn(3, requires_grad=True),), backend)


def test_the_random_state_is_the_programs() -> None:
    def draws_while_compiling(module, examples):
        torch.randn(5)
        return module

    compiled = flashpoint.compile(lambda x: x + torch.rand(3), backend=draws_while_compiling)
    torch.manual_seed(3)
    results = [compiled(torch.zeros(3)) for _ in range(3)]
    torch.manual_seed(3)
    torch.testing.assert_close(results, [torch.rand(3) for _ in range(3)])


# What goes wrong.


def test_unknown_backend() -> None:
    with pytest.raises(InvalidBackend, match="nonsuch"):
        flashpoint.compile(Net(), backend="nonsuch")


def test_a_backend_that_raises_leaves_the_model_usable() -> None:
    fails = [True]

    def backend(module, examples):
        if fails[0]:
            raise ZeroDivisionError("on purpose")
        return module

    net = Net()
    compiled = flashpoint.compile(net, backend=backend)
    x = torch.randn(2, 4)
    for _ in range(5):  # never silently eager
        with pytest.raises(
            BackendCompilerFailed, match="backend='backend' raised:\nZeroDivisionError: on purp"
        ):
            compiled(x)
    fails[0] = False
    torch.testing.assert_close(compiled(x), net(x))
    torch.testing.assert_close(compiled(x), net(x))
    assert flashpoint.counters()["hits"] == 1


def test_a_backend_that_raises_at_a_graph_break() -> None:
    def backend(module, examples):
        raise ZeroDivisionError("on purpose")

    done = []

    def f(x):
        y = x * 2
        done.append(1)
        flashpoint.graph_break()
        done.append(2)
        return y + 1

    with pytest.raises(BackendCompilerFailed, match="on purpose"):
        flashpoint.compile(f, backend=backend)(torch.randn(2))
    assert done == [1]


def test_suppress_errors_runs_the_operators() -> None:
    def backend(module, examples):
        raise ZeroDivisionError("on purpose")

    with torch._dynamo.config.patch(suppress_errors=True):
        check(Net(), lambda: (torch.randn(2, 4),), backend)


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (lambda out: out[0], "returned Tensor; it must return a tuple or list of the graph's 2 outputs"),
        (lambda out: out[:1], "returned 1 values; the graph has 2 outputs"),
        (lambda out: (out[0], 3), "output 1 of what the backend compiled is int, not a tensor"),
    ],
)
def test_a_compiled_graph_that_returns_something_else(result, text) -> None:
    compiled = flashpoint.compile(
        lambda x: (x + 1, x * 2), backend=lambda module, examples: lambda *inputs: result(module(*inputs))
    )
    compiled(torch.randn(2))
    with pytest.raises((TypeError, ValueError), match=rf"^\[flashpoint\.compile\] .*{text}"):
        compiled(torch.randn(2))


def test_a_backend_that_returns_nothing() -> None:
    with pytest.raises(BackendCompilerFailed, match="must return a callable, not NoneType"):
        flashpoint.compile(Net(), backend=lambda module, examples: None)(torch.randn(2, 4))


def test_an_error_of_the_compiled_graph_is_the_calls_error() -> None:
    runs = []

    def backend(module, examples):
        def run(*inputs):
            runs.append(1)
            raise KeyError("at run time")

        return run

    compiled = flashpoint.compile(lambda x: x + 1, backend=backend)
    compiled(torch.randn(2))
    with pytest.raises(KeyError, match="at run time"):
        compiled(torch.randn(2))
    assert len(runs) == 1


def test_what_the_backend_made_goes_with_the_compiled_function() -> None:
    class Made:
        def __init__(self, module):
            self.module = module

        def __call__(self, *inputs):
            return self.module(*inputs)

    made = []

    def backend(module, examples):
        result = Made(module)
        result.cycle = holder[0]
        made.append(weakref.ref(result))
        return result

    compiled = flashpoint.compile(lambda x: x + 1, backend=backend)
    holder = [compiled]
    compiled(torch.randn(2)), compiled(torch.randn(2))
    holder.clear()
    gc.collect()
    assert made[0]() is not None
    del compiled, backend
    gc.collect()
    assert made[0]() is None


def test_a_backend_may_call_compiled_functions() -> None:
    def doubled(x):
        flashpoint.graph_break()
        return x * 2

    helper = flashpoint.compile(doubled, backend="eager")

    def backend(module, examples):
        helper(torch.ones(2)), helper(torch.ones(2))
        return lambda *inputs: [helper(out) for out in module(*inputs)]

    compiled = flashpoint.compile(lambda x: x + 1, backend=backend)
    compiled(torch.zeros(2))
    torch.testing.assert_close(compiled(torch.zeros(2)), torch.full((2,), 2.0))


def test_list_backends_are_all_known() -> None:
    from flashpoint import backends

    for name in torch.compiler.list_backends(exclude_tags=None):
        if name in ("onnxrt", "tvm", "openxla"):  # need packages that are not here
            continue
        assert callable(backends.core_options(name, None, None, None).get("compiler", operator.add))


# What users and frameworks test with.


def counted(compile_with, fn, inputs) -> tuple[int, int]:
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    compiled = compile_with(fn, backend=counter)
    for args in inputs:
        compiled(*args)
    return counter.frame_count, counter.op_count


@pytest.mark.parametrize(
    ("fn", "count"),
    [
        (lambda x: torch.nn.functional.gelu(x * 2) + 1, 1),
        (lambda x: torch.cat([x, x.sin()]).sum(), 1),
        (lambda x: x.view(-1).softmax(-1)[0], 1),
        (Net(), 1),
        (lambda x: x, 0),
    ],
)
def test_compile_counter_counts_as_under_torch_compile(fn, count) -> None:
    inputs = [(torch.randn(2, 4),)] * 3
    ours = counted(flashpoint.compile, fn, inputs)
    torch._dynamo.reset()
    assert ours == counted(torch.compile, fn, inputs)
    assert ours[0] == count


def test_recorded_aot_graphs() -> None:
    from torch._dynamo.testing import AotEagerAndRecordGraphs

    backend = AotEagerAndRecordGraphs()
    x = torch.randn(3, requires_grad=True)
    compiled = flashpoint.compile(lambda x: (x * x).sum(), backend=backend)
    for _ in range(2):
        compiled(x).backward()
    assert (len(backend.graphs), len(backend.fw_graphs), len(backend.bw_graphs)) == (1, 1, 1)
    torch.testing.assert_close(x.grad, 4 * x.detach())


def test_copies_share_the_backend() -> None:
    backend = Recording()
    compiled = flashpoint.compile(Net(), backend=backend)
    copied = copy.deepcopy(compiled)
    x = torch.randn(2, 4)
    torch.testing.assert_close(copied(x), compiled(x))
    torch.testing.assert_close(copied(x), compiled(x))
    assert backend.graphs == 2 and backend.runs == 2


def test_threads() -> None:
    net = Net()
    compiled = flashpoint.compile(net, backend="aot_eager")
    compiled(torch.randn(2, 4))
    wrong = []

    def run(seed: int) -> None:
        x = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed))
        for _ in range(20):
            if not torch.allclose(compiled(x), net(x)):
                wrong.append(seed)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and flashpoint.counters()["hits"] == 80


def test_modes_and_options_reach_the_backend() -> None:
    seen = []

    def backend(module, examples, mode=None, options=None):
        seen.append((mode, options))
        return module

    x = torch.randn(2, 4)
    flashpoint.compile(Net(), backend=backend, mode="fast")(x)
    flashpoint.compile(Net(), backend=backend, options={"level": 3})(x)
    flashpoint.compile(Net(), backend=backend, mode="default")(x)
    assert seen == [("fast", None), (None, {"level": 3}), (None, None)]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"mode": "nonsuch"}, "Unrecognized mode=nonsuch"),
        ({"options": {"nonsuch": 1}}, "Unexpected optimization option nonsuch"),
        ({"options": {"max_autotune": 3}}, "Unexpected type of attr max_autotune"),
        ({"mode": "default", "options": {}}, "mode and options cannot both be given"),
    ],
)
def test_inductors_modes_and_options_are_checked(arguments, text) -> None:
    with pytest.raises(RuntimeError, match=text):
        flashpoint.compile(Net(), backend="inductor", **arguments)
