"""Torch-level calls for recorded operators: `torch.nn.functional.dropout` instead of `aten.dropout`.

The recording says which function of torch, tensor method or Python operator made an operator, not with which
arguments: those are derived from the operator's. So each form is tried before it is used: called on meta
tensors, it must give exactly the recorded operator with the recorded arguments.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from flashpoint import _C
from flashpoint.fx.calls import Target
from flashpoint.fx.exported import Argument, Node, TensorMeta


class Value(NamedTuple):
    """A value of the graph among the arguments of a call."""

    id: int


class TorchCall(NamedTuple):
    method: bool
    target: Callable[..., Any]
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


_known: dict[Any, bool] = {}
_LARGEST_TRIAL = 1 << 20
_MOST_KNOWN = 20_000
_IN_PLACE = frozenset(
    [
        "__ipow__",
        *(f"i{name}" for name in "add floordiv lshift matmul mul mod pow rshift sub truediv xor".split()),
    ]
)
_REDUCTIONS = {0: "none", 1: "mean", 2: "sum"}
# Where a Python function of torch calls a parameter otherwise than the operator does.
_OTHER_NAMES = {"input": ("self", "indices"), "training": ("train",), "self": ("input",), "dims": ("dim",)}


def torch_call(target: Target, node: Node, schema: Any, values: list[TensorMeta | None]) -> TorchCall | None:
    """The call of `target` that gives this node, or None where none was found."""
    for call in _forms(target, node, schema):
        if _gives(call, node, values):
            return call
    return None


def map_values(item: Any, of_value: Callable[[int], Any]) -> Any:
    """Arguments with each Value replaced."""
    if isinstance(item, Value):
        return of_value(item.id)
    if isinstance(item, slice):
        return slice(*(map_values(part, of_value) for part in (item.start, item.stop, item.step)))
    if type(item) in (list, tuple):
        return type(item)(map_values(part, of_value) for part in item)
    if type(item) is dict:
        return {key: map_values(part, of_value) for key, part in item.items()}
    return item


def _plain(argument: Argument) -> Any:
    kind, content = argument
    if kind == "%":
        return Value(content)
    return [_plain(item) for item in content] if kind == "[" else content


def _forms(target: Target, node: Node, schema: Any) -> Iterator[TorchCall]:
    named = {
        formal.name: _plain(argument)
        for formal, argument in zip(schema.arguments, node.arguments, strict=True)
    }
    if target.kind == "operator":
        yield from _operator_forms(target, node, list(named.values()))
        return
    method = target.kind == "method"
    if isinstance(target.callable, type(lambda: None)):
        signature = _signature(target.callable)
        if signature is not None:
            for omit in (True, False):
                kwargs = _by_name(signature, named, schema, node, omit)
                args = _leading(signature, kwargs)
                yield TorchCall(method, target.callable, target.name, args, kwargs)
        return
    args, kwargs, needed = [], {}, 0
    for formal in schema.arguments:
        value = named[formal.name]
        default = _is_default(formal, value)
        if formal.kwarg_only:
            if not default:
                kwargs[formal.name] = value
            continue
        args.append(value)
        needed = needed if default else len(args)
    yield TorchCall(method, target.callable, target.name, tuple(args[:needed]), kwargs)
    yield TorchCall(method, target.callable, target.name, tuple(args[:1]), {})  # half(), float(), ...


def _operator_forms(target: Target, node: Node, values: list[Any]) -> Iterator[TorchCall]:
    if target.name == "getitem":
        yield from _subscripts(node, values)
    elif target.name == "unary":
        for function in (operator.neg, operator.invert, operator.pos):
            yield TorchCall(False, function, function.__name__, tuple(values[:1]), {})
    elif len(values) >= 1:
        count = 1 if target.name in ("__pos__", "__neg__", "__abs__") else 2
        operands = tuple(values[:count])
        for args in (operands, operands[::-1]) if count == 2 else (operands,):
            function = target.callable
            # `number += tensor` is no statement that a graph's code could hold.
            if target.name in _IN_PLACE and not isinstance(args[0], Value):
                function = getattr(operator, target.name.strip("_")[1:])
            yield TorchCall(False, function, function.__name__, args, {})


def _subscripts(node: Node, values: list[Any]) -> Iterator[TorchCall]:
    whole = slice(None)
    indices: list[Any] = []
    if node.operator == "aten::select":
        dim, index = values[1], values[2]
        indices = [(whole,) * dim + (index,), (..., index)] if dim > 0 else [index]
    elif node.operator == "aten::slice":
        dim, start, stop, step = values[1:5]
        stops = (None, stop) if stop is not None and stop >= 2**62 else (stop,)
        for end in stops:
            part = slice(None if start == 0 else start, end, None if step == 1 else step)
            indices += [(whole,) * dim + (part,)] if dim > 0 else [part]
    elif node.operator == "aten::unsqueeze":
        indices = [(whole,) * values[1] + (None,) if values[1] > 0 else None]
    elif node.operator == "aten::index":
        parts = [whole if part is None else part for part in values[1]]
        indices = [parts[0]] if len(parts) == 1 else [tuple(parts)]
    for index in indices:
        yield TorchCall(False, operator.getitem, "getitem", (values[0], index), {})


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    kinds = {p.kind for p in signature.parameters.values()}
    return None if kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} else signature


def _by_name(
    signature: inspect.Signature, named: dict[str, Any], schema: Any, node: Node, omit: bool
) -> dict[str, Any]:
    """The operator's arguments as a Python function names them; with `omit` its defaults are left out."""
    formals = {formal.name: formal for formal in schema.arguments}
    kwargs: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        source = next((n for n in (name, *_OTHER_NAMES.get(name, ())) if n in named), None)
        has_default = parameter.default is not inspect.Parameter.empty
        if source is None:
            if name == "inplace" and node.operator.endswith("_"):
                kwargs[name] = True
            continue
        value = named[source]
        if isinstance(parameter.default, str) and name == "reduction":
            value = _REDUCTIONS.get(value, value)
        same = has_default and type(value) is type(parameter.default) and value == parameter.default
        if same or (omit and has_default and _is_default(formals[source], value)):
            continue
        kwargs[name] = value
    return kwargs


