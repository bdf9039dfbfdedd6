"""The store: what was compiled, kept on disk for the next process.

Records live in a database in the user's cache directory (docs/design/store.md). `save` and `load` carry them
to other machines in one file; `python -m flashpoint.store` looks after them. `isolation_context` and
`isolation_key` name what stored records depend on outside the program.
"""

from __future__ import annotations

import atexit

from flashpoint import _C
from flashpoint.store import remote as _remote
from flashpoint.store.context import IsolationSchema, isolation_context, isolation_key
from flashpoint.store.recordings import explain_miss
from flashpoint.store.remote import Remote, connect
from flashpoint.store.transfer import StoreError, load, save

__all__ = [
    "IsolationSchema",
    "Remote",
    "StoreError",
    "connect",
    "directory",
    "explain_miss",
    "isolation_context",
    "isolation_key",
    "load",
    "save",
    "statistics",
]


def _at_exit() -> None:
    _C._recordings_exit()
    _C._store_exit()
    _remote.close()


atexit.register(_at_exit)


def directory() -> str:
    """The cache directory of this process, made at the first write. FLASHPOINT_CACHE_DIR sets it."""
    return _C._store_shared().directory


def statistics() -> _C.StoreStatistics:
    """What this process's accesses to its store came to, by outcome, and what the store holds.

    A dict: `get` and `put`, each from an outcome's name to a count; `evicted`; `records` and `bytes` in the
    database.
    """
    return _C._store_shared().statistics()
