"""Shared by all tests: strict mode, one thread, a clean start for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator

os.environ.setdefault("FLASHPOINT_STRICT", "1")

import pytest  # noqa: E402
import torch  # noqa: E402

pytest_plugins = ["tests.isolate"]
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fresh_flashpoint() -> Iterator[None]:
    from tests.support import flashpoint

    flashpoint.reset()
    yield
    flashpoint.reset()
