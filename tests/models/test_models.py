"""38 Hugging Face architectures in tiny sizes: every result, caches included, equals eager's."""

from __future__ import annotations

import pytest
import torch

import flashpoint
from flashpoint.explaining import inspect_compiled
from tests.models.expected import ONE_GRAPH
from tools.compare import differences
from tools.models import ARCHITECTURES, DEMO, build

NAMES = [*DEMO, *(name for name in ARCHITECTURES if name not in DEMO)]


@pytest.mark.parametrize("name", NAMES)
def test_equals_eager(name: str) -> None:
    make_model, make_inputs = build(name, tiny=True)
    eager, compiled = make_model(), flashpoint.compile(make_model())
    # A replay that lost the fill of a new tensor looks right when freed memory still holds the old values.
    with torch.no_grad(), flashpoint.config.patch(poison_empty=True):
        for seed in range(4):  # recorded at the first, replayed on new inputs at the others
            expected = eager(**make_inputs(seed))
            flashpoint.reset_counters()
            actual = compiled(**make_inputs(seed))
            assert differences(expected, actual, atol=ARCHITECTURES[name].atol) == []
            if seed > 0 and name in ONE_GRAPH:
                counters = flashpoint.counters()
                assert counters["hits"] == 1 and counters["captures_started"] == 0, counters
    if name in ONE_GRAPH:
        told = inspect_compiled(compiled)
        assert told.graph_count == 1 and not told.breaks, str(told)


def test_expected_names_exist() -> None:
    assert set(ARCHITECTURES) >= ONE_GRAPH
    assert len(NAMES) == len(set(NAMES)) == 38


@pytest.mark.parametrize("name", NAMES)
def test_inputs_differ_by_seed_only_in_values(name: str) -> None:
    _, make_inputs = build(name, tiny=True)
    first, again, other = make_inputs(0), make_inputs(0), make_inputs(1)
    assert differences(first, again) == []
    assert differences(first, other) != []
    for key in first:
        assert first[key].shape == other[key].shape and first[key].dtype == other[key].dtype
    masks = [value for key, value in first.items() if key.endswith("mask")]
    assert all((mask == 0).any() and (mask == 1).any() for mask in masks)
