"""What all tests share: strict mode, one thread, counters that start at zero, a process of one's own."""

from __future__ import annotations

import os

# Read once by the core, so it comes before the first import: a failed internal check aborts the run.
os.environ["FLASHPOINT_STRICT"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import atexit  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

# The user's own store is neither read nor written; registered first, so it is removed after the last write.
# See tests/__init__.py for runs that keep one.
WITH_STORE = os.environ.get("FLASHPOINT_TEST_RECORDINGS") == "1"
if not (WITH_STORE and "FLASHPOINT_CACHE_DIR" in os.environ):
    os.environ["FLASHPOINT_CACHE_DIR"] = tempfile.mkdtemp(prefix="flashpoint-tests-")
    atexit.register(shutil.rmtree, os.environ["FLASHPOINT_CACHE_DIR"], ignore_errors=True)
# Tests count recordings: none is kept for, or taken from, another test. Those of the store ask for it.
os.environ["FLASHPOINT_RECORDINGS"] = "1" if WITH_STORE else "0"

import pytest  # noqa: E402
import torch  # noqa: E402

import flashpoint  # noqa: E402

torch.set_num_threads(1)
# The backend of tests that name none. Most compare bit for bit, which the default, "native", does not
# promise; the fast tests pass with it as well, but for a few that do.
flashpoint.compile.__kwdefaults__["backend"] = os.environ.get("FLASHPOINT_TEST_BACKEND", "eager")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    """Nothing compiled, counters at zero, default settings, the same random numbers in every test."""
    defaults = flashpoint.config.to_dict()
    flashpoint.reset()
    flashpoint.reset_counters()
    torch.manual_seed(0)
    # Tests count kernels: the first replay runs them. What the setting says is still its default.
    flashpoint._C.set_config("native_patience", 0)
    yield
    if WITH_STORE:  # as a process would that ends here
        flashpoint._C._recordings_write()
    for name, value in defaults.items():
        setattr(flashpoint.config, name, value)


@pytest.fixture
def root() -> Path:
    """The source tree."""
    return ROOT


@pytest.fixture
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python with the arguments given, importing the same flashpoint as this process does."""

    def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
        # No working directory or script folder on the path: a staged build must not be shadowed by the tree.
        path = [str(Path(flashpoint.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        own = {"PYTHONPATH": os.pathsep.join(filter(None, path)), "PYTHONSAFEPATH": "1"}
        return subprocess.run(
            [sys.executable, *args],
            cwd=ROOT,
            env={**os.environ, **own, **env},
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run
