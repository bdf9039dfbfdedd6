"""Backends that compile in a thread while calls run the recorded operators."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import torch

_log = logging.getLogger("flashpoint")
_lock = threading.Lock()
_executor: ThreadPoolExecutor | None = None
_running: set[Future[None]] = set()


class LaterProgram:
    """What the core gets in a compiled graph's place.

    Attributes:
        compiled_later: None until the backend is done, and for good where it failed; the core runs the
            recorded operators meanwhile.
    """

    def __init__(self, name: str, compile_graph: Callable[[], Callable[..., Any] | None]) -> None:
        self.compiled_later: Callable[..., Any] | None = None
        self._name = name
        ambient = _Ambient()

        def work() -> None:
            try:
                with ambient.entered():
                    self.compiled_later = compile_graph()
            except Exception as error:
                self._report(error)

        future = _submit(work)
        _running.add(future)
        future.add_done_callback(_running.discard)

    def __call__(self, *inputs: torch.Tensor) -> Any:
        if self.compiled_later is None:
            raise RuntimeError(f"[flashpoint.compile] backend {self._name} has not compiled this graph yet")
        return self.compiled_later(*inputs)

    def _report(self, error: Exception) -> None:
        message = (
            f"[flashpoint.compile] backend {self._name} failed in the background; the recorded operators run "
            f"instead: {error}"
        )
        _log.error("%s\n%s", message, "".join(traceback.format_exception(error)))
        warnings.warn(message, stacklevel=1)


def wait_for_backends(timeout: float | None = None) -> bool:
    """Waits until backends that compile in the background (`options={"background": True}`) are done.

    Args:
        timeout: seconds to wait at most; None: as long as it takes.

    Returns:
        Whether all are done. Those that failed are, too.

    Raises:
        TypeError: timeout is no number of seconds.
    """
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float))):
        raise TypeError(
            f"[flashpoint.wait_for_backends] timeout must be seconds or None, not {type(timeout).__name__}"
        )
    return not wait(tuple(_running), timeout).not_done


def _submit(work: Callable[[], None]) -> Future[None]:
    global _executor
    with _lock:
        if _executor is None:
            # One at a time: backends patch settings of the process while they work.
            _executor = ThreadPoolExecutor(1, thread_name_prefix="flashpoint-backend")
        return _executor.submit(work)


def _forget() -> None:
    """Threads stay in the parent of a fork; the child goes on with the recorded operators."""
    global _executor, _lock
    _executor, _lock = None, threading.Lock()
    _running.clear()


def _stop() -> None:
    if _executor is not None:
        _executor.shutdown(wait=False, cancel_futures=True)


os.register_at_fork(after_in_child=_forget)
threading._register_atexit(_stop) if hasattr(threading, "_register_atexit") else atexit.register(_stop)


class _Ambient:
    """The modes of the calling thread under which the graph was recorded."""

    def __init__(self) -> None:
        self._grad = torch.is_grad_enabled()
        self._inference = torch.is_inference_mode_enabled()
        self._autocast = [
            (device, torch.get_autocast_dtype(device))
            for device in ("cpu", "cuda")
            if torch.is_autocast_enabled(device)
        ]
        self._device = torch.get_default_device()

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            if self._inference:
                stack.enter_context(torch.inference_mode())
            stack.enter_context(torch.set_grad_enabled(self._grad))
            for device, dtype in self._autocast:
                stack.enter_context(torch.autocast(device, dtype))
            if self._device != torch.get_default_device():
                stack.enter_context(self._device)
            yield
