"""`flashpoint.report`: one page of all that is compiled in this process."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.resources
import linecache
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from flashpoint import _C
from flashpoint.explaining import Break, _count, inspect_compiled

_COUNTERS = (
    "hits",
    "captures_kept",
    "captures_dropped",
    "breaks_resumed",
    "misses",
    "eager_calls",
    "precompile_hits",
    "ops_recorded",
    "kernels_compiled",
)


def report(path: str | os.PathLike[str] = "flashpoint_report.html") -> Path:
    """Writes a page about everything that is compiled in this process: graphs, guards, breaks, why something
    was recorded again, and what it took.

    The page is one HTML file that loads nothing. Times of breaks are there when
    `flashpoint.config.measure_breaks` was on.

    Args:
        path: the file to write; one that exists is replaced.

    Returns:
        The absolute path.

    Raises:
        TypeError: path is no path.
        OSError: the file cannot be written.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"[flashpoint.report] path must be a path, not {type(path).__name__}")
    from jinja2 import Environment, StrictUndefined  # torch brings it along

    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.globals.update(duration=_duration, count=_count)
    counters = _C.counters()
    page = environment.from_string(_template()).render(
        when=datetime.datetime.now().astimezone().isoformat(" ", "seconds"),
        pid=os.getpid(),
        version=_version(),
        torch=torch.__version__,
        python=platform.python_version(),
        cpu=f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}",
        counters=[(name.replace("_", " "), counters[name]) for name in _COUNTERS],
        functions=sorted(_functions(), key=lambda f: (-f["hits"], f["told"].name)),
    )
    target = Path(path).absolute()
    target.write_text(page, encoding="utf-8")
    return target


def _template() -> str:
    return importlib.resources.files("flashpoint").joinpath("report.html.jinja").read_text(encoding="utf-8")


def _functions() -> Iterable[dict[str, Any]]:
    for core, backend in _C.compiled_functions():
        told = inspect_compiled(core)
        owner = getattr(core._torchdynamo_orig_callable, "__self__", None)
        code = getattr(core, "__code__", None)
        if isinstance(owner, torch.nn.Module):
            told = dataclasses.replace(told, name=type(owner).__name__)
            code = getattr(type(owner).forward, "__code__", None)
        yield {
            "told": told,
            "where": f"{code.co_filename}:{code.co_firstlineno}" if code is not None else "",
            "backend": backend if isinstance(backend, str) else backend.name,
            "hits": sum(entry.hits for entry in told.entries),
            "breaks": [_shown(found) for found in told.breaks],
        }


def _shown(found: Break) -> dict[str, Any]:
    line = linecache.getline(found.file, found.line).strip() if found.file and found.line else ""
    return {
        "told": found,
        "source": line,
        "hand_over": _duration(found.hand_over_us),
        "resume": _duration(found.resume_us),
    }


def _duration(microseconds: float) -> str:
    if microseconds < 0:
        return ""
    return f"{microseconds:.0f} us" if microseconds < 1000 else f"{microseconds / 1000:.1f} ms"


def _version() -> str:
    import flashpoint

    return flashpoint.__version__
