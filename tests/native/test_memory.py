"""Which memory results lie in, and how much of it is alive at once."""

from __future__ import annotations

import torch
from torch.profiler import ProfilerActivity, profile

import flashpoint
from flashpoint import counters

SIZE = 256 * 256 * 4


def peak(call) -> int:
    """The most bytes of tensors that the call had at once, beside those that were there."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as told:
        call()
    now = most = 0
    for event in told.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def compiled(fn, *inputs):
    native = flashpoint.compile(fn, backend="native")
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(native(*inputs), fn(*inputs), rtol=1e-5, atol=1e-4)
    assert counters()["kernels_run"] >= 2
    return native


def test_a_result_takes_over_what_nobody_needs():
    def fn(x, w):
        return torch.relu((x @ w) * 2 + 1) - x

    x, w = torch.randn(256, 256), torch.randn(256, 256)
    native = compiled(fn, x, w)
    before = (x.clone(), w.clone())
    with torch.no_grad():
        assert peak(lambda: native(x, w)) <= SIZE + 1024 < peak(lambda: fn(x, w))
        first, second = native(x, w), native(x, w)
    assert torch.equal(first, second)
    assert first.data_ptr() != second.data_ptr()
    assert torch.equal(x, before[0])
    assert torch.equal(w, before[1])


def test_what_somebody_has_stays():
    def fn(x, w):
        y = x @ w
        z = torch.relu(y * 2 + 1)
        v = torch.tanh((z @ w).t() * 2)
        return y, z, y.t(), v

    x, w = torch.randn(256, 256), torch.randn(256, 256) / 16
    native = compiled(fn, x, w)
    with torch.no_grad():
        y, z, seen, v = native(x, w)
    assert y.data_ptr() == seen.data_ptr()
    assert len({t.data_ptr() for t in (x, w, y, z, v)}) == 5
    assert (y._version, z._version) == (0, 0)


def test_shifted_and_transposed_reads_do_not_take_over():
    def fn(x, w):
        y = x @ w
        return y[1:] * 2 + y[:-1], (x @ x).t() + (x @ x), (w @ x).expand(2, 256, 256) * 2 + 1

    compiled(fn, torch.randn(256, 256), torch.randn(256, 256) / 16)


def test_memory_of_numpy_is_left_alone():
    array = torch.randn(256, 256).numpy()
    want = array.copy()
    native = flashpoint.compile(lambda x: torch.relu(x * 2 + 1), backend="native")
    with torch.no_grad():
        for _ in range(3):
            native(torch.from_numpy(array))
    assert (array == want).all()


def test_rows_that_are_read_twice():
    def fn(x, w):
        return torch.softmax((x @ w) * 0.1, -1)

    compiled(fn, torch.randn(256, 256), torch.randn(256, 256))


def test_inference_tensors():
    native = flashpoint.compile(lambda x, w: torch.relu((x @ w) * 2 + 1), backend="native")
    x, w = torch.randn(64, 64), torch.randn(64, 64)
    with torch.inference_mode():
        for _ in range(3):
            got = native(x, w)
        assert got.is_inference()
        torch.testing.assert_close(got, torch.relu((x @ w) * 2 + 1))
    assert counters()["kernels_run"] == 2
