"""A break forced at sampled events of whole models: results equal eager's, recorded and replayed."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import torch

import flashpoint
from flashpoint import _C
from tools.compare import differences
from tools.models import ARCHITECTURES, build


@pytest.fixture(autouse=True)
def no_forced_break_left() -> Iterator[None]:
    yield
    _C.set_config("break_at_event", 0)


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["bert", "gpt2", "t5", "whisper", "mixtral"])
def test_break_anywhere(name: str) -> None:
    make_model, make_inputs = build(name, tiny=True)
    model, rng, resumed = make_model(), random.Random(name), 0
    events = [int(2 ** rng.uniform(0, 13.5)) for _ in range(40)]
    with torch.no_grad():
        expected = [model(**make_inputs(seed)) for seed in range(2)]
        flashpoint.compile(model)(**make_inputs(0))
        for event in events:
            flashpoint.reset()
            flashpoint.reset_counters()
            _C.set_config("break_at_event", event)
            compiled = flashpoint.compile(model)
            for call in range(4):
                actual = compiled(**make_inputs(call % 2))
                assert differences(expected[call % 2], actual, atol=ARCHITECTURES[name].atol) == [], event
            resumed += flashpoint.counters()["resume_hits"] > 0
    assert resumed > len(events) // 2
