"""`torch.compile(..., backend="flashpoint")`: TorchDynamo's graphs on our backends."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import flashpoint


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4), nn.Dropout(0.5))


@pytest.mark.parametrize("options", [None, {"backend": "eager"}])
def test_replays_dynamos_graphs(options) -> None:
    model = net().eval()
    compiled = torch.compile(model, backend="flashpoint", options=options)
    for call in range(3):
        x = torch.randn(2, 4)
        torch.testing.assert_close(compiled(x), model(x))
        assert (flashpoint.counters()["ops_replayed"] > 0) == (call > 0)


def test_training() -> None:
    torch.manual_seed(0)
    models = [net(), net()]
    models[1].load_state_dict(models[0].state_dict())
    compiled = torch.compile(models[1], backend="flashpoint")
    for seed in range(3):
        for model, call in ((models[0], models[0]), (models[1], compiled)):
            torch.manual_seed(seed)
            call(torch.randn(3, 4)).square().sum().backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.1 * p.grad
                    p.grad = None
        torch.testing.assert_close(models[1].state_dict(), models[0].state_dict())
    assert flashpoint.counters()["ops_replayed"] > 0


def test_dynamic_shapes_make_recordings_of_their_own() -> None:
    compiled = torch.compile(lambda x: x.reshape(-1) * x.shape[0], backend="flashpoint", dynamic=True)
    for size in (2, 3, 2, 3, 5, 5):
        x = torch.randn(size, 3)
        torch.testing.assert_close(compiled(x), x.reshape(-1) * size)
    assert flashpoint.counters()["ops_replayed"] > 0


def test_written_inputs_that_overlap() -> None:
    def f(x, y):
        x.add_(1)
        return x * y

    compiled = torch.compile(f, backend="flashpoint")
    for _ in range(3):
        a, b = torch.arange(4.0), torch.arange(4.0)
        torch.testing.assert_close(compiled(a[:3], a[1:]), f(b[:3], b[1:]))
        torch.testing.assert_close(a, b)


def test_regions() -> None:
    model = net().eval()
    compiled = torch.compile(model, backend="flashpoint")
    for _ in range(2):
        for region in (torch.no_grad, torch.enable_grad, lambda: torch.autocast("cpu", dtype=torch.bfloat16)):
            with region():
                x = torch.randn(2, 4)
                result, expected = compiled(x), model(x)
                torch.testing.assert_close(result, expected)
                assert result.requires_grad == expected.requires_grad


def test_unknown_option() -> None:
    compiled = torch.compile(net(), backend="flashpoint", options={"speed": "high"})
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="has one option"):
        compiled(torch.randn(2, 4))


@pytest.mark.slow
def test_it_is_found_whenever_dynamo_is_imported(run_python) -> None:
    text = "import {}\nimport {}\nassert 'flashpoint' in torch.compiler.list_backends()"
    for first, second in (("flashpoint, sys", "torch"), ("torch._dynamo", "flashpoint")):
        assert run_python("-c", text.format(first, second)).returncode == 0
    code = "import flashpoint, sys; assert 'torch._dynamo' not in sys.modules"
    assert run_python("-c", code).returncode == 0
