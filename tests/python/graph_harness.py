"""Record a function, replay it on new inputs, and compare with eager execution in every respect."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import torch
from torch.utils._pytree import tree_leaves

os.environ.setdefault("FLASHPOINT_STRICT", "1")  # a failed internal check aborts

from flashpoint import _C  # noqa: E402

SEED = 1234


def tensors_of(result: object) -> list[torch.Tensor]:
    """The tensors among the leaves of tuples and lists, in order: what a recording returns."""
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def fresh_like(tensor: torch.Tensor) -> torch.Tensor:
    """Another tensor of the same metadata and other data."""
    if tensor.device.type == "meta":
        return torch.empty_like(tensor)
    if tensor.dtype == torch.bool:
        return ~tensor
    if tensor.is_floating_point() or tensor.is_complex():
        other = torch.randn_like(tensor.detach())
        return (
            other.abs() if bool((tensor.detach().abs() == tensor.detach()).all()) else other
        ).requires_grad_(tensor.requires_grad)
    return tensor.flip(0).clone() if tensor.dim() else tensor.clone()


def copies(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Independent tensors with the same data, strides and requires_grad."""
    return [t.detach().clone().requires_grad_(t.requires_grad) for t in tensors]


def assert_same(got: Sequence[torch.Tensor], want: Sequence[torch.Tensor]) -> None:
    """Bitwise equal values, and equal metadata."""
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and a.device == b.device
        assert a.stride() == b.stride()
        assert a.requires_grad == b.requires_grad
        assert a.is_inference() == b.is_inference()
        if a.device.type != "meta":
            assert torch.equal(torch.nan_to_num(a.detach()), torch.nan_to_num(b.detach())), (a, b)


def record(fn: Callable, *inputs: torch.Tensor) -> tuple[_C.Graph, object]:
    """Record, and check what holds for every recording: it verifies and its text reads back."""
    graph, result = _C._graph_record(fn, *inputs)
    if graph.break_reason is None:
        assert graph.verify() == ""
        text = graph.text()
        again = _C._graph_parse(text)
        assert again == graph
        assert again.text() == text
    return graph, result


def check(fn: Callable, *inputs: torch.Tensor, others: Sequence[torch.Tensor] | None = None) -> _C.Graph:
    """Recording and replays on old and new inputs equal eager: results, mutated inputs, random state."""
    eager_inputs, recorded_inputs = copies(inputs), copies(inputs)
    torch.manual_seed(SEED)
    want = tensors_of(fn(*eager_inputs))
    torch.manual_seed(SEED)
    graph, result = record(fn, *recorded_inputs)
    assert graph.break_reason is None, f"{graph.break_reason}: {graph.break_detail}"
    assert_same(tensors_of(result), want)
    assert_same(recorded_inputs, eager_inputs)

    others = [fresh_like(t) for t in inputs] if others is None else list(others)
    for run in (graph.run, graph.run, graph.run_poisoned):
        for data in (list(inputs), others):
            eager_inputs, replay_inputs = copies(data), copies(data)
            torch.manual_seed(SEED)
            want = tensors_of(fn(*eager_inputs))
            state = torch.get_rng_state()
            torch.manual_seed(SEED)
            got = run(*replay_inputs)
            assert_same(got, want)
            assert_same(replay_inputs, eager_inputs)
            assert torch.equal(torch.get_rng_state(), state)
    return graph


def breaks(fn: Callable, *inputs: torch.Tensor) -> str | None:
    """The reason a recording of fn breaks, having checked that its result is eager's all the same."""
    torch.manual_seed(SEED)
    want = tensors_of(fn(*copies(inputs)))
    torch.manual_seed(SEED)
    graph, result = record(fn, *copies(inputs))
    for a, b in zip(tensors_of(result), want, strict=True):
        assert torch.equal(torch.nan_to_num(a.detach()), torch.nan_to_num(b.detach()))
    return graph.break_reason
