"""What a compiled function says, or raises, once it has made as many recordings as it may."""

from __future__ import annotations

import logging

log = logging.getLogger("flashpoint")


def reached(name: str, limit: int, last_miss: str, fullgraph: bool, fails: bool) -> None:
    """Called by the core: once per compiled function, or at each such call where it is an error.

    Raises:
        torch._dynamo.exc.FailOnRecompileLimitHit: `fails`, as torch.compile does.
    """
    text = (
        f"[flashpoint.compile] {name} has reached its recompile limit ({limit}); the last recording did not "
        f"fit: {last_miss}. "
    )
    if not fails:
        log.warning(
            "%sCalls that no recording fits run eagerly from now on. Raise it with "
            "flashpoint.compile(..., recompile_limit=n); FLASHPOINT_LOG=miss shows every miss.",
            text,
        )
        return
    from torch._dynamo.exc import FailOnRecompileLimitHit

    why = (
        "fullgraph=True rules out an eager run"
        if fullgraph
        else "torch._dynamo.config.fail_on_recompile_limit_hit rules out an eager run"
    )
    raise FailOnRecompileLimitHit(
        f"{text}{why}. Raise it with flashpoint.compile(..., recompile_limit=n), or mark what changes "
        "from call to call as an argument"
    )
