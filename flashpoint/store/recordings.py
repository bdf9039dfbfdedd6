"""What the core asks Python for when it looks for a recording in the store, and what it can tell about it."""

from __future__ import annotations

from typing import Any

import torch

from flashpoint import _C
from flashpoint.store import remote
from flashpoint.store.context import key_parts


def surroundings() -> dict[str, str]:
    """The parts of a recording's key that do not depend on the function."""
    remote.connect_from_environment()
    # Asked for by torch.autocast, and guarded by nothing.
    return {**key_parts(), "privateuse1": torch._C._get_privateuse1_backend_name()}


def explain_miss(compiled: Any) -> list[str]:
    """Why the store had no recording for a compiled callable, or how its entries were used, as lines of text.

    Where there was no record: each named part of the key that the nearest record has otherwise, as
    "part: asked for ..., stored ...". Then what became of the entries that were read and written.

    Raises TypeError for what `flashpoint.compile` did not make.
    """
    target = compiled
    if isinstance(target, torch.nn.Module):
        target = target.forward
    if not isinstance(target, _C.CompiledFunction):
        raise TypeError(
            "[flashpoint.store.explain_miss] takes what flashpoint.compile returned, "
            f"not {type(compiled).__name__}"
        )
    key, history = _C._recordings_report(target)
    lines = []
    store = _C._store_shared()
    if key is None:
        lines.append("the store was not asked for this function yet")
    elif any(line.startswith("no record") for line in history):
        near = store.nearest(key)
        if near is None:
            lines.append("the store is empty")
        else:
            lines += [
                f"{name}: asked for {key.get(name, 'nothing')}, stored {near.get(name, 'nothing')}"
                for name in sorted({*key, *near})
                if key.get(name) != near.get(name)
            ]
    return lines + list(history)
