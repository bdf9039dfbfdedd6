"""Numbers that change from call to call: constants of FX graphs, so no call may see another one's."""

from __future__ import annotations

import pytest
import torch

import flashpoint
from tests.python.fx.support import Recording


@pytest.mark.parametrize("backend", ["recording", "aot_eager"])
@pytest.mark.parametrize(
    ("values", "graphs"), [(range(8), 5), ([0.5, 1.5, 2.5, 3.5, 4.5, 0.5], 5), ([1, 2.0, 3, 4.0], 8)]
)
def test_an_argument_that_changes(backend, values, graphs) -> None:
    def f(x, k):
        return (x + 1) * k - k

    recording = Recording()
    compiled = flashpoint.compile(f, backend=recording if backend == "recording" else backend)
    for k in values:
        for _ in range(2):
            x = torch.randn(3)
            torch.testing.assert_close(compiled(x, k), f(x, k))
    # The third value breaks before the number is used, from then on nothing is compiled anew (but for a type).
    assert recording.graphs <= graphs


def test_an_attribute_that_changes() -> None:
    class Scale(torch.nn.Module):
        factor = 1.0

        def forward(self, x):
            return torch.relu(x) * self.factor

    net, recording = Scale(), Recording()
    compiled = flashpoint.compile(net, backend=recording)
    for step in range(8):
        net.factor = float(step)
        x = torch.randn(3)
        torch.testing.assert_close(compiled(x), net(x))
    assert recording.graphs <= 8


def test_without_breaks_each_value_is_a_recording() -> None:
    recording = Recording()
    compiled = flashpoint.compile(lambda x, k: x * k, backend=recording, fullgraph=True)
    for k in (1, 2, 3, 4, 3, 2, 1):
        torch.testing.assert_close(compiled(torch.ones(2), k), torch.full((2,), float(k)))
    assert recording.graphs == 4 and flashpoint.counters()["hits"] == 3


def test_assertions_stay_in_the_graph() -> None:
    recording = Recording()

    def f(x):
        assert (x > 0).all()
        assert not (x > 5).any()
        return x + 1

    compiled = flashpoint.compile(f, backend=recording)
    for _ in range(3):
        torch.testing.assert_close(compiled(torch.ones(2)), torch.full((2,), 2.0))
    if recording.graphs == 1:
        for wrong in (-1.0, 6.0):
            with pytest.raises((AssertionError, RuntimeError)):
                compiled(torch.full((2,), wrong))
