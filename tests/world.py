"""Runs a program and a sequence of calls in a world of its own, and records everything a user could notice.

A program is Python source that defines `fn`, and may define `done`, which is called at the end. A world is
a fresh module made from it, so nothing (code objects, globals, classes, models) is shared between the eager
run and the compiled run. Random state, the working environment and the outputs are the same at the start of
each world and are put back at its end.
"""

from __future__ import annotations

import contextlib
import contextvars
import io
import linecache
import logging
import os
import random
import re
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from tests.describe import Line, _digest, describe, scrub, type_name

PRELUDE = """\
import abc, builtins, collections, contextlib, contextvars, copy, dataclasses, enum, functools, io, itertools
import json, logging, math, operator, os, pickle, queue, random, re, struct, sys, threading, time, types
import typing, warnings, weakref
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
x = torch.arange(6.0).reshape(2, 3)
y = torch.full((2, 3), 2.0)
"""
_IMPORTED = frozenset(re.findall(r"\w+", PRELUDE.partition("x =")[0])) - {"import", "as", "from"}
FILENAME = "<program>"
_CHUNK = "<step>"


@dataclass(frozen=True)
class Call:
    """One call of `fn`: statements run before it, its arguments as written in a call, an expression looked at
    after it (in which `r` is the result), and the hit that is expected (see tests.support)."""

    args: str = ""
    pre: str = ""
    post: str = ""
    keep: str = ""  # a global name that is bound to the result
    expect: str = ""


@dataclass
class Outcome:
    """What one call did."""

    lines: list[Line]
    counters: dict[str, int] = field(default_factory=dict)
    raised: bool = False

    def shown(self) -> list[Line]:
        """The part that is the call's answer: its result or exception, and `post`."""
        return [line for line in self.lines if line[0].startswith(("result", "raised", "post", "stdout"))]


