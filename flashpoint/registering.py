"""Makes `torch.compile(..., backend="flashpoint")` known without importing TorchDynamo, which takes seconds.

An installed package is found by its entry point (pyproject.toml). Where flashpoint runs from a source tree,
the backend is registered as soon as TorchDynamo's registry is imported.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

NAME = "flashpoint"
_REGISTRY = "torch._dynamo.backends.registry"


def register() -> None:
    """Registers the backend now, or when the registry is imported."""
    registry = sys.modules.get(_REGISTRY)
    if registry is not None:
        _register_with(registry)
    else:
        sys.meta_path.insert(0, _Finder())


def backend(*args: Any, **kwargs: Any) -> Any:
    """flashpoint.fx.dynamo.flashpoint_backend, imported when it is first used."""
    from flashpoint.fx.dynamo import flashpoint_backend

    return flashpoint_backend(*args, **kwargs)


backend.__name__ = NAME


def _register_with(registry: Any) -> None:
    if NAME not in registry._COMPILER_FNS:
        registry.register_backend(backend, name=NAME)


class _Finder(importlib.abc.MetaPathFinder):
    """Waits for one module and registers the backend with it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != _REGISTRY:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        loader = spec.loader if spec is not None else None
        if spec is None or loader is None:
            return spec
        run = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            _register_with(module)

        loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
