"""Names for a graph's inputs, in the style of torch.compile: `L_self_modules_fc_parameters_weight_`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import FunctionType
from typing import Any

import torch

_ROOT = re.compile(r"^arg(\d+)")
_GLOBAL = re.compile(r"^G\((.*?)\)\['(.*?)'\]")
_INSTANCE_DICT = ".__dict__"
_NOT_A_NAME = re.compile(r"[^a-zA-Z0-9_]+")


def argument_names(
    function: object, positional: int, keywords: Sequence[str], first: object = None
) -> list[str]:
    """What the parameters of a call are called, in the order of its guarded arguments.

    Args:
        function: the Python function that was called, or None in the middle of one.
        positional: how many arguments were given by position, the receiver of a method included.
        keywords: names of those that were given by keyword.
        first: the first argument: for the call of a module its forward says the names.
    """
    if isinstance(first, torch.nn.Module) and function in _MODULE_CALLS:
        function = getattr(type(first).forward, "__wrapped__", type(first).forward)
    names: list[str] = []
    if isinstance(function, FunctionType):
        code = function.__code__
        names = list(code.co_varnames[: min(code.co_argcount, positional)])
        rest = code.co_varnames[code.co_argcount + code.co_kwonlyargcount :][:1] or ("args",)
        names += [f"{rest[0]}_{i}" for i in range(positional - len(names))]
    names += [f"arg{i}" for i in range(len(names), positional)]
    return [*names, *keywords]


_MODULE_CALLS = (torch.nn.Module.__call__, torch.nn.Module._wrapped_call_impl, torch.nn.Module._call_impl)


def input_name(path: str, arguments: Sequence[str]) -> str:
    """A placeholder's target for the way the guards reach the tensor; not yet unique."""
    text = _GLOBAL.sub(r"G_\2_", path)
    root = _ROOT.match(text)
    if root is not None:
        index = int(root[1])
        name = arguments[index] if index < len(arguments) else root[0]
        text = f"L_{name}_{text[root.end() :]}"
    text = text.replace(_INSTANCE_DICT, "").replace("['_", "['").replace(".grad", "_grad_")
    text = _NOT_A_NAME.sub("_", text)
    text = re.sub("__+", "_", text).strip("_")
    return f"{text}_" if text and not text[0].isdigit() else f"input_{text}_"


def unique(names: Sequence[str]) -> list[str]:
    """The same names, numbered where several are the same."""
    seen: dict[str, int] = {}
    result: list[Any] = []
    for name in names:
        count = seen.get(name, 0)
        seen[name] = count + 1
        result.append(name if count == 0 else f"{name}{count}")
    return result
