"""The comparison that the demo and the model tests rely on finds every kind of difference."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutput

from tools.compare import differences

x = torch.arange(6.0).reshape(2, 3)


def cache(tensor: torch.Tensor) -> DynamicCache:
    made = DynamicCache()
    made.update(tensor.reshape(1, 1, 2, 3), tensor.reshape(1, 1, 2, 3), 0)
    return made


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (x, x + 1),
        (x, x.double()),
        (x, x.reshape(3, 2)),
        (x, x.clone().requires_grad_()),
        (x, torch.where(x == 2, torch.nan, x)),
        (x, None),
        ([x], (x,)),
        ([x, x], [x]),
        ({"a": x}, {"b": x}),
        ({"a": x, "b": x}, {"b": x, "a": x}),
        ({"a": x}, {"a": x * 2}),
        (1, True),
        (1, 2),
        (BaseModelOutput(last_hidden_state=x), BaseModelOutput(last_hidden_state=x * 2)),
        (BaseModelOutput(last_hidden_state=x), BaseModelOutput(last_hidden_state=x, attentions=(x,))),
        (cache(x), cache(x * 2)),
        (x > 2, x > 3),
        (torch.inf * x, x),
        (torch.complex(x, x), torch.complex(x, -x)),
    ],
)
def test_different(left: object, right: object) -> None:
    assert differences(left, right) != []
    assert differences(right, left) != []


@pytest.mark.parametrize(
    "make",
    [
        lambda: x.clone(),
        lambda: torch.full((2,), torch.nan),
        lambda: float("nan"),
        lambda: [x.clone(), {"a": (x.clone(), None, "text", 3)}],
        lambda: BaseModelOutput(last_hidden_state=x.clone()),
        lambda: cache(x.clone()),
        lambda: x > 2,
    ],
)
def test_equal(make) -> None:
    assert differences(make(), make()) == []


def test_structures_that_hold_themselves() -> None:
    left: list = [x.clone()]
    left.append(left)
    right: list = [x.clone()]
    right.append(right)
    assert differences(left, right) == []
    right[0] = x + 1
    assert differences(left, right) == ["result[0]: values differ, by 1 at most"]


def test_tolerance() -> None:
    assert differences(x, x + 1e-6, atol=1e-5) == []
    assert differences(x, x + 1e-4, atol=1e-5) != []


def test_many_differences_are_cut() -> None:
    assert len(differences([0] * 100, [1] * 100)) == 20
