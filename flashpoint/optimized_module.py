"""What `flashpoint.compile(module)` returns: a module around the module.

Behaviour follows torch.compile's wrapper in torch 2.13 (torch/_dynamo/eval_frame.py, OptimizedModule): the
original is the only child, `_orig_mod`, so parameters, buffers and state_dict keys carry that prefix;
reading, setting and deleting other attributes goes to the original. Where that wrapper loses something of
the original, this one keeps it: truth value, iteration, indexing, hooks across a copy, and module-global
hooks, which run once as in eager instead of twice.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import Module

from flashpoint import _C

# The wrapper's own attributes; all others that its class does not have belong to the original.
_OWN = frozenset({"_orig_mod", "_core_options", "forward", "_super_module_initialized", "__dict__"})

# What Module.__call__ does beside calling forward hangs on these; nn.Module keeps them per instance.
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class OptimizedModule(Module):
    """A module whose calls run compiled. Made by `flashpoint.compile`; takes a module and the core's options.

    `_orig_mod` is the original, `forward` the compiled callable: it runs the original's `__call__`, so hooks
    on the original and its children are part of what is recorded. Hooks registered on the wrapper run around
    the compiled call.
    """

    _orig_mod: Module

    def __init__(self, module: Module, options: dict[str, Any] | None = None) -> None:
        # First of all, since Module.__init__ sets attributes, and setting one asks for the original.
        object.__setattr__(self, "_orig_mod", module)
        self._super_module_initialized = False
        super().__init__()
        self._super_module_initialized = True
        self._orig_mod = module  # now registered as a child
        self._core_options = dict(options or {})
        self.forward = _compiled_call(module, self._core_options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # forward runs the original's __call__, and with it the module-global hooks: Module.__call__ here
        # would run those a second time, so it is used only for hooks (or .compile()) of the wrapper itself.
        own = self.__dict__
        if self._compiled_call_impl is None and not any(own[name] for name in _HOOKS):
            return self.forward(*args, **kwargs)
        return super().__call__(*args, **kwargs)

    # Copies and pickles are the original's, wrapped again; what hangs on the wrapper itself goes along.
    def __reduce__(self) -> tuple[Any, ...]:
        own = {
            name: value
            for name, value in self.__dict__.items()
            if value and name not in _OWN and name not in ("_modules", "_compiled_call_impl")
        }
        return type(self), (self._orig_mod, self._core_options), own or None

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    # Without this one, `copy.deepcopy` would find the original's, if it has one, and lose the wrapper.
    def __deepcopy__(self, memo: dict[int, Any]) -> OptimizedModule:
        make, args, state = self.__reduce__()
        copied = make(*copy.deepcopy(args, memo))
        memo[id(self)] = copied
        if state is not None:
            copied.__setstate__(copy.deepcopy(state, memo))
        return copied

    @property
    def __class__(self) -> type:  # type: ignore[override]
        # isinstance() asks for it: code that unwraps what torch.compile returns knows this one as well.
        peer = sys.modules.get("torch._dynamo.eval_frame")
        return getattr(peer, "OptimizedModule", type(self))

    @property
    def dynamo_ctx(self) -> Callable[[Any], Any]:
        """Compiles another callable with this module's backend and options."""
        from flashpoint.compiling import wrap  # which needs this module first

        return functools.partial(wrap, core_options=self._core_options)

    @property
    def training(self) -> bool:  # type: ignore[override]
        return self._orig_mod.training

    @training.setter
    def training(self, value: bool) -> None:
        # Module.__init__ sets a default, which must not reach the original.
        if self._super_module_initialized:
            self._orig_mod.training = value

    def __getattr__(self, name: str) -> Any:
        if name == "_orig_mod":
            modules = self.__dict__.get("_modules")
            if modules is None or name not in modules:  # an instance whose __init__ has not run
                raise AttributeError(name)
            return modules[name]
        return getattr(self._orig_mod, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN or hasattr(type(self), name):
            super().__setattr__(name, value)
        else:
            setattr(self._orig_mod, name, value)

    def __delattr__(self, name: str) -> None:
        if name in _OWN or hasattr(type(self), name):
            super().__delattr__(name)
        else:
            delattr(self._orig_mod, name)

    def __dir__(self) -> list[str]:
        return sorted({*self._orig_mod.__dir__(), *super().__dir__()})

    # Special methods are looked up on the type, so __getattr__ never sees them. For an original without one,
    # the built-in raises as it would have: len(), iter(), ... name the original's type.
    def __len__(self) -> int:
        return len(self._orig_mod)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._orig_mod)  # type: ignore[call-overload]

    def __getitem__(self, key: Any) -> Any:
        return self._orig_mod[key]  # type: ignore[index]

    def __contains__(self, item: Any) -> bool:
        return item in self._orig_mod  # type: ignore[operator]

    def __bool__(self) -> bool:
        return bool(self._orig_mod)


def _compiled_call(module: Module, core_options: dict[str, Any]) -> Any:
    """The module's `__call__`, compiled. What inspects it finds the name and the parameters of `forward`."""
    call = module.__call__
    forward = _C.CompiledFunction(call, core_options)
    functools.update_wrapper(forward, module.forward, updated=())
    forward.__wrapped__ = call
    with contextlib.suppress(TypeError, ValueError):  # of C code, there may be no signature
        forward.__signature__ = inspect.signature(module.forward)
    return forward


def unwrap(module: Module) -> Module:
    """The original of a wrapped module; any other module as it is."""
    while isinstance(module, OptimizedModule):
        module = module._orig_mod
    if isinstance(module, torch.jit.ScriptModule):
        raise NotImplementedError(
            "[flashpoint.compile] TorchScript modules hold no Python code to record; "
            "compile the module they were scripted or traced from"
        )
    return module