class _ListHandler(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "flashpoint":  # our own warnings, which eager mode does not give
            return
        self.records.append(f"{record.levelname} {scrub(record.getMessage())}")


def _global_state() -> list[Line]:
    """Everything of the process and thread that a call must leave as eager does."""
    state = {
        "torch rng": _digest(torch.get_rng_state().numpy().tobytes()),
        "random": _digest(random.getstate()),
        "numpy random": _digest(np.random.get_state()[1].tobytes() + bytes([np.random.get_state()[2] % 256])),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "default dtype": torch.get_default_dtype(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "function modes": torch._C._len_torch_function_stack(),
        "dispatch modes": torch._C._len_torch_dispatch_stack(),
        "included keys": torch._C._dispatch_tls_local_include_set(),
        "excluded keys": torch._C._dispatch_tls_local_exclude_set(),
        "exception": sys.exc_info()[0],
        "recursion limit": sys.getrecursionlimit(),
        "trace": (sys.gettrace(), sys.getprofile()),
    }
    return [(f"state.{name}", scrub(str(value))) for name, value in state.items()]


@contextlib.contextmanager
def _fresh_process_state(seed: int) -> Iterator[None]:
    """Seeds, then puts back what programs may change."""
    saved = (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        sys.getrecursionlimit(),
        dict(os.environ),
        list(sys.path),
        torch.get_float32_matmul_precision(),
        torch._C._len_torch_function_stack(),
        torch._C._len_torch_dispatch_stack(),
    )
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        torch.set_grad_enabled(saved[0])
        torch.set_default_dtype(saved[1])
        torch.use_deterministic_algorithms(saved[2])
        torch.set_autocast_enabled("cpu", saved[3])
        torch.set_autocast_dtype("cpu", saved[4])
        torch.set_default_device(None)
        sys.setrecursionlimit(saved[5])
        os.environ.clear()
        os.environ.update(saved[6])
        sys.path[:] = saved[7]
        torch.set_float32_matmul_precision(saved[8])
        # A call that raised where eager does not never came to the `post` that leaves its mode.
        while torch._C._len_torch_function_stack() > saved[9]:
            torch._C._pop_torch_function_stack()
        while torch._C._len_torch_dispatch_stack() > saved[10]:
            torch._C._pop_torch_dispatch_stack(None)


def _pack(*args: Any, **kwargs: Any) -> tuple[tuple, dict]:
    return args, kwargs


def _traceback(error: BaseException) -> list[str]:
    """The lines of the program that an exception passed."""
    lines, step = [], error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        if code.co_filename == FILENAME:
            lines.append(f"{code.co_name}:{step.tb_lineno}")
        step = step.tb_next
    return lines


def _raised(path: str, error: BaseException, depth: int = 0) -> list[Line]:
    if isinstance(error, RecursionError):
        return [(path, "RecursionError")]  # how deep it came is nobody's promise
    lines = [(path, f"{type_name(type(error))} {scrub(str(error))!r} at {_traceback(error)}")]
    if depth < 4:
        for name in ("__cause__", "__context__"):
            inner = getattr(error, name)
            if inner is not None:
                lines += _raised(f"{path}.{name}", inner, depth + 1)
    return lines


class _World:
    def __init__(self, source: str) -> None:
        self.source = PRELUDE + source
        self.module = types.ModuleType("program")
        self.globals = self.module.__dict__
        sys.modules["program"] = self.module
        linecache.cache[FILENAME] = (len(self.source), None, self.source.splitlines(True), FILENAME)
        exec(compile(self.source, FILENAME, "exec"), self.globals)
        self.results: list[Any] = []

    def visible(self) -> list[tuple[str, Any]]:
        """The program's globals, less the modules it imported."""
        return [
            (name, value)
            for name, value in list(self.globals.items())
            if not name.startswith("__") and not (type(value) is types.ModuleType and name in _IMPORTED)
        ]

    def step(self, call: Call, target: Callable, counters: Callable[[], dict]) -> tuple[Outcome, list]:
        """Runs one call; returns its outcome, without the world's state, and the roots to describe."""
        if call.pre:
            exec(compile(call.pre, _CHUNK, "exec"), self.globals)
        code = compile(f"__pack__({call.args})", _CHUNK, "eval")
        args, kwargs = eval(code, self.globals, {"__pack__": _pack})
        roots: list[tuple[str, Any]] = [("args", list(args)), ("kwargs", kwargs)]
        lines: list[Line] = []
        before = counters()
        error: BaseException | None = None
        try:
            result = target(*args, **kwargs)
        except Exception as caught:
            error = caught
            lines = _raised("raised", caught)
            caught.__traceback__ = None
            roots.append(("raised.args", caught.args))
        after = counters()
        outcome = Outcome(lines, {k: after[k] - before.get(k, 0) for k in after}, error is not None)
        if error is None:
            roots.append(("result", result))
            if call.keep:
                self.globals[call.keep] = result
            if call.post:
                code = compile(call.post, _CHUNK, "eval")
                roots.append(("post", eval(code, self.globals, {"r": result})))
        return outcome, roots


def run(
    source: str,
    calls: Sequence[Call],
    wrap: Callable[[Callable], Callable] | None = None,
    *,
    counters: Callable[[], dict[str, int]] = dict,
    watch: str = "each",
    seed: int = 0,
) -> list[Outcome]:
    """Runs the calls in a new world and returns one outcome per call.

    `wrap` compiles `fn` (None: the eager run). With watch="each", results, arguments, earlier results and the
    program's globals are described after every call; with watch="end" only after the last, so that looking at
    them (which gives objects an instance dict they had not) cannot hide anything.
    """
    return contextvars.copy_context().run(_run, source, calls, wrap, counters, watch, seed)


def _run(
    source: str,
    calls: Sequence[Call],
    wrap: Callable[[Callable], Callable] | None,
    counters: Callable[[], dict[str, int]],
    watch: str,
    seed: int,
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    stdout, handler, root = io.StringIO(), _ListHandler(), logging.getLogger()
    stack = contextlib.ExitStack()
    with stack:
        stack.enter_context(_fresh_process_state(seed))
        stack.enter_context(contextlib.redirect_stdout(stdout))
        warned = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        root.addHandler(handler)
        stack.callback(root.removeHandler, handler)
        stack.callback(sys.modules.pop, "program", None)
        world = _World(source)
        target = wrap(world.globals["fn"]) if wrap else world.globals["fn"]
        stack.callback(world.globals.get("done", int))
        kept: list[tuple[str, Any]] = []
        for index, call in enumerate(calls):
            stdout.seek(0), stdout.truncate()
            warned.clear(), handler.records.clear()
            outcome, roots = world.step(call, target, counters)
            outcome.lines.append(("stdout", scrub(stdout.getvalue())))
            outcome.lines += [
                ("warning", f"{w.category.__name__} {scrub(str(w.message))}")
                for w in warned
                if w.category is not ResourceWarning
            ]  # it comes when garbage is collected
            outcome.lines += [("log", record) for record in handler.records]
            outcome.lines += _global_state()
            last = index + 1 == len(calls)
            if watch == "each":
                outcome.lines += describe(roots + kept + world.visible(), world.module)
                kept += [(f"earlier[{index}]", value) for name, value in roots if name == "result"]
            else:
                kept += [(f"call{index}.{name}", value) for name, value in roots]
                if last:
                    outcome.lines += describe(kept + world.visible(), world.module)
            outcomes.append(outcome)
    return outcomes
