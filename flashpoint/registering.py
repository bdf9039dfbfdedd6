"""Makes `torch.compile(..., backend="flashpoint")` known without importing TorchDynamo, which takes seconds.

An installed package is found by its entry point (pyproject.toml). Where flashpoint runs from a source tree,
the backend is registered as soon as TorchDynamo's registry is imported.
"""

from __future__ import annotations

from typing import Any

from flashpoint.importing import when_imported

NAME = "flashpoint"
_REGISTRY = "torch._dynamo.backends.registry"


def register() -> None:
    """Registers the backend now, or when the registry is imported."""
    when_imported(_REGISTRY, _register_with)


def backend(*args: Any, **kwargs: Any) -> Any:
    """flashpoint.fx.dynamo.flashpoint_backend, imported when it is first used."""
    from flashpoint.fx.dynamo import flashpoint_backend

    return flashpoint_backend(*args, **kwargs)


backend.__name__ = NAME


def _register_with(registry: Any) -> None:
    if NAME not in registry._COMPILER_FNS:
        registry.register_backend(backend, name=NAME)
