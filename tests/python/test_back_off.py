"""Where recordings keep failing nothing is recorded for a while; that ends, and explain says why."""

from __future__ import annotations

import torch

import flashpoint


def failing(x, bad):
    if bad:
        return x * 2, MemoryError("of C code")  # leaves the call, and nothing can make another one
    return x * 2, None


def test_the_rest_ends() -> None:
    compiled = flashpoint.compile(failing)
    x = torch.ones(2)
    flashpoint.reset_counters()
    started = []
    for _ in range(60):
        before = flashpoint.counters()["captures_started"]
        assert torch.equal(compiled(x, True)[0], x * 2)
        started.append(flashpoint.counters()["captures_started"] - before)
    assert 3 <= sum(started) <= 10, started
    assert any(started[20:]), "tried again after the first rest"
    counters = flashpoint.counters()
    assert counters["recordings_skipped"] == counters["eager_calls"] == started.count(0)


def test_bad_calls_do_not_keep_good_ones_from_being_recorded() -> None:
    compiled = flashpoint.compile(failing)
    x = torch.ones(2)
    for _ in range(6):
        compiled(x, True)
    report = flashpoint.explaining.inspect_compiled(compiled)
    assert (
        len(report.skipped) == 1 and "more calls" in report.skipped[0] and "not recorded for" in str(report)
    )
    for _ in range(9):
        compiled(x, False)
    flashpoint.reset_counters()
    assert torch.equal(compiled(x, False)[0], x * 2)
    assert flashpoint.counters()["hits"] == 1


def test_recompiles_name_the_guard() -> None:
    def fn(x, word):
        print(end="")
        return x * len(word)

    compiled = flashpoint.compile(fn)
    for word in ("ab", "cde"):
        for size in (2, 3):
            compiled(torch.ones(size), word)
    report = flashpoint.explaining.inspect_compiled(compiled)
    assert report.recompiles and any("size" in why or "tensor" in why for why in report.recompiles)
    costs = [(entry.frames, entry.slots) for entry in report.entries]
    assert (1, 2) in {(frames, min(slots, 2)) for frames, slots in costs} and (0, 0) in costs
    assert "up to a break: restores 1 frame" in str(report)
