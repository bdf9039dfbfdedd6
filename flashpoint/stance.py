"""`flashpoint.set_stance`: what compiled functions may do, for the whole process."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from flashpoint import _C

_F = TypeVar("_F", bound=Callable[..., Any])

STANCES = ("default", "eager_then_compile", "force_eager", "eager_on_recompile", "fail_on_recompile")


class set_stance:
    """Says whether compiled functions may record, replay, or neither.

    Holds from the call on; as a context manager or decorator, while the block or the function runs.

    Args:
        stance: "default": record and replay. "eager_then_compile": the same, but the first call of each
            compiled function runs eagerly. "force_eager": run eagerly. "eager_on_recompile": replay what
            has been recorded, and run eagerly what has not. "fail_on_recompile": raise RuntimeError instead.

    Raises:
        ValueError: another stance.

    `torch.compiler.set_stance` is honoured as well: where both are set, the stricter one holds. Inside
    `torch._dynamo.run()` nothing is recorded.
    """

    def __init__(self, stance: str) -> None:
        if stance not in STANCES:
            raise ValueError(f"[flashpoint.set_stance] stance must be one of {STANCES}, not {stance!r}")
        self.stance = stance
        self._before = _C.set_stance(stance)

    def __enter__(self) -> set_stance:
        _C.set_stance(self.stance)
        return self

    def __exit__(self, *error: object) -> None:
        _C.set_stance(self._before)

    def __call__(self, fn: _F) -> _F:
        _C.set_stance(self._before)

        @functools.wraps(fn)
        def call(*args: Any, **kwargs: Any) -> Any:
            with set_stance(self.stance):
                return fn(*args, **kwargs)

        return call  # type: ignore[return-value]
