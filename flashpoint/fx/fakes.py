"""Fake tensors for the values of a recorded graph, all of one mode, with the metadata that was recorded."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from flashpoint.fx.exported import Source, TensorMeta


def new_mode() -> FakeTensorMode:
    """As TorchDynamo makes it; inductor asks for the shape environment even where no shape is symbolic."""
    return FakeTensorMode(shape_env=ShapeEnv())


def fake_of(mode: FakeTensorMode, meta: TensorMeta | None) -> torch.Tensor | None:
    """A fake tensor of this metadata; None for an undefined tensor or one that is not strided."""
    if meta is None or meta.layout is not torch.strided:
        return None
    with mode, torch.no_grad():
        fake = torch.empty_strided(meta.sizes, meta.strides, dtype=meta.dtype, device=meta.device)
    # An integer tensor never requires a gradient, whatever operator made it.
    if meta.requires_grad:
        fake.requires_grad_(True)
    return fake


def example_input(
    mode: FakeTensorMode, source: Source, meta: TensorMeta | None
) -> tuple[torch.Tensor | None, FakeTensor | torch.Tensor | None]:
    """The tensor that a backend is shown for an input, and the fake one beside it.

    As with torch.compile the first is the program's own tensor. By now the program has run, though: a tensor
    that it has written to may have another history or other sizes than at entry, and then a fake one with the
    metadata at entry stands in for it.
    """
    tensor = source.tensor
    if isinstance(tensor, (int, float)):
        tensor = torch.tensor(tensor, dtype=torch.float64 if isinstance(tensor, float) else torch.int64)
        return tensor, mode.from_tensor(tensor, static_shapes=True)
    if tensor is not None and (not source.written or _is_as(tensor, meta)):
        return tensor, mode.from_tensor(tensor, static_shapes=True)
    fake = fake_of(mode, meta)
    return fake, fake


def _is_as(tensor: torch.Tensor, meta: TensorMeta | None) -> bool:
    return (
        meta is not None
        and tuple(tensor.shape) == meta.sizes
        and tensor.layout is meta.layout
        and (meta.layout is not torch.strided or tensor.stride() == meta.strides)
        and tensor.dtype is meta.dtype
        and tensor.requires_grad == meta.requires_grad
        and (tensor.is_leaf or not tensor.requires_grad)
    )
