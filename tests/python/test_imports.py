"""import statements in recorded functions: a module that is not loaded yet, and imports that fail."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import flashpoint

MODULES = {
    "fp_plain": "import torch\nC = torch.ones(3) * 2\ndef f(x): return x * C\n",
    "fp_missing": "import fp_not_there\n",
    "fp_raising": "raise ValueError('as it loads')\n",
    "fp_package/__init__": "",
    "fp_package/sub": "K = 3\n",
    "fp_package/late": "V = 5\n",
    "fp_package/lazy": "def __getattr__(name): return len(name)\n",
}
LOG = "import builtins\nbuiltins.fp_loaded.append(__name__)\n"


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the modules above, as they are loaded."""
    names: list[str] = []
    monkeypatch.setattr("builtins.fp_loaded", names, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, source in MODULES.items():
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(LOG + source)
    importlib.invalidate_caches()
    yield names
    for name in [name for name in sys.modules if name.startswith("fp_")]:
        del sys.modules[name]


def statement(x: torch.Tensor) -> Any:
    import fp_plain

    return fp_plain.f(x)


def submodule(x: torch.Tensor) -> Any:
    from fp_package import late, sub

    return x * sub.K + late.V


def dotted(x: torch.Tensor) -> Any:
    import fp_package.late as late

    return x * late.V


def by_function(x: torch.Tensor) -> Any:
    return x * importlib.import_module("fp_package.late").V


def by_builtin(x: torch.Tensor) -> Any:
    return x * __import__("fp_package.sub", fromlist=["K"]).K


def lazy_attribute(x: torch.Tensor) -> Any:
    from fp_package.lazy import four

    return x * four


@pytest.mark.parametrize("fn", [statement, submodule, dotted, by_function, by_builtin, lazy_attribute])
def test_modules_are_loaded_once(fn: Any, loaded: list[str]) -> None:
    compiled = flashpoint.compile(fn, backend="eager", fullgraph=True)
    before = flashpoint.counters()
    results = [compiled(torch.ones(3) * i) for i in range(3)]
    after = flashpoint.counters()
    assert len(loaded) == len(set(loaded)) > 0
    assert after["hits"] - before["hits"] == 2
    assert all(torch.equal(result, fn(torch.ones(3) * i)) for i, result in enumerate(results))


def missing(x: torch.Tensor) -> Any:
    try:
        import fp_missing
    except ImportError as error:
        return x + 1, str(error)
    return fp_missing


def raising(x: torch.Tensor) -> Any:
    try:
        from fp_raising import anything
    except ValueError as error:
        assert error.__traceback__ is not None
        return x + 2, str(error), error.__traceback__.tb_lineno - raising.__code__.co_firstlineno
    return anything


@pytest.mark.parametrize("fn", [missing, raising])
def test_a_failing_import_is_tried_once_per_call(fn: Any, loaded: list[str]) -> None:
    compiled = flashpoint.compile(fn, backend="eager")
    for i in range(4):
        loaded.clear()
        expected = fn(torch.ones(3) * i)
        as_eager = list(loaded)
        loaded.clear()
        assert repr(compiled(torch.ones(3) * i)) == repr(expected)
        assert loaded == as_eager


def test_an_import_that_fails_leaves_the_function(loaded: list[str]) -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        import fp_raising

        return y + fp_raising.K

    compiled = flashpoint.compile(fn, backend="eager")
    for _ in range(3):
        loaded.clear()
        with pytest.raises(ValueError, match="as it loads"):
            compiled(torch.ones(3))
        assert loaded == ["fp_raising"]
