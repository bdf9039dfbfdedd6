"""fullgraph=True and settings of TorchDynamo: what raises, with which error, what the replay checks."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo
from torch import Tensor

import flashpoint


def test_the_error_is_the_peers() -> None:
    def fn(x: Tensor) -> Tensor:
        print(end="")
        return x + 1

    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"fullgraph=True.*print"):
        flashpoint.compile(fn, fullgraph=True, backend="eager")(torch.ones(2))


@pytest.mark.parametrize("handler", ["return x", "raise ValueError('made of it')", "raise"])
def test_a_program_that_catches_the_error(handler: str) -> None:
    names: dict = {}
    source = f"def fn(x):\n  try:\n    print(end='')\n  except RuntimeError:\n    {handler}\n  return x + 1"
    exec(source, names)
    with pytest.raises(RuntimeError, match="fullgraph=True"):
        flashpoint.compile(names["fn"], fullgraph=True, backend="eager")(torch.ones(2))


def test_an_error_of_the_program_is_its_own() -> None:
    def fn(x: Tensor) -> Tensor:
        raise ValueError("of the program")

    with pytest.raises(ValueError, match="of the program"):
        flashpoint.compile(fn, fullgraph=True, backend="eager")(torch.ones(2))


def bounded(n: Tensor, x: Tensor) -> Tensor:
    k = n.item()
    torch._check(k >= 0)
    torch._check(k < x.shape[0])
    return x[:k] * 2


def counted(n: Tensor, x: Tensor) -> Tensor:
    k = n.item()
    r = torch.arange(k, dtype=torch.float32)
    return r + 1 if r.size(0) == k else r


def indexed(n: Tensor, x: Tensor) -> Tensor:
    return x[n.item()]


def nothing_of_it(n: Tensor, x: Tensor) -> float:
    return (x * n.item()).sum().item() / 2


@pytest.mark.parametrize("backend", ["eager", "native"])
@pytest.mark.parametrize("fn", [bounded, counted, indexed])
def test_a_number_that_is_used_as_a_size_is_checked(fn: object, backend: str) -> None:
    compiled = flashpoint.compile(fn, fullgraph=True, backend=backend)
    x = torch.arange(8.0)
    for n in (4, 4, 3, 3, 4, 2):
        before = flashpoint.counters()
        assert torch.equal(compiled(torch.tensor(n), x), fn(torch.tensor(n), x))
    after = flashpoint.counters()
    assert after["captures_started"] == before["captures_started"] + 1  # 2 was new
    compiled(torch.tensor(3), x)
    assert flashpoint.counters()["captures_started"] == after["captures_started"]


def test_a_number_that_is_not_is_a_value_of_the_graph() -> None:
    compiled = flashpoint.compile(nothing_of_it, fullgraph=True, backend="eager")
    x = torch.arange(8.0)
    compiled(torch.tensor(1), x)
    before = flashpoint.counters()["captures_started"]
    for n in range(12):
        assert compiled(torch.tensor(n), x) == nothing_of_it(torch.tensor(n), x)
    assert flashpoint.counters()["captures_started"] == before


def test_after_a_write_it_is_a_break() -> None:
    def fn(n: Tensor, x: Tensor) -> Tensor:
        x.add_(1)
        return x[: n.item()]

    with pytest.raises(RuntimeError, match="fullgraph=True"):
        flashpoint.compile(fn, fullgraph=True, backend="eager")(torch.tensor(3), torch.ones(4))


def test_torch_dynamos_setting_is_heard() -> None:
    def fn(n: Tensor, x: Tensor) -> Tensor:
        return x * n.item()

    with torch._dynamo.config.patch(capture_scalar_outputs=True):
        compiled = flashpoint.compile(fn, backend="eager")
        compiled(torch.tensor(2.0), torch.ones(2))
        before = flashpoint.counters()
        assert compiled(torch.tensor(5.0), torch.ones(2)).tolist() == [5.0, 5.0]
        assert flashpoint.counters()["breaks_resumed"] == before["breaks_resumed"]
        assert flashpoint.counters()["hits"] == before["hits"] + 1


def test_error_on_recompile() -> None:
    compiled = flashpoint.compile(lambda x, scale: x * len(scale), backend="eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled(torch.ones(2), (1, 2))
        compiled(torch.ones(2), (1, 2))
        with pytest.raises(torch._dynamo.exc.RecompileError, match=r"error_on_recompile.*does not fit"):
            compiled(torch.ones(2), (1, 2, 3))
    assert compiled(torch.ones(2), (1, 2, 3)).tolist() == [3.0, 3.0]


@torch.jit.script
def soft_clamp(x: torch.Tensor, limit: float):
    return (x / limit).tanh() * limit


def test_scripted_functions_are_inlined() -> None:
    compiled = flashpoint.compile(lambda x: soft_clamp(x, 5.0) + 1, fullgraph=True)
    flashpoint.reset_counters()
    for _ in range(3):
        x = torch.randn(4, requires_grad=True)
        got, want = compiled(x), soft_clamp(x, 5.0) + 1
        assert torch.equal(got, want)
        torch.testing.assert_close(
            torch.autograd.grad(got.sum(), x)[0], torch.autograd.grad(want.sum(), x)[0]
        )
    assert flashpoint.counters()["captures_started"] == 1
    assert flashpoint.counters()["hits"] == 2


def test_traced_functions_keep_what_was_traced() -> None:
    with pytest.warns(torch.jit.TracerWarning):
        traced = torch.jit.trace(lambda x: x + 1 if x.sum() > 0 else x - 1, torch.ones(2), check_trace=False)
    compiled = flashpoint.compile(lambda x: traced(x) * 2)
    for x in (torch.ones(2), -torch.ones(2), torch.zeros(2)):
        assert torch.equal(compiled(x), (x + 1) * 2)


def test_sections_of_tensor_split_are_known() -> None:
    def fn(x):
        a, b = torch.tensor_split(x, (1,), dim=2)
        c, d = torch.tensor_split(x, 2, dim=1)
        return b.reshape(b.shape[0], -1) + b.shape[2], c.flatten(), d, a

    compiled = flashpoint.compile(fn, fullgraph=True)
    for _ in range(3):
        x = torch.randn(2, 3, 4)
        for got, want in zip(compiled(x), fn(x), strict=True):
            assert torch.equal(got, want)


def test_a_break_is_an_error_each_time() -> None:
    """However often it was tried, nothing runs eagerly in silence."""
    ran = []

    def fn(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        print(end="")
        ran.append(1)
        return y * 2

    compiled = flashpoint.compile(fn, fullgraph=True)
    for _ in range(12):
        with pytest.raises(RuntimeError, match="fullgraph=True"):
            compiled(torch.ones(2))
    assert not ran
