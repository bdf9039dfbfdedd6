"""The native core. Not public: use the functions of `flashpoint`."""

from collections.abc import Callable
from typing import Any, TypedDict

class Break(TypedDict):
    reason: str  # name of a row of the table of break reasons
    message: str  # the row's text, with what exactly was met
    hint: str
    file: str
    line: int

class Entry(TypedDict):
    graph: str  # text of the recorded graph
    nodes: int
    guards: list[str]  # text of each guard
    effects: int
    hits: int

class Report(TypedDict):
    kept: bool  # whether the last capture became an entry
    dropped: str  # why not; empty if it was kept
    breaks: list[Break]

class CompiledFunction:
    """A callable that records and replays `fn`. Has a __dict__ and weak references, binds as functions do."""

    def __init__(self, fn: Callable[..., Any], options: dict[str, Any]) -> None: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any: ...
    def entries(self) -> list[Entry]: ...
    def last_report(self) -> Report | None: ...
    def reset(self) -> None: ...

    __dict__: dict[str, Any]
    __wrapped__: Callable[..., Any]
    __qualname__: str

def counters() -> dict[str, int]: ...
def reset_counters() -> None: ...
def reset_all() -> None: ...
def set_config(name: str, value: bool | int) -> None: ...
class Host(TypedDict):
    cpu_features: str  # names, sorted, separated by spaces
    build_id: str  # hex
    format_version: int

def _store_canonical(value: object) -> str: ...
def _store_digest(value: object) -> str: ...
def _store_host() -> Host: ...