def _leading(signature: inspect.Signature, kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Takes those out of `kwargs` that can be given by position."""
    args = []
    for name, parameter in signature.parameters.items():
        if name not in kwargs or parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            break
        args.append(kwargs.pop(name))
    return tuple(args)


def _is_default(formal: Any, value: Any) -> bool:
    if not formal.has_default_value():
        return False
    default = formal.default_value
    return type(default) is type(value) and default == value


def _gives(call: TorchCall, node: Node, values: list[TensorMeta | None]) -> bool:
    ids: list[int] = []

    def number(value: int) -> Value:
        if value not in ids:
            ids.append(value)
        return Value(ids.index(value))

    args, kwargs = map_values(call.args, number), map_values(call.kwargs, number)
    metas = [values[i] for i in ids]
    wanted = _renumbered(node.arguments, {value: i for i, value in enumerate(ids)})
    if wanted is None or any(meta is None for meta in metas):
        return False
    if not metas and _size(node, values) > _LARGEST_TRIAL:  # without tensors it is tried for real
        return False
    key = (call.target, call.name, repr((args, kwargs, node.operator, node.overload, wanted)), tuple(metas))
    if key not in _known:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[key] = _try(call, args, kwargs, node, wanted, metas)
    return _known[key]


def _size(node: Node, values: list[TensorMeta | None]) -> int:
    """Elements of the node's results."""
    outputs = [o if isinstance(o, list) else [o] for o in node.outputs]
    return sum(math.prod(meta.sizes) for ids in outputs for i in ids if (meta := values[i]) is not None)


def _renumbered(arguments: list[Argument], numbers: dict[int, int]) -> list[Argument] | None:
    """The same with other names for values; None where one has none."""
    result: list[Argument] = []
    for kind, content in arguments:
        if kind == "%":
            if content not in numbers:
                return None
            content = numbers[content]
        elif kind == "[":
            content = _renumbered(content, numbers)
            if content is None:
                return None
        elif isinstance(content, torch.Tensor):
            return None
        result.append((kind, content))
    return result


def _try(
    call: TorchCall,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    node: Node,
    wanted: list[Argument],
    metas: list[TensorMeta | None],
) -> bool:
    try:
        with torch.no_grad():
            tensors = [torch.empty_strided(m.sizes, m.strides, dtype=m.dtype, device="meta") for m in metas]

            def run(*inputs: torch.Tensor) -> Any:
                given = map_values(args, lambda i: inputs[i])
                return call.target(*given, **map_values(kwargs, lambda i: inputs[i]))

            graph, result = _C._graph_record(run, *tensors)
        if graph.break_reason is not None:
            return False
        tried = graph.export()
        if len(tried["nodes"]) != 1:
            return False
        got = Node(*tried["nodes"][0])
        numbers = dict(zip(tried["inputs"], graph.sources, strict=True))
        same = (got.operator, got.overload) == (node.operator, node.overload)
        arguments = _renumbered(got.arguments, numbers)
    except Exception:  # whatever a guessed call does: it is not taken
        return False
    if not same or arguments is None or _exact(arguments) != _exact(wanted):
        return False
    return _shape(got.outputs) == _shape(node.outputs) and _returns(result, got.outputs, tried["outputs"])


def _returns(result: Any, outputs: list[int | list[int]], returned: list[int]) -> bool:
    """The call's result has the form of the operator's."""
    if len(outputs) == 1 and isinstance(outputs[0], int):
        return isinstance(result, torch.Tensor) and returned == outputs
    parts = outputs[0] if len(outputs) == 1 else outputs
    return isinstance(result, (tuple, list)) and returned == parts


def _shape(outputs: list[int | list[int]]) -> list[int]:
    return [-1 if isinstance(o, int) else len(o) for o in outputs]


def _exact(item: Any) -> Any:
    """Comparable, with the types of numbers, so that 1, 1.0 and True differ."""
    if isinstance(item, (list, tuple)):
        return [_exact(part) for part in item]
    return (type(item), repr(item)) if isinstance(item, (bool, int, float, complex)) else item
