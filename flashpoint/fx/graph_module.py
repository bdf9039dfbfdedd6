"""A recorded graph as a torch.fx.GraphModule.

Placeholders stand for the graph's inputs in order, the output is the tuple of its outputs. Nodes keep the
order in which the operators ran, so that writes stay where they were. Where grad mode, autocast or inference
mode changes in between, nodes set it, as in the graphs of torch.compile.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph, GraphModule
from torch.fx import Node as FxNode

from flashpoint.configuration import config
from flashpoint.fx import fakes, names, regions, targets
from flashpoint.fx.exported import Argument, Exported, HostFunction, Node, TensorMeta


class NotConvertible(Exception):
    """A graph with a node that no FX graph can hold."""


def build(exported: Exported, mode: FakeTensorMode) -> tuple[GraphModule, list[Any]]:
    """The graph module and the example inputs for a backend."""
    return _Builder(exported, mode).run()


class HostCall:
    """A call of the program's own code that stays one: `autograd.Function.apply`, with its constants."""

    def __init__(self, function: HostFunction) -> None:
        self._function = function
        self.__name__ = getattr(function.callable, "__qualname__", "host_call").replace(".", "_")
        self.__qualname__ = self.__name__
        self.__module__ = __name__

    def __call__(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        f = self._function
        rest = iter(tensors)
        result = f.callable(
            *(next(rest) if tensor else value for value, tensor in zip(f.arguments, f.is_tensor, strict=True))
        )
        parts = result if f.returns_tuple else (result,)
        return [part for part in parts if isinstance(part, torch.Tensor)]


class _Builder:
    def __init__(self, exported: Exported, mode: FakeTensorMode) -> None:
        self.exported = exported
        self.mode = mode
        self.graph = Graph()
        self.root: dict[str, Any] = {}
        self.values: dict[int, FxNode] = {}
        self.torch_level = config.fx_torch_targets

    def run(self) -> tuple[GraphModule, list[Any]]:
        exported = self.exported
        examples = self.placeholders()
        region = regions.Regions(self.graph)
        for node in exported.nodes:
            region.enter(exported.states[node.state])
            self.node(node)
        region.leave()
        self.graph.output(tuple(self.values[value] for value in exported.outputs))
        root = torch.nn.Module()
        for name, value in self.root.items():
            setattr(root, name, value)
        return GraphModule(root, self.graph, class_name="GraphModule"), examples

    def placeholders(self) -> list[Any]:
        exported = self.exported
        targets = names.unique([names.input_name(s.path, exported.arguments) for s in exported.sources])
        examples = []
        for value, source, target in zip(exported.inputs, exported.sources, targets, strict=True):
            annotation = type(source.tensor) if isinstance(source.tensor, torch.Tensor) else torch.Tensor
            placeholder = self.graph.placeholder(target, type_expr=annotation)
            example, fake = fakes.example_input(self.mode, source, exported.values[value])
            placeholder.meta["example_value"] = placeholder.meta["val"] = fake
            placeholder.meta["tensor_dict"] = {}
            self.values[value] = placeholder
            examples.append(example)
        return examples

    def node(self, node: Node) -> None:
        last = next(iter(reversed(self.graph.nodes)), None)
        self.add(node)
        self.locate(node, last)

    def locate(self, node: Node, last: FxNode | None) -> None:
        """Says of the nodes behind `last` where the program called them."""
        trace = self.exported.trace
        call = trace.call(node.location)
        if call is None:
            return
        stack = trace.stack_trace(call)
        modules = trace.module_stack(call, self.exported.arguments)
        for made in reversed(self.graph.nodes):
            if made is last:
                return
            made.meta["stack_trace"] = stack
            if modules:
                made.meta["nn_module_stack"] = modules
            if made.op in ("call_function", "call_method"):
                made.meta["source_fn_stack"] = [(made.name, made.target)]

    def add(self, node: Node) -> None:
        if node.operator.startswith("flashpoint::"):
            made = self.pseudo(node)
        else:
            made = self.operator_call(node)
        self.results(node, made)

    def results(self, node: Node, made: FxNode) -> None:
        outputs = node.outputs
        if len(outputs) == 1:
            self.result(outputs[0], made)
            return
        for i, output in enumerate(outputs):
            self.result(output, self.graph.call_function(operator.getitem, (made, i)))

    def result(self, output: int | list[int], made: FxNode) -> None:
        if isinstance(output, int):
            self.values[output] = made
            self.describe(made, self.exported.values[output])
            return
        for i, value in enumerate(output):
            self.values[value] = self.graph.call_function(operator.getitem, (made, i))
            self.describe(self.values[value], self.exported.values[value])

    def describe(self, made: FxNode, meta: TensorMeta | None) -> None:
        fake = fakes.fake_of(self.mode, meta)
        if fake is not None:
            made.meta["example_value"] = made.meta["val"] = fake

    def operator_call(self, node: Node) -> FxNode:
        overload = find_overload(node)
        call = self.exported.trace.call(node.location) if self.torch_level else None
        target = None if call is None else self.exported.trace.target(call)
        if target is not None:
            found = targets.torch_call(target, node, overload._schema, self.exported.values)
            if found is not None:
                args = targets.map_values(found.args, self.values.__getitem__)
                kwargs = targets.map_values(found.kwargs, self.values.__getitem__)
                if found.method:
                    return self.graph.call_method(found.name, args, kwargs)
                return self.graph.call_function(found.target, args, kwargs)
        args, kwargs = self.bind(overload._schema, node.arguments)
        return self.graph.call_function(overload, args, kwargs)

    def bind(self, schema: Any, arguments: list[Argument]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments by position and by keyword, those at the end that equal their defaults left out."""
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        needed = 0
        for formal, argument in zip(schema.arguments, arguments, strict=True):
            value = self.argument(argument)
            default = argument[0] == "=" and formal.has_default_value() and _same(value, formal.default_value)
            if formal.kwarg_only:
                if not default:
                    kwargs[formal.name] = value
                continue
            args.append(value)
            if not default:
                needed = len(args)
        return tuple(args[:needed]), kwargs

    def argument(self, argument: Argument) -> Any:
        kind, content = argument
        if kind == "%":
            return self.values[content]
        if kind == "[":
            return [self.argument(item) for item in content]
        return content

    def pseudo(self, node: Node) -> FxNode:
        what = node.operator.removeprefix("flashpoint::")
        if what == "constant":
            name = f"_tensor_constant{len(self.root)}"
            self.root[name] = node.arguments[0][1]
            literal = self.graph.create_node("get_attr", name)
            # A fresh tensor in every run, so that writing to it is harmless.
            return self.graph.call_function(torch.ops.aten.lift_fresh_copy.default, (literal,))
        if what == "data":
            return self.graph.call_function(
                torch._C._autograd._get_data_attr, (self.argument(node.arguments[0]),)
            )
        if what == "host_call":
            index = node.arguments[0][1]
            call = HostCall(self.exported.functions[index])
            return self.graph.call_function(call, tuple(self.argument(node.arguments[1])))
        if what == "expect_true":  # of an assert statement; raises in a run, as under torch.compile
            value = self.argument(node.arguments[0])
            if not node.arguments[1][1]:
                value = self.graph.call_function(torch.logical_not, (value,))
            return self.graph.call_function(torch._assert_async, (value, "assertion failed"))
        raise NotConvertible(f"{node.operator} has no form in an FX graph")


def find_overload(node: Node) -> Any:
    """torch.ops' object for a node's operator."""
    namespace, name = node.operator.split("::")
    return getattr(getattr(getattr(torch.ops, namespace), name), node.overload or "default")


def _same(a: object, b: object) -> bool:
    return type(a) is type(b) and a == b
