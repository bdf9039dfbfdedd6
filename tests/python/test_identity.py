"""Addresses of objects never become part of a recording."""

import pytest
import torch

import flashpoint


def by_name(x, y):
    return x + 1, x.__hash__() == hash(x)


def unbound(x, y):
    return x + 1, torch.Tensor.__hash__(x)


def order_of_a_set(x, y):
    return [t + 0 for t in {x, y}], len({x, y})


@pytest.mark.parametrize("fn", [by_name, unbound, order_of_a_set])
def test_an_address_is_no_constant(fn):
    compiled = flashpoint.compile(fn)
    keep = []
    for call in range(3):
        keep.append([torch.full((2,), float(2 * call + k)) for k in range(2)])
        found, expected = compiled(*keep[-1]), fn(*keep[-1])
        for a, b in zip(
            torch.utils._pytree.tree_leaves(found), torch.utils._pytree.tree_leaves(expected), strict=True
        ):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_membership_of_tensors_in_a_set_is_recorded():
    def fn(x, y):
        seen = {x}
        return x + 1 if y in seen else x + 2

    compiled = flashpoint.compile(fn)
    for _ in range(2):
        x = torch.ones(2)
        assert torch.equal(compiled(x, torch.zeros(2)), x + 2)
        assert torch.equal(compiled(x, x), x + 1)
    assert flashpoint.counters()["hits"] == 2


@pytest.mark.parametrize(
    "fn",
    [
        lambda x, y: x * len({x, y}),
        lambda x, y: x * (2 if y in {x: 1} else 3),
        lambda x, y: x * {x: 2, y: 3}[x],
    ],
)
def test_two_arguments_that_become_one(fn):
    compiled = flashpoint.compile(fn)
    for _ in range(2):
        x = torch.ones(2)
        assert torch.equal(compiled(x, torch.zeros(2)), fn(x, torch.zeros(2)))
        assert torch.equal(compiled(x, x), fn(x, x))


def test_modules_made_in_a_call_after_dynamo_has_run() -> None:
    """From its first compilation on TorchDynamo notes every module by its address."""

    class Sliced(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList([torch.nn.Linear(3, 3) for _ in range(3)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers[:2]:
                x = layer(x)
            return x

    torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2))
    model = Sliced()
    compiled = flashpoint.compile(model)
    for _ in range(2):
        flashpoint.reset_counters()
        x = torch.randn(2, 3)
        assert torch.equal(compiled(x), model(x))
    assert flashpoint.counters()["hits"] == 1
