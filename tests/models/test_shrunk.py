"""Architectures with configs made by rule: equal to eager and one graph each. A sweep."""

from __future__ import annotations

import copy

import pytest
import torch

import flashpoint
from flashpoint.explaining import inspect_compiled
from tests.models.shrunk import NAMES, build
from tools.compare import differences

# They log a warning at their first call, which is a break of the entry that stays in use.
WARN = frozenset(("big_bird", "bigbird_pegasus"))


@pytest.mark.sweep
@pytest.mark.parametrize("name", NAMES)
def test_equals_eager(name: str) -> None:
    make_model, make_inputs = build(name)
    model = make_model()
    eager, compiled = copy.deepcopy(model), flashpoint.compile(model)
    with torch.no_grad(), flashpoint.config.patch(poison_empty=True, value_guards=True):
        for seed in range(3):
            torch.manual_seed(seed)
            expected = eager(**make_inputs(seed))
            torch.manual_seed(seed)
            flashpoint.reset_counters()
            actual = compiled(**make_inputs(seed))
            assert differences(expected, actual) == []
    counters = flashpoint.counters()
    assert counters["hits"] == 1 and counters["captures_started"] == 0, counters
    if name in WARN:
        return
    told = inspect_compiled(compiled)
    assert told.graph_count == 1 and not told.breaks, str(told)


def test_there_are_many() -> None:
    assert len(NAMES) >= 150
