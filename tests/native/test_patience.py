"""When code is generated: for what has much to gain at once, for small graphs late, for calls never."""

from __future__ import annotations

import threading

import pytest
import torch

import flashpoint
from flashpoint import counters


@pytest.fixture(autouse=True)
def patient():
    with flashpoint.config.patch(native_patience=10), torch.no_grad():
        yield


def chain(x, y):
    for _ in range(6):
        x = torch.relu(x * 0.9 + y) - y
    return x


def test_small_graphs_run_the_recorded_operators():
    compiled = flashpoint.compile(lambda x, y: torch.relu(x * 0.9 + y), backend="native")
    for n in range(20):
        x, y = torch.randn(4), torch.randn(4)
        assert torch.equal(compiled(x, y), torch.relu(x * 0.9 + y)), n
    assert counters()["hits"] == 19
    assert counters()["kernels_compiled"] == counters()["kernels_run"] == 0


def test_large_graphs_are_compiled_by_the_first_replay():
    compiled = flashpoint.compile(chain, backend="native")
    x, y = torch.randn(1 << 21), torch.randn(1 << 21)
    for n in range(3):
        assert torch.equal(compiled(x, y), chain(x, y)), n
    assert counters()["kernels_compiled"] + counters()["kernels_reused"] == 1
    assert counters()["kernels_run"] == 2


def test_small_graphs_are_compiled_when_they_have_run_for_long():
    compiled = flashpoint.compile(chain, backend="native")
    x, y = torch.randn(5), torch.randn(5)
    want = chain(x, y)
    for _ in range(20_000):
        got = compiled(x, y)
        if counters()["kernels_run"] > 2:
            break
    assert counters()["kernels_run"] > 2
    assert counters()["hits"] > 5
    assert torch.equal(got, want)


@pytest.mark.parametrize("share", [0, 10])
def test_graphs_of_calls_alone_have_no_kernels(share):
    compiled = flashpoint.compile(lambda x, w: torch.mm(x, w).t(), backend="native")
    x, w = torch.randn(64, 64), torch.randn(64, 64)
    with flashpoint.config.patch(native_patience=share):
        for _ in range(50):
            assert torch.equal(compiled(x, w), torch.mm(x, w).t())
    assert counters()["hits"] == 49
    assert counters()["kernels_compiled"] == counters()["kernels_reused"] == 0


def test_threads_meet_while_a_graph_is_compiled():
    compiled = flashpoint.compile(chain, backend="native")
    x, y = torch.randn(300, 700), torch.randn(700)
    want = chain(x, y)
    compiled(x, y)
    wrong = []

    def work() -> None:
        with torch.no_grad():
            for _ in range(5):
                if not torch.equal(compiled(x, y), want):
                    wrong.append(1)

    with flashpoint.config.patch(native_patience=0):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
    assert counters()["kernels_run"] > 0


def test_the_setting_is_a_percentage():
    with pytest.raises(ValueError, match="native_patience"):
        flashpoint.config.native_patience = -1
