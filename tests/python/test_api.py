"""The public API: arguments of compile, decorators, methods, module wrappers, config, explain."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
import weakref

import pytest
import torch
from torch import nn

import flashpoint
from flashpoint import Explanation, OptimizedModule, _versions
from flashpoint.explaining import Break, Entry


def add(x: torch.Tensor, y: float = 1.0) -> torch.Tensor:
    """x + y."""
    return x + y


@flashpoint.compile
def compiled_add(x: torch.Tensor, y: float = 1.0) -> torch.Tensor:
    """x + y."""
    return x + y


class Scale(nn.Module):
    factor = 3

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("offset", torch.ones(4))
        self.calls = 0

    def forward(self, x: torch.Tensor, *, twice: bool = False) -> torch.Tensor:
        y = self.linear(x) * self.factor + self.offset
        return y * 2 if twice else y

    def double(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def hits() -> int:
    return flashpoint.counters()["hits"]


def check(compiled, eager, *examples) -> None:
    """Every example equals eager on its first call and on a second one, which must be a replay."""
    with torch.no_grad():
        for example in examples:
            torch.testing.assert_close(compiled(*example), eager(*example), rtol=0, atol=0)
            before = hits()
            torch.testing.assert_close(compiled(*example), eager(*example), rtol=0, atol=0)
            assert hits() == before + 1


# compile: what it takes


def test_function() -> None:
    check(flashpoint.compile(add), add, (torch.randn(3),), (torch.randn(2, 2),))


@pytest.mark.parametrize(
    "decorator", [flashpoint.compile, flashpoint.compile(), flashpoint.compile(dynamic=False)]
)
def test_decorator(decorator) -> None:
    @decorator
    def f(x):
        return x * 2

    check(f, lambda x: x * 2, (torch.randn(3),))


def test_function_looks_like_the_original() -> None:
    compiled = flashpoint.compile(add)
    assert (compiled.__name__, compiled.__doc__, compiled.__module__) == ("add", "x + y.", __name__)
    assert compiled.__wrapped__ is add
    assert inspect.signature(compiled) == inspect.signature(add)
    assert callable(compiled)
    assert weakref.ref(compiled)() is compiled


def test_keyword_and_default_arguments() -> None:
    compiled, x = flashpoint.compile(add), torch.randn(3)
    for args, kwargs in [((x,), {}), ((x, 2.0), {}), ((x,), {"y": 3.0}), ((), {"x": x, "y": 4.0})]:
        torch.testing.assert_close(compiled(*args, **kwargs), add(*args, **kwargs), rtol=0, atol=0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        compiled(x, z=1)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        compiled()


def test_bound_method() -> None:
    module = Scale().eval()
    check(flashpoint.compile(module.double), module.double, (torch.randn(4),))


def test_decorated_method_binds() -> None:
    class Doubler(nn.Module):
        @flashpoint.compile
        def forward(self, x):
            return x * 2

        @staticmethod
        @flashpoint.compile
        def static(x):
            return x * 3

        @classmethod
        @flashpoint.compile
        def of_class(cls, x):
            return x * 4

    module = Doubler()
    assert module.forward.__self__ is module
    check(module, lambda x: x * 2, (torch.randn(4),))
    check(Doubler.static, lambda x: x * 3, (torch.randn(4),))
    check(module.of_class, lambda x: x * 4, (torch.randn(4),))


def test_callable_object() -> None:
    class Adder:
        def __init__(self) -> None:
            self.y = 2.0

        def __call__(self, x):
            return x + self.y

    adder = Adder()
    compiled = flashpoint.compile(adder)
    check(compiled, adder, (torch.randn(3),))
    adder.y = 3.0  # the object is read at each call, not copied
    check(compiled, adder, (torch.randn(3),))


@pytest.mark.parametrize("fn", [functools.partial(add, y=2.0), torch.sin])
def test_callable_without_a_python_frame(fn) -> None:
    check(flashpoint.compile(fn), fn, (torch.randn(2),))


@pytest.mark.parametrize(
    "fn", [torch.ones(2).mul, functools.partial(torch.add, torch.ones(2)), torch.Tensor.neg]
)
def test_callable_of_c(fn) -> None:
    compiled = flashpoint.compile(fn)
    for _ in range(3):
        x = torch.randn(2)
        torch.testing.assert_close(compiled(x), fn(x), rtol=0, atol=0)


def test_compiling_twice_compiles_once() -> None:
    once = flashpoint.compile(add)
    twice = flashpoint.compile(once)
    assert twice.__wrapped__ is add
    check(twice, add, (torch.randn(3),))
    module = Scale()
    assert flashpoint.compile(flashpoint.compile(module))._orig_mod is module


def test_copies_and_pickles_of_a_function_are_the_function() -> None:
    assert copy.copy(compiled_add) is compiled_add
    assert copy.deepcopy([compiled_add])[0] is compiled_add
    assert pickle.loads(pickle.dumps(compiled_add)) is compiled_add


def test_exceptions_are_the_functions_own() -> None:
    @flashpoint.compile
    def f(x):
        x = x + 1
        raise KeyError("from f")

    for _ in range(2):
        with pytest.raises(KeyError, match="from f"):
            f(torch.randn(2))


@pytest.mark.parametrize("model", [add, nn.Linear(2, 2), len])
def test_disable_returns_the_model(model) -> None:
    assert flashpoint.compile(model, disable=True) is model
    assert flashpoint.compile(disable=True)(model) is model


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"backend": 3}, TypeError, "backend must be a string or a callable, not int"),
        ({"dynamic": "yes"}, TypeError, "dynamic must be None, True or False"),
        (
            {"mode": "max-autotune"},
            NotImplementedError,
            "mode='max-autotune' means nothing to backend='(eager|native)'.*Leave mode out",
        ),
        ({"options": {"shape_padding": True}}, ValueError, "unknown options: shape_padding"),
        (
            {"backend": "inductor", "mode": "default", "options": {"x": 1}},
            RuntimeError,
            "mode and options cannot both be given",
        ),
        ({"options": 3}, TypeError, "options must be a dict or None"),
        ({"fullgraph": "yes"}, TypeError, "fullgraph must be True or False"),
        ({"disable": 1}, TypeError, "disable must be True or False"),
    ],
)
@pytest.mark.parametrize("as_decorator", [False, True])
def test_unsupported_arguments(arguments, error, text, as_decorator) -> None:
    with pytest.raises(error, match=rf"^\[flashpoint\.compile\] {text}"):
        flashpoint.compile(**arguments) if as_decorator else flashpoint.compile(add, **arguments)


def test_what_cannot_be_compiled() -> None:
    with pytest.raises(TypeError, match=r"^\[flashpoint\.compile\] takes a callable.*, not int"):
        flashpoint.compile(3)
    with pytest.raises(TypeError, match=r"^\[flashpoint\.compile\] takes a callable"):
        flashpoint.compile(disable=True)(3)
    with pytest.raises(NotImplementedError, match=r"^\[flashpoint\.compile\] classes are not compiled"):
        flashpoint.compile(Scale)
    scripted = torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2))
    with pytest.raises(NotImplementedError, match=r"^\[flashpoint\.compile\] TorchScript"):
        flashpoint.compile(scripted)


def test_arguments_of_torch_compile_are_accepted() -> None:
    """Each named argument of torch.compile that we have comes with the same default, backend excepted."""
    ours = inspect.signature(flashpoint.compile).parameters
    theirs = inspect.signature(torch.compile).parameters
    assert set(ours) <= set(theirs)
    for name in set(ours) - {"backend"}:
        assert ours[name].default == theirs[name].default, name
        assert ours[name].kind == theirs[name].kind, name


def test_empty_options_are_none() -> None:
    check(flashpoint.compile(add, options={}), add, (torch.randn(3),))


def test_fullgraph_without_break() -> None:
    check(flashpoint.compile(add, fullgraph=True), add, (torch.randn(3),))


# modules


def module_pair() -> tuple[Scale, OptimizedModule]:
    module = Scale().eval()
    return module, flashpoint.compile(module)


def test_module_result_and_replay() -> None:
    module, compiled = module_pair()
    assert isinstance(compiled, OptimizedModule) and isinstance(compiled, nn.Module)
    assert compiled._orig_mod is module
    check(compiled, copy.deepcopy(module), (torch.randn(2, 4),), (torch.randn(3, 4),))


def test_module_keyword_arguments() -> None:
    module, compiled = module_pair()
    x = torch.randn(2, 4)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, twice=True), module(x, twice=True), rtol=0, atol=0)
        torch.testing.assert_close(compiled(x, twice=False), module(x), rtol=0, atol=0)


def test_module_keys_are_those_of_torch_compile() -> None:
    module, compiled = module_pair()
    reference = torch.compile(module, backend="eager")
    assert list(compiled.state_dict()) == list(reference.state_dict())
    assert [n for n, _ in compiled.named_parameters()] == [n for n, _ in reference.named_parameters()]
    assert [n for n, _ in compiled.named_modules()] == [n for n, _ in reference.named_modules()]
    assert [n for n, _ in compiled.named_buffers()] == [n for n, _ in reference.named_buffers()]
    assert repr(compiled) == repr(reference)
    assert list(compiled.parameters())[0] is module.linear.weight


def test_module_load_state_dict() -> None:
    module, compiled = module_pair()
    state = {name: torch.zeros_like(value) for name, value in compiled.state_dict().items()}
    x = torch.randn(2, 4)
    with torch.no_grad():
        assert compiled(x).abs().sum() > 0
        compiled.load_state_dict(state)
        assert module.linear.weight.abs().sum() == 0
        assert compiled(x).abs().sum() == 0


def test_module_attributes_are_the_originals() -> None:
    module, compiled = module_pair()
    assert compiled.linear is module.linear
    assert compiled.factor == 3
    compiled.calls = 5
    assert module.calls == 5 and "calls" not in compiled.__dict__
    compiled.linear = nn.Linear(4, 4)
    assert compiled.linear is module.linear
    del compiled.calls
    assert not hasattr(module, "calls")
    with pytest.raises(AttributeError, match="'Scale' object has no attribute 'calls'"):
        compiled.calls  # noqa: B018
    assert {"linear", "double", "_orig_mod"} <= set(dir(compiled))


def test_module_attribute_change_is_seen() -> None:
    module, compiled = module_pair()
    x = torch.randn(2, 4)
    with torch.no_grad():
        compiled(x)
        compiled.factor = 5
        torch.testing.assert_close(compiled(x), module.linear(x) * 5 + module.offset, rtol=0, atol=0)


def test_module_training_flag() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    compiled = flashpoint.compile(module)
    assert compiled.training and module.training
    assert compiled.eval() is compiled
    assert not compiled.training and not module.training and not module[1].training
    x = torch.randn(2, 4)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), module(x), rtol=0, atol=0)
        compiled.train()
        assert module[1].training
        torch.manual_seed(1)
        expected = module(x)
        torch.manual_seed(1)
        torch.testing.assert_close(compiled(x), expected, rtol=0, atol=0)
    module.eval()
    assert not compiled.training


def test_wrapping_keeps_the_training_flag() -> None:
    assert not flashpoint.compile(nn.Linear(2, 2).eval()).training
    module = nn.Linear(2, 2).eval()
    flashpoint.compile(module)
    assert not module.training


@pytest.mark.parametrize("where", ["wrapper", "original", "child"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_hooks_run_once_per_call(where: str, when: str) -> None:
    module, compiled = module_pair()
    x, seen = torch.randn(2, 4), []
    with torch.no_grad():
        expected = module(x)
        if when == "after":
            compiled(x)
        target = {"wrapper": compiled, "original": module, "child": module.linear}[where]
        pre = target.register_forward_pre_hook(lambda m, args: seen.append("pre"))
        post = target.register_forward_hook(lambda m, args, out: seen.append("post"))
        for count in range(1, 4):
            torch.testing.assert_close(compiled(x), expected, rtol=0, atol=0)
            assert seen == ["pre", "post"] * count
        pre.remove()
        post.remove()
        torch.testing.assert_close(compiled(x), expected, rtol=0, atol=0)
        assert seen == ["pre", "post"] * 3


@pytest.mark.parametrize("where", ["wrapper", "original"])
def test_hook_changes_the_result(where: str) -> None:
    module, compiled = module_pair()
    x = torch.randn(2, 4)
    with torch.no_grad():
        expected = module(x) + 10
        target = compiled if where == "wrapper" else module
        target.register_forward_hook(lambda m, args, out: out + 10)
        for _ in range(3):
            torch.testing.assert_close(compiled(x), expected, rtol=0, atol=0)


def test_global_hooks_run_as_in_eager() -> None:
    module, compiled = module_pair()
    x, seen = torch.randn(2, 4), []
    handle = nn.modules.module.register_module_forward_hook(
        lambda m, args, out: seen.append(type(m).__name__)
    )
    try:
        module(x)
        expected, seen[:] = list(seen), []
        for _ in range(2):
            compiled(x)
            assert seen == expected
            seen.clear()
    finally:
        handle.remove()


def test_backward_through_a_module() -> None:
    module = Scale()
    compiled, reference = flashpoint.compile(module), copy.deepcopy(module)
    for _ in range(3):
        x = torch.randn(2, 4)
        compiled(x).sum().backward()
        reference(x).sum().backward()
    torch.testing.assert_close(module.linear.weight.grad, reference.linear.weight.grad, rtol=0, atol=0)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_module_copies(duplicate) -> None:
    module, compiled = module_pair()
    x = torch.randn(2, 4)
    with torch.no_grad():
        compiled(x)
        again = duplicate(compiled)
        assert type(again) is OptimizedModule and again._orig_mod is not module
        assert again.linear.weight is not module.linear.weight
        again.linear.weight.zero_()
        reference = copy.deepcopy(module)
        reference.linear.weight.zero_()
        check(again, reference, (x,))
        check(compiled, module, (x,))


def test_shallow_copy_shares_the_original() -> None:
    module, compiled = module_pair()
    assert copy.copy(compiled)._orig_mod is module


def test_copy_keeps_hooks_of_the_wrapper() -> None:
    _, compiled = module_pair()
    compiled.register_forward_hook(lambda m, args, out: out + 10)
    x = torch.randn(2, 4)
    with torch.no_grad():
        torch.testing.assert_close(copy.deepcopy(compiled)(x), compiled(x), rtol=0, atol=0)


def test_copy_of_a_module_with_its_own_deepcopy() -> None:
    class Own(Scale):
        def __deepcopy__(self, memo):
            made = Own()
            made.load_state_dict(self.state_dict())
            return made

    compiled = flashpoint.compile(Own())
    assert type(copy.deepcopy(compiled)) is OptimizedModule


def test_copy_of_a_structure_keeps_sharing() -> None:
    _, compiled = module_pair()
    first, second = copy.deepcopy([compiled, compiled])
    assert first is second


def test_container_protocols() -> None:
    layers = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    compiled = flashpoint.compile(layers)
    assert len(compiled) == 2
    assert compiled[0] is layers[0] and list(compiled) == list(layers)
    assert layers[1] in compiled
    by_name = flashpoint.compile(nn.ModuleDict({"a": nn.ReLU()}))
    assert "a" in by_name and "b" not in by_name and list(by_name) == ["a"]
    assert not flashpoint.compile(nn.Sequential())


def test_container_protocols_of_a_module_without_them() -> None:
    _, compiled = module_pair()
    assert bool(compiled)
    for use in (len, iter, lambda m: m[0], lambda m: 1 in m):
        with pytest.raises(TypeError, match="'Scale'"):
            use(compiled)


def test_module_moves_with_to() -> None:
    _, compiled = module_pair()
    assert compiled.to(torch.float64) is compiled
    x = torch.randn(2, 4, dtype=torch.float64)
    check(compiled, copy.deepcopy(compiled._orig_mod), (x,))


def test_wrapped_module_inside_a_module() -> None:
    inner = flashpoint.compile(Scale().eval())
    outer = nn.Sequential(inner, nn.ReLU()).eval()
    x = torch.randn(2, 4)
    with torch.no_grad():
        expected = inner._orig_mod(x).relu()
        for _ in range(2):
            torch.testing.assert_close(outer(x), expected, rtol=0, atol=0)
            torch.testing.assert_close(flashpoint.compile(outer)(x), expected, rtol=0, atol=0)
    assert list(outer.state_dict())[0].startswith("0._orig_mod.")


def test_module_is_freed() -> None:
    import gc

    module, compiled = module_pair()
    with torch.no_grad():
        for _ in range(3):
            compiled(torch.randn(2, 4))
    watch = weakref.ref(module)
    del module, compiled
    gc.collect()
    assert watch() is None


# counters, reset, config, explain


def test_counters_and_reset() -> None:
    compiled, x = flashpoint.compile(add), torch.randn(3)
    compiled(x)
    compiled(x)
    found = flashpoint.counters()
    assert found["hits"] == 1 and found["captures_kept"] == 1
    assert all(isinstance(name, str) and isinstance(count, int) for name, count in found.items())
    flashpoint.reset()
    compiled(x)
    assert flashpoint.counters()["hits"] == 1 and flashpoint.counters()["captures_kept"] == 2
    flashpoint.reset_counters()
    assert set(flashpoint.counters().values()) == {0}


def test_config_values() -> None:
    assert flashpoint.config.to_dict() == {
        "recompile_limit": 8,
        "accumulated_recompile_limit": 256,
        "tracing_state_queries": True,
        "resume_breaks": True,
        "value_guards": False,
        "capture_scalar_outputs": False,
        "fx_torch_targets": True,
        "verify": False,
        "poison_empty": False,
        "measure_breaks": False,
        "native_patience": 10,
    }
    flashpoint.config.recompile_limit = 2
    assert flashpoint.config.recompile_limit == 2
    with flashpoint.config.patch(recompile_limit=3, tracing_state_queries=False):
        assert flashpoint.config.recompile_limit == 3 and not flashpoint.config.tracing_state_queries
    assert flashpoint.config.recompile_limit == 2 and flashpoint.config.tracing_state_queries
    assert "recompile_limit" in dir(flashpoint.config) and "recompile_limit=2" in repr(flashpoint.config)


@pytest.mark.parametrize(
    ("name", "value", "error", "text"),
    [
        ("recompile_limits", 3, AttributeError, "no setting 'recompile_limits'; there are: recompile_limit"),
        ("recompile_limit", "8", TypeError, "recompile_limit must be int, not str"),
        ("recompile_limit", True, TypeError, "recompile_limit must be int, not bool"),
        ("recompile_limit", 0, ValueError, "recompile_limit must be 1 or more, not 0"),
        ("verify", 1, TypeError, "verify must be bool, not int"),
    ],
)
def test_config_rejects(name, value, error, text) -> None:
    before = flashpoint.config.to_dict()
    with pytest.raises(error, match=rf"^\[flashpoint\.config\] {text}"):
        setattr(flashpoint.config, name, value)
    with pytest.raises(error, match=r"^\[flashpoint\.config\]"), flashpoint.config.patch(**{name: value}):
        pass
    assert flashpoint.config.to_dict() == before


def test_config_unknown_name_cannot_be_read() -> None:
    with pytest.raises(AttributeError, match=r"^\[flashpoint\.config\] no setting 'nothing'"):
        flashpoint.config.nothing  # noqa: B018
    with pytest.raises(AttributeError, match=r"^\[flashpoint\.config\] settings cannot be deleted"):
        del flashpoint.config.verify


def test_recompile_limit_reaches_the_core() -> None:
    compiled = flashpoint.compile(add)
    with flashpoint.config.patch(recompile_limit=2):
        for size in range(1, 6):
            x = torch.randn(size)
            torch.testing.assert_close(compiled(x), x + 1, rtol=0, atol=0)
    assert flashpoint.counters()["captures_kept"] == 2


@pytest.mark.parametrize("form", ["function", "compiled function", "module", "compiled module"])
def test_explain(form: str) -> None:
    fn = Scale().eval() if "module" in form else add
    if "compiled" in form:
        fn = flashpoint.compile(fn)
    x = torch.randn(4, 4)
    with torch.no_grad():
        told = flashpoint.explain(fn)(x)
        torch.testing.assert_close(told.result, fn(x), rtol=0, atol=0)
    assert told.graph_count == len(told.graphs) == len(told.entries) == 1
    assert told.node_count >= 1 and "aten.add" in told.graphs[0]
    assert told.guards and told.breaks == () and told.dropped is None
    text = str(told)
    name = "Scale" if "module" in form else "add"
    assert text.startswith(f"{name}: 1 graph, ") and "0 breaks" in text
    assert all(guard in text for guard in told.guards)


def test_explain_a_break() -> None:
    def broken(x):
        y = x + 1
        print("seen by the user", end="")
        return y * 2

    told = flashpoint.explain(broken)(torch.ones(2))
    assert torch.equal(told.result, torch.full((2,), 4.0))
    assert len(told.breaks) == 1
    found = told.breaks[0]
    line = broken.__code__.co_firstlineno + 2
    assert (found.file, found.line) == (__file__, line)
    assert found.reason and found.message and found.hint
    assert f"{__file__}:{line}: {found.message}" in str(told) and f"hint: {found.hint}" in str(told)


def test_explanation_text() -> None:
    made = Break("io", "input or output (print)", "move it out", "model.py", 12)
    entry = Entry("graph f() {\n}", 3, ("x is 1",), hits=2)
    told = Explanation("f", (entry,), (made,), "input or output")
    assert str(told) == (
        "f: 1 graph, 3 operators, 1 guard, 1 break\n"
        "not kept: input or output\n"
        "break 1:\n"
        "  model.py:12: input or output (print) [io]\n"
        "    hint: move it out\n"
        "entry 1, used 2 times:\n"
        "  graph f() {\n"
        "  }\n"
        "  1 guard:\n"
        "    x is 1"
    )


def test_explain_leaves_what_is_compiled_alone() -> None:
    compiled, x = flashpoint.compile(add), torch.randn(3)
    compiled(x)
    flashpoint.explain(compiled)(x)
    before = hits()
    compiled(x)
    assert hits() == before + 1


def test_explain_rejects() -> None:
    with pytest.raises(TypeError, match="takes a callable"):
        flashpoint.explain(3)


# what import checks


@pytest.mark.parametrize("version", ["2.13.0", "2.13.0+cpu", "2.13.0+cu130"])
def test_torch_version_accepted(version: str) -> None:
    _versions.check_torch(version)


@pytest.mark.parametrize("version", ["2.12.1", "2.13.1+cpu", "2.13.01", "2.14.0", "3.0"])
def test_torch_version_rejected(version: str) -> None:
    with pytest.raises(
        ImportError, match=r"^\[flashpoint\] is built for torch 2\.13\.0.*pip install torch==2\.13\.0"
    ):
        _versions.check_torch(version)


def test_python_version() -> None:
    _versions.check_python("CPython", (3, 11, 7))
    for implementation, version in [("CPython", (3, 12, 1)), ("CPython", (3, 10, 0)), ("PyPy", (3, 11, 0))]:
        with pytest.raises(ImportError, match=r"^\[flashpoint\] needs CPython 3\.11, this is "):
            _versions.check_python(implementation, version)


@pytest.mark.slow
def test_missing_core_says_what_to_do(run_python, root, tmp_path) -> None:
    for file in (root / "flashpoint").glob("*.py"):
        (tmp_path / "flashpoint").mkdir(exist_ok=True)
        (tmp_path / "flashpoint" / file.name).write_text(file.read_text())
    done = run_python("-P", "-c", "import flashpoint", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "ImportError: [flashpoint] the native core (flashpoint._C) is not built" in done.stderr
    assert "make build" in done.stderr


@pytest.mark.slow
def test_broken_core_says_what_to_do(run_python, root, tmp_path) -> None:
    for file in (root / "flashpoint").glob("*.py"):
        (tmp_path / "flashpoint").mkdir(exist_ok=True)
        (tmp_path / "flashpoint" / file.name).write_text(file.read_text())
    (tmp_path / "flashpoint" / "_C.py").write_text("raise ImportError('undefined symbol: x')")
    done = run_python("-P", "-c", "import flashpoint", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "ImportError: [flashpoint] the native core does not load: undefined symbol: x" in done.stderr


@pytest.mark.slow
def test_sub_interpreters_are_refused(run_python) -> None:
    program = """
import sys, _xxsubinterpreters as interpreters
{before}
interpreters.run_string(interpreters.create(), '''
try:
    import flashpoint
except ImportError as error:
    print(error)
''')
"""
    for before in ("", "import flashpoint"):
        done = run_python("-c", program.format(before=before))
        assert done.returncode == 0, done.stderr
        assert "sub-interpreter" in done.stdout and "another process" in done.stdout
