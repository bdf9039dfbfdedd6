"""The same architectures through backend="native": generated code, equal to eager up to rounding."""

from __future__ import annotations

import pytest
import torch

import flashpoint
from tests.models.expected import ONE_GRAPH
from tests.models.test_models import NAMES
from tools.compare import differences
from tools.models import build


@pytest.mark.parametrize("name", NAMES)
def test_equals_eager(name: str) -> None:
    make_model, make_inputs = build(name, tiny=True)
    eager, compiled = make_model(), flashpoint.compile(make_model(), backend="native")
    with torch.no_grad(), flashpoint.config.patch(poison_empty=True):
        for seed in range(3):
            expected = eager(**make_inputs(seed))
            flashpoint.reset_counters()
            actual = compiled(**make_inputs(seed))
            assert differences(expected, actual, atol=2e-5) == []
            if seed > 0 and name in ONE_GRAPH:
                counters = flashpoint.counters()
                assert counters["hits"] == 1 and counters["captures_started"] == 0, counters
                assert counters["kernels_run"] > 0, counters
