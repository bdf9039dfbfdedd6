"""Which torch and which Python this package works with: checked before the native core is loaded.

The core reads CPython's own frames and links against one torch build, so a near miss would crash where a
clear error is wanted.
"""

from __future__ import annotations

import importlib
import importlib.util
import platform
import sys
from types import ModuleType

TORCH = "2.13.0"
PYTHON = (3, 11)


def check_python(implementation: str, version: tuple[int, ...]) -> None:
    """Raise ImportError unless this is CPython 3.11."""
    if implementation != "CPython" or tuple(version[:2]) != PYTHON:
        found = ".".join(map(str, version[:3]))
        raise ImportError(
            f"[flashpoint] needs CPython {PYTHON[0]}.{PYTHON[1]}, this is {implementation} {found}. "
            f"Make an environment with python{PYTHON[0]}.{PYTHON[1]} and install Flashpoint there."
        )


def check_interpreter() -> None:
    """Raise ImportError in a sub-interpreter: torch keeps state of the process that only one may use."""
    try:
        import _xxsubinterpreters as interpreters
    except ImportError:
        return  # an interpreter built without them
    if interpreters.get_current() != interpreters.get_main():
        raise ImportError(
            "[flashpoint] cannot be imported in a sub-interpreter, as torch cannot. "
            "Use it in the main interpreter, or start another process."
        )


def check_torch(version: str) -> None:
    """Raise ImportError unless `version` is the torch that the core is built for (any local build of it)."""
    if version.partition("+")[0] != TORCH:
        raise ImportError(
            f"[flashpoint] is built for torch {TORCH}, this is torch {version}. "
            f"Run `pip install torch=={TORCH}` in this environment."
        )


def import_torch() -> ModuleType:
    """torch, after its version was checked; importing it loads the libraries that the core links against."""
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"[flashpoint] torch could not be imported ({error}). Run `pip install torch=={TORCH}`."
        ) from error
    check_torch(torch.__version__)
    return torch


def import_core() -> ModuleType:
    """The native core, flashpoint._C.

    Raises ImportError, with what to do, when it was never built or does not load.
    """
    if importlib.util.find_spec("flashpoint._C") is None:
        raise ImportError(
            "[flashpoint] the native core (flashpoint._C) is not built. "
            "In a source tree run `make build`; otherwise install the wheel."
        )
    try:
        return importlib.import_module("flashpoint._C")
    except ImportError as error:
        raise ImportError(
            f"[flashpoint] the native core does not load: {error}. "
            f"It was probably built for another torch or Python; run `make build` again."
        ) from error


def check() -> None:
    """All checks that `import flashpoint` makes, in the order in which they can be trusted."""
    check_python(platform.python_implementation(), sys.version_info)
    check_interpreter()
    import_torch()
    import_core()
