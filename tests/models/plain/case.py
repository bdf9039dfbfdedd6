"""What every family lists: how to make one model and its inputs.

To add one: a row in CASES of the family's file; `tests/models/test_plain.py` finds it by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """One model.

    make: the model; it is put in eval mode unless `training`. inputs: from a generator to the positional
    arguments of forward; shapes do not depend on the generator. kept: its recording meets no break; taking
    that off is a regression. changes: state or values that it reads differ from call to call, so that the
    last call may record again. grad: whether it can be run with gradients on. atol: how far a result may be
    from eager's, not 0 only where forward asks whether it is being compiled.
    """

    make: Callable[[], nn.Module]
    inputs: Callable[[torch.Generator], tuple[Any, ...]]
    kept: bool = True
    changes: bool = False
    grad: bool = True
    training: bool = False
    atol: float = 0.0


def normal(*shape: int) -> Callable[[torch.Generator], tuple[Tensor, ...]]:
    """Inputs: one float tensor."""
    return lambda g: (torch.randn(*shape, generator=g),)


def tokens(size: int, *shape: int) -> Callable[[torch.Generator], tuple[Tensor, ...]]:
    """Inputs: one tensor of numbers below `size`, none of them 0."""
    return lambda g: (torch.randint(1, size, shape, generator=g),)
