"""What a compiled function says, or raises, once it has made as many recordings as it may."""

from __future__ import annotations

import logging

log = logging.getLogger("flashpoint")


def reached(name: str, setting: str, limit: int, last_miss: str, fullgraph: bool, fails: bool) -> None:
    """Called by the core: once per compiled function, or at each such call where it is an error.

    Raises:
        torch._dynamo.exc.FailOnRecompileLimitHit: `fails`, as torch.compile does.
    """
    own = setting == "recompile_limit"
    which = "its recompile limit" if own else "the accumulated recompile limit of its code"
    how = "flashpoint.compile(..., recompile_limit=n)" if own else f"flashpoint.config.{setting}"
    miss = f"; the last recording did not fit: {last_miss}" if last_miss else ""
    text = f"[flashpoint.compile] {name} has reached {which} ({limit}){miss}. "
    if not fails:
        log.warning(
            "%sCalls that no recording fits run eagerly from now on. Raise it with %s; "
            "FLASHPOINT_LOG=miss shows every miss.",
            text,
            how,
        )
        return
    from torch._dynamo.exc import FailOnRecompileLimitHit

    why = (
        "fullgraph=True rules out an eager run"
        if fullgraph
        else "torch._dynamo.config.fail_on_recompile_limit_hit rules out an eager run"
    )
    raise FailOnRecompileLimitHit(
        f"{text}{why}. Raise it with {how}, or mark what changes from call to call as an argument"
    )
