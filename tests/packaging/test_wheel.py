"""The wheel holds all that is needed, and works where the source tree is not on the path."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import torch, flashpoint
f = flashpoint.compile(lambda x: x + 1)
assert [f(torch.ones(2)).sum().item() for _ in range(2)] == [4.0, 4.0]
assert flashpoint.counters()["hits"] == 1
print(flashpoint.__file__)
"""


def pip(*args: str) -> None:
    env = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *args]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_wheel_installs_and_runs(root: Path, tmp_path: Path) -> None:
    pip("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", str(tmp_path), str(root))
    (wheel,) = tmp_path.glob("flashpoint-*-cp311-cp311-linux_*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    sources = {str(file.relative_to(root)) for file in (root / "flashpoint").rglob("*.py")}
    assert sources | {"flashpoint/_C.pyi", "flashpoint/py.typed"} <= set(names)
    assert sum(name.startswith("flashpoint/_C.") and name.endswith(".so") for name in names) == 1
    assert not [name for name in names if name.startswith(("csrc/", "tests/", "tools/", "benchmarks/"))]

    site = tmp_path / "site"
    pip("install", "--no-deps", "--no-index", "--target", str(site), str(wheel))
    env = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-P", "-c", PROGRAM]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(site / "flashpoint" / "__init__.py")
