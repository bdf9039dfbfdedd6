"""`flashpoint.config`: settings of the process, checked when they are set.

To add one: a row in _FIELDS, with the default that the core has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from flashpoint import _C


class _Field(NamedTuple):
    default: bool | int
    minimum: int | None  # for numbers
    text: str
    core: bool = True  # the core is told


_FIELDS: dict[str, _Field] = {
    "recompile_limit": _Field(
        8, 1, "recordings kept per compiled function; beyond it, calls that miss run eagerly"
    ),
    "accumulated_recompile_limit": _Field(
        256, 1, "recordings kept for one code object by all compiled functions together"
    ),
    "tracing_state_queries": _Field(
        True,
        None,
        "while recording, torch.compiler.is_compiling() and its kind answer as they do under torch.compile",
    ),
    "resume_breaks": _Field(
        True, None, "what was recorded before and after a graph break is replayed; off: it is dropped"
    ),
    "value_guards": _Field(
        False,
        None,
        "a tensor's value that the program reads is checked by the replay instead of a graph break",
    ),
    "capture_scalar_outputs": _Field(
        False,
        None,
        "a number that the program reads from a tensor is a value of the graph, instead of a graph break",
    ),
    "fx_torch_targets": _Field(
        True,
        None,
        "graphs for backends of torch.compile call torch's functions where one of them made one operator",
        core=False,
    ),
    "native_patience": _Field(
        10,
        0,
        "native backend: percent of the time compiling takes that runs could have saved before it is done",
    ),
    "measure_breaks": _Field(
        False, None, "the time that each break costs is taken, for flashpoint.explain and the log"
    ),
    "verify": _Field(False, None, "check every recorded graph for consistency (always done in strict mode)"),
    "poison_empty": _Field(
        False,
        None,
        "for tests: replays fill memory that eager leaves uninitialized, to show lost writes",
    ),
}


class Config:
    """Attributes are the settings: read them, assign to them, or use `patch` for a while.

    recompile_limit: int, 1 or more, default 8. Recordings kept per compiled function; beyond it, calls that
        miss run eagerly.
    accumulated_recompile_limit: int, 1 or more, default 256. Recordings kept for one code object by all
        compiled functions together; beyond it, calls that miss run eagerly.
    tracing_state_queries: bool, default True. While recording, `torch.compiler.is_compiling()` and its kind
        answer as they do under torch.compile.
    resume_breaks: bool, default True. At a graph break the recording so far is kept, the frames are rebuilt
        when it is replayed, and recording goes on behind the break. When off, a recording that meets a break
        is dropped, and the call goes on eagerly.
    value_guards: bool, default False. A value of a tensor that becomes a Python number, a branch or a size is
        a constant of the recording, and a replay that meets another one goes on to the next recording. When
        off, and where inputs have been written to before, it is a graph break.
    capture_scalar_outputs: bool, default False. What `item()`, `float()` and `int()` read from a tensor is a
        value of the graph, and so is arithmetic on it, as long as it goes into tensor operations (not into
        sizes), attributes and results; any other use of it is a graph break. When off, reading it is one.
        Torch's optimizers read their step counters like this whatever the setting, and so do functions
        compiled with `fullgraph=True`: there, what would be a break is a constant that the replay checks.
        `torch._dynamo.config.capture_scalar_outputs` counts as well. Graphs for backends of torch.compile
        have no such values.
    fx_torch_targets: bool, default True. Graphs for backends of torch.compile call what the program called
        (`torch.nn.functional.gelu`, `torch.cat`, a tensor method, `operator.add`) where that made exactly one
        operator. When off, all nodes call ATen operators.
    native_patience: int, percent, 0 or more, default 10. The native backend compiles a graph once the code
        could have saved this share of the time that compiling takes, both estimated. So a graph with much to
        gain is compiled by its first replay and one of a few small operators after thousands, if ever; until
        then the recorded operators run. 0: every graph by its first replay.
    measure_breaks: bool, default False. Take the time that each break costs: handing over the frames, and
        finding out behind it how they go on. `flashpoint.explain` does so by itself; FLASHPOINT_LOG=break
        then has a line for each break of a replay.
    verify: bool, default False. Check every recorded graph for consistency (always done in strict mode).
    poison_empty: bool, default False. For tests: replays of what is recorded meanwhile fill memory that eager
        leaves uninitialized, so that a write that was not recorded shows.

    Raises AttributeError for a name that is no setting, TypeError or ValueError for a value it cannot have.
    """

    recompile_limit: int
    accumulated_recompile_limit: int
    tracing_state_queries: bool
    resume_breaks: bool
    value_guards: bool
    capture_scalar_outputs: bool
    fx_torch_targets: bool
    native_patience: int
    measure_breaks: bool
    verify: bool
    poison_empty: bool

    def __init__(self) -> None:
        object.__setattr__(self, "_values", {name: field.default for name, field in _FIELDS.items()})

    def __getattr__(self, name: str) -> Any:
        # `copy` and `pickle` look for methods before __init__ has run: no _values, no settings.
        values = self.__dict__.get("_values", {})
        if name in values:
            return values[name]
        raise AttributeError(_unknown(name))

    def __setattr__(self, name: str, value: Any) -> None:
        field = _FIELDS.get(name)
        if field is None:
            raise AttributeError(_unknown(name))
        wanted = type(field.default)
        if type(value) is not wanted:
            raise TypeError(
                f"[flashpoint.config] {name} must be {wanted.__name__}, "
                f"not {type(value).__name__} ({value!r})"
            )
        if field.minimum is not None and value < field.minimum:
            raise ValueError(f"[flashpoint.config] {name} must be {field.minimum} or more, not {value}")
        if field.core:
            _C.set_config(name, value)
        self._values[name] = value

    def __delattr__(self, name: str) -> None:
        raise AttributeError(
            f"[flashpoint.config] settings cannot be deleted; assign the default of {name} instead"
        )

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *_FIELDS]

    def __repr__(self) -> str:
        return f"flashpoint.config({', '.join(f'{name}={value}' for name, value in self._values.items())})"

    def to_dict(self) -> dict[str, bool | int]:
        """A copy of all settings."""
        return dict(self._values)

    @contextmanager
    def patch(self, **changes: bool | int) -> Iterator[None]:
        """Set several settings for the duration of a `with` block, exceptions included."""
        before = {name: getattr(self, name) for name in changes}
        try:
            for name, value in changes.items():
                setattr(self, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)


def _unknown(name: str) -> str:
    return f"[flashpoint.config] no setting {name!r}; there are: {', '.join(_FIELDS)}"


config = Config()
