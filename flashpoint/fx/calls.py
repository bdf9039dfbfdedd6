"""Where the operators of a recorded graph were called from: frames, modules, torch's functions."""

from __future__ import annotations

import functools
import inspect
import linecache
import operator
import os
import re
import traceback
import types
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

_TORCH = os.path.dirname(torch.__file__) + os.sep
_CHILD = re.compile(r"\.__dict__\['_modules'\]\['([^']*)'\]")


class Frame(NamedTuple):
    code: types.CodeType | None  # None: a recording of another process, and not known here
    self: Any  # the first argument, where the guards know it
    path: str
    caller: int
    caller_instruction: int


class Call(NamedTuple):
    frame: int
    instruction: int
    event: int
    kind: str
    detail: int
    callable: Any


class Target(NamedTuple):
    """What a node may call instead of an ATen operator."""

    kind: str  # "function", "method" or "operator", whose operands may come in another order
    callable: Callable[..., Any]
    name: str


class Trace:
    """All calls of one recording; a node's location is the number of its call."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.frames = [Frame(*f) for f in raw["frames"]]
        self.calls = [Call(*c) for c in raw["calls"]]
        self._in_frame = Counter(frame for call in self.calls for frame, _ in self._chain(call))
        self._in_event = Counter((call.frame, call.event) for call in self.calls)

    def call(self, location: str) -> Call | None:
        return self.calls[int(location)] if location else None

    def _chain(self, call: Call) -> Iterator[tuple[int, int]]:
        """Frames from the innermost outwards, with the instruction that each is at."""
        frame, instruction = call.frame, call.instruction
        while frame >= 0:
            yield frame, instruction
            frame, instruction = self.frames[frame].caller, self.frames[frame].caller_instruction

    def stack_trace(self, call: Call) -> str:
        """The program's frames, outermost first, as Python prints them; torch's own where all are."""
        levels = []
        for frame, instruction in self._chain(call):
            code = self.frames[frame].code
            if code is not None:
                levels.insert(0, (code, instruction))
        own = [level for level in levels if not level[0].co_filename.startswith(_TORCH)]
        return "".join(
            traceback.StackSummary.from_list([_summary(*level) for level in own or levels]).format()
        )

    def module_stack(self, call: Call, arguments: list[str]) -> dict[str, tuple[str, type]]:
        """The modules being called, outermost first: a key of its own for each, its path and its class."""
        stack: dict[str, tuple[str, type]] = {}
        for frame, _ in reversed(list(self._chain(call))):
            module = self.frames[frame].self
            if isinstance(module, torch.nn.Module) and self.frames[frame].path:
                stack.setdefault(
                    str(id(module)), (_module_path(self.frames[frame].path, arguments), type(module))
                )
        return stack

    def target(self, call: Call) -> Target | None:
        """The torch-level callable whose only operator this was; the outermost where several are."""
        for frame, _ in reversed(list(self._chain(call))):
            code = self.frames[frame].code
            found = None if code is None else _python_functions().get(code)
            if found is not None and self._in_frame[frame] == 1:
                return found
        if call.event < 0 or self._in_event[call.frame, call.event] != 1:
            return None
        if call.kind == "call":
            return _c_callable(call.callable)
        return _operator(call.kind, call.detail)


def _summary(code: types.CodeType, instruction: int) -> traceback.FrameSummary:
    lines = _lines(code)
    index = instruction // 2
    line = (lines[index] if index < len(lines) else None) or code.co_firstlineno
    text = linecache.getline(code.co_filename, line).strip()
    return traceback.FrameSummary(code.co_filename, line, code.co_name, lookup_line=False, line=text)


@functools.lru_cache(maxsize=256)
def _lines(code: types.CodeType) -> list[int | None]:
    """The line of each instruction."""
    return [position[0] for position in code.co_positions()]


def _module_path(path: str, arguments: list[str]) -> str:
    """`arg0.__dict__['_modules']['fc']` as `L['self'].fc`."""
    root = re.match(r"arg(\d+)", path)
    if root is None:
        return path
    index = int(root[1])
    name = arguments[index] if index < len(arguments) else root[0]
    return f"L['{name}']" + _CHILD.sub(r".\1", path[root.end() :])


@functools.cache
def _python_functions() -> dict[types.CodeType, Target]:
    """torch's public functions and methods that are written in Python, by their code."""
    found: dict[types.CodeType, Target] = {}
    for module in (torch.nn.functional, torch.functional):
        for name, value in vars(module).items():
            if not isinstance(value, types.FunctionType) or not value.__module__.startswith("torch."):
                continue
            # Of a function that dispatches on a flag the halves are private.
            public = getattr(module, name.lstrip("_"), None)
            code = inspect.unwrap(value).__code__
            if code is not None and callable(public):
                found.setdefault(code, Target("function", public, public.__name__))
    for name, value in vars(torch.Tensor).items():
        if isinstance(value, types.FunctionType):
            code = _code(value)
            if code is None:
                continue
            if name.startswith("__"):
                special = _SPECIAL.get(name)
                if special is not None:
                    found[code] = Target("operator", special, name)
            elif not name.startswith("_"):
                found[code] = Target("method", value, name)
    return found


def _code(function: Callable[..., Any]) -> types.CodeType | None:
    return getattr(inspect.unwrap(function), "__code__", None)


_BINARY = (
    "add and_ floordiv lshift matmul mul mod or_ pow rshift sub truediv xor "
    "iadd iand ifloordiv ilshift imatmul imul imod ior ipow irshift isub itruediv ixor"
).split()
_COMPARE = (operator.lt, operator.le, operator.eq, operator.ne, operator.gt, operator.ge)
_SPECIAL = {
    "__pow__": operator.pow,
    "__rpow__": operator.pow,
    "__ipow__": operator.ipow,
    "__rsub__": operator.sub,
    "__rdiv__": operator.truediv,
    "__rtruediv__": operator.truediv,
    "__floordiv__": operator.floordiv,
    "__rfloordiv__": operator.floordiv,
    "__rmod__": operator.mod,
    "__rmatmul__": operator.matmul,
    "__rlshift__": operator.lshift,
    "__rrshift__": operator.rshift,
    "__pos__": operator.pos,
    "__neg__": operator.neg,
    "__abs__": abs,
}


def _operator(kind: str, detail: int) -> Target | None:
    if kind == "binary" and 0 <= detail < len(_BINARY):
        function = getattr(operator, _BINARY[detail])
    elif kind == "compare" and 0 <= detail < len(_COMPARE):
        function = _COMPARE[detail]
    elif kind == "unary":
        # The instruction's number is the interpreter's own; what fits is found by trying.
        return Target("operator", operator.neg, "unary")
    elif kind == "subscript":
        return Target("operator", operator.getitem, "getitem")
    else:
        return None
    return Target("operator", function, function.__name__)


def _c_callable(callable_: Any) -> Target | None:
    if isinstance(callable_, types.MethodDescriptorType):
        if issubclass(torch.Tensor, callable_.__objclass__):
            return Target("method", callable_, callable_.__name__)
        return None
    if not isinstance(callable_, types.BuiltinFunctionType):
        return None
    owner = callable_.__self__
    if isinstance(owner, torch.Tensor):
        return Target("method", getattr(torch.Tensor, callable_.__name__), callable_.__name__)
    for home in (torch, torch._C._nn, torch._C._linalg, torch._C._fft, torch._C._special):
        if getattr(home, callable_.__name__, None) is callable_:
            return Target("function", callable_, callable_.__name__)
    return None
