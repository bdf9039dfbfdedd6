"""What is called: the operators of torch's database, their sample inputs, and exact copies of those."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

VARIANTS = ("function", "method", "inplace", "out")


@dataclass(frozen=True)
class Case:
    """One call: which form of the operator, and with what. `again` has other values of the same metadata."""

    name: str
    variant: str
    grad: bool
    call: Callable[..., Any]
    first: tuple[Any, ...]  # input, args, kwargs
    again: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.name}[{self.variant}{', grad' if self.grad else ''}]"


@cache
def operators() -> tuple[Any, ...]:
    """Every entry of the database, sorted by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
    for name, module in list(sys.modules.items()):
        # Entries for random operators seed and restore the generator around the call; our runs do that.
        if name.startswith("torch.testing._internal") and hasattr(module, "wrapper_set_seed"):
            module.wrapper_set_seed = _unseeded
    return tuple(sorted(op_db, key=lambda op: (op.name, op.variant_test_name)))


def _unseeded(op: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return op(*args, **kwargs)


def full_name(op: Any) -> str:
    return f"{op.name}.{op.variant_test_name}" if op.variant_test_name else op.name


def dtype_of(op: Any) -> torch.dtype | None:
    """float32, or what comes closest to it among the types the operator takes; None: it does not run here."""
    dtypes = op.supported_dtypes("cpu")
    if not dtypes:
        return None
    preferred = (torch.float32, torch.complex64, torch.int64, torch.bool)
    return next((dtype for dtype in preferred if dtype in dtypes), None) or sorted(dtypes, key=str)[0]


def _draw(op: Any, dtype: torch.dtype, grad: bool, seed: int, limit: int | None) -> list[Any]:
    torch.manual_seed(seed)
    drawn = []
    for sample in op.sample_inputs("cpu", dtype, requires_grad=grad):
        if limit is not None and len(drawn) >= limit:
            break
        drawn.append((sample.input, tuple(sample.args), dict(sample.kwargs)))
    return drawn


def cases(op: Any, limit: int | None = None, dtype: torch.dtype | None = None) -> Iterator[Case]:
    """Every sample as a function call, with and without gradients; the first two in the other forms.

    dtype: float32 or what is closest to it if None. Nothing comes where the operator does not take it.
    """
    dtype = dtype or dtype_of(op)
    if dtype is None or dtype not in op.supported_dtypes("cpu"):
        return
    differentiable = op.supports_autograd and (dtype.is_floating_point or dtype.is_complex)
    forms = {
        "method": op.method_variant,
        "inplace": op.inplace_variant,
        "out": op.op if op.supports_out else None,
    }
    for grad in (False, True) if differentiable else (False,):
        first, again = _draw(op, dtype, grad, 1, limit), _draw(op, dtype, grad, 2, limit)
        for number, (sample, other) in enumerate(zip(first, again, strict=True)):
            yield Case(full_name(op), "function", grad, op.op, sample, other)
            for variant, call in forms.items():
                if call is not None and not grad and number < 2:
                    yield Case(full_name(op), variant, grad, call, sample, other)


def copied(value: Any, memo: dict[Any, Any]) -> Any:
    """Leaf tensors of the same data, strides, offset and requires_grad; shared memory stays shared."""
    if isinstance(value, torch.Tensor):
        if id(value) not in memo:
            memo[id(value)] = _copied_tensor(value, memo)
        return memo[id(value)]
    if type(value) in (list, tuple):
        return type(value)(copied(item, memo) for item in value)
    if type(value) is dict:
        return {key: copied(item, memo) for key, item in value.items()}
    return value


def _copied_tensor(tensor: torch.Tensor, memo: dict[Any, Any]) -> torch.Tensor:
    source = tensor.detach()
    if type(tensor) is not torch.Tensor or tensor.layout is not torch.strided or tensor.is_nested:
        return source.clone().requires_grad_(tensor.requires_grad)
    storage = source.untyped_storage()
    key = ("storage", storage._cdata)
    if key not in memo:
        memo[key] = storage.clone()
    copy = torch.empty(0, dtype=source.dtype, device=source.device)
    copy.set_(memo[key], source.storage_offset(), source.size(), source.stride())
    if source.is_conj():
        copy = torch._conj(copy)
    if source.is_neg():
        copy = torch._neg_view(copy)
    return copy.detach().requires_grad_(tensor.requires_grad)


def same_but_for_values(left: Any, right: Any) -> bool:
    """Whether an entry recorded for the one must answer the other."""
    if isinstance(left, torch.Tensor):
        if not isinstance(right, torch.Tensor) or left.layout is not right.layout:
            return False
        same = left.shape == right.shape and left.dtype == right.dtype and left.is_conj() == right.is_conj()
        return same and (left.layout is not torch.strided or left.stride() == right.stride())
    if type(left) is not type(right):
        return False
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same_but_for_values, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same_but_for_values(left[k], right[k]) for k in left)
    try:
        return bool(left == right) or left is right
    except RuntimeError:
        return False
