"""CPython's own tests come out the same with every frame in the evaluator."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "cpython_tests.py"
_spec = importlib.util.spec_from_file_location("cpython_tests", TOOL)
cpython_tests = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = cpython_tests  # dataclasses look their module up
_spec.loader.exec_module(cpython_tests)

pytestmark = pytest.mark.skipif(not cpython_tests.available(), reason="no `test` package")


@pytest.mark.slow
def test_quick_modules():
    for result in cpython_tests.compare(cpython_tests.QUICK):
        assert result.note == "" and result.differences == [], result.module
        assert result.tests > 0
        assert result.share > 0.95, result.module


@pytest.mark.sweep
@pytest.mark.parametrize("module", cpython_tests.MODULES)
def test_module(module):
    [result] = cpython_tests.compare([module])
    assert result.differences == []
