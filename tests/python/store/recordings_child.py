"""One process of the tests of stored recordings: runs cases, eagerly and compiled, and prints what happened.

    python recordings_child.py FOLDER NAME...

FOLDER holds one module per case. A case's `make()` gives a callable and the arguments of its calls, anew each
time; `state()`, if there is one, gives what the calls may have changed outside. One line of JSON per case:
whether the compiled run did what the eager run did, and the counters of each call.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections import OrderedDict
from typing import Any

import torch

import flashpoint

torch.set_num_threads(1)


def describe(value: Any, depth: int = 0) -> Any:
    """The value as text that is equal for equal values; addresses are left out."""
    if isinstance(value, torch.Tensor):
        kind = f"{type(value).__name__} {value.dtype} {tuple(value.shape)} {value.stride()} {value.device}"
        return f"{kind} grad={value.requires_grad} {value.detach().tolist()}"
    if isinstance(value, (int, float, str, bytes, bool, type(None), torch.dtype, torch.device)):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, (dict, OrderedDict)):
        items = [(describe(k, depth + 1), describe(v, depth + 1)) for k, v in value.items()]
        return (type(value).__name__, items, describe(getattr(value, "__dict__", None), depth + 1))
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, [describe(item, depth + 1) for item in value])
    if isinstance(value, (set, frozenset)):
        return (type(value).__name__, sorted(str(describe(item)) for item in value))
    own = getattr(value, "__dict__", None)
    return (type(value).__name__, describe(own, depth + 1) if own is not None and depth < 4 else None)


def outcome(call: Any, args: Any) -> Any:
    """What a call returned or raised."""
    kwargs = {}
    if args and isinstance(args[-1], dict) and args[-1].get("**"):
        kwargs = {name: value for name, value in args[-1].items() if name != "**"}
        args = args[:-1]
    try:
        return describe(call(*args, **kwargs))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def run(module: Any) -> dict[str, Any]:
    """One case."""
    seen: dict[bool, list[Any]] = {}
    counts = []
    for compiled in (False, True):
        torch.manual_seed(0)
        if hasattr(module, "reset"):
            module.reset()
        target, calls = module.make()
        call = flashpoint.compile(target, backend=getattr(module, "BACKEND", "eager")) if compiled else target
        results = []
        for args in calls:
            flashpoint.reset_counters()
            results.append(outcome(call, args))
            results.append(describe(list(args)))
            if compiled:
                counts.append({name: n for name, n in flashpoint.counters().items() if n})
        results.append(describe(module.state()) if hasattr(module, "state") else None)
        if isinstance(target, torch.nn.Module):
            results.append(describe({k: v for k, v in target.__dict__.items() if k[0] != "_"}))
            results.append(describe(dict(target.state_dict())))
        results.append(describe(torch.rand(2)))
        seen[compiled] = results
        if compiled:
            flashpoint._C._recordings_write()
            report = flashpoint.store.explain_miss(call)
    equal = json.dumps(seen[False]) == json.dumps(seen[True])
    return {
        "equal": equal,
        "seen": None if equal else [str(seen[False]), str(seen[True])],
        "counts": counts,
        "report": report,
    }


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    for name in sys.argv[2:]:
        row = {"name": name, **run(importlib.import_module(name))}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
