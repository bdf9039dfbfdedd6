"""The database's numbers as changing arguments: which operators decide by a number shows as a difference.

A number that enters an operator becomes an input of the graph unless the operator looks at it before it
chooses what to do: which tensor to return, of which shape and type. Here each number of a sample is an
argument of the compiled function, and is given other values; results must be eager's, and share memory with
the arguments where eager's do.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

import flashpoint
from tests.opdb.check import SEED, Difference, _flat, difference
from tests.opdb.samples import Case, copied

FLOATS, INTS = (0.5, 0.0, 1.0, -1.0, 2.0), (0, 1, 2, -1, 3)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def places(case: Case) -> Iterator[int | str]:
    """Where a sample has numbers: positions among the arguments behind the first, and keywords."""
    _, args, kwargs = case.first
    yield from (i for i, value in enumerate(args) if _is_number(value))
    yield from (key for key, value in kwargs.items() if _is_number(value))


def _function(case: Case, place: int | str) -> Callable[..., Any]:
    """fn(value, number, args, kwargs): the call, spelled out."""
    _, args, kwargs = case.first
    parts = ["value"]
    parts += ["number" if i == place else f"args[{i}]" for i in range(len(args))]
    parts += [f"{key}={'number' if key == place else f'kwargs[{key!r}]'}" for key in kwargs]
    names = {"call": case.call}
    exec(f"def fn(value, number, args, kwargs): return call({', '.join(parts)})", names)
    return names["fn"]


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else 0


def _run(fn: Callable[..., Any], case: Case, number: float) -> tuple[Any, Any, Any]:
    sample = copied(case.first, {})
    torch.manual_seed(SEED)
    try:
        with torch.set_grad_enabled(case.grad):
            result = fn(sample[0], number, sample[1], sample[2])
    except Exception as error:
        return type(error).__name__, sample, None
    tensors = _flat(sample)
    # Which of the results are arguments, or share their memory.
    strided = [t for t in tensors if t.layout is torch.strided]
    shared = [[(out is t, _storage(out) == _storage(t)) for t in strided] for out in _flat(result)]
    return result, sample, shared


def check_numbers(case: Case, values: bool = True) -> int:
    """How many calls with another number an entry answered. Raises Difference."""
    answered = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for place in places(case):
            own = case.first[1][place] if isinstance(place, int) else case.first[2][place]
            fn = _function(case, place)
            flashpoint.reset()
            compiled = flashpoint.compile(fn, backend="eager")
            for i, number in enumerate((own, *(FLOATS if type(own) is float else INTS), own)):
                flashpoint.reset_counters()
                got = _run(compiled, case, number)
                hit = flashpoint.counters()["hits"] > 0
                want = _run(fn, case, number)
                answered += i > 0 and number != own and hit
                found = difference(want[0], got[0], values) or difference(want[1], got[1], values)
                if not found and want[2] != got[2]:
                    found = "memory shared with the arguments"
                if found:
                    raise Difference(f"{case}, {place}={number} after {own}: {found}")
    return answered
