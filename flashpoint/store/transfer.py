"""`save` and `load`: the whole store as one portable file."""

from __future__ import annotations

import os

from flashpoint import _C

_HINTS = {
    "disabled": "FLASHPOINT_CACHE=0 switches the store off; unset it",
    "directory_refused": "make the cache directory yours alone (chmod 700), or set FLASHPOINT_CACHE_DIR",
    "no_directory": "the folder of the file or of the cache does not exist and cannot be made",
    "bad_signature": "it was signed with another key, or is not signed and a key was given, or the reverse",
    "bad_magic": "it was not written by flashpoint.store.save",
    "bad_version": "write it again with the version of Flashpoint that is to read it",
    "disk_full": "make room and try again; the target is as it was",
    "read_only": "choose a place that can be written; the target is as it was",
}


class StoreError(RuntimeError):
    """A file of records could not be written or read.

    Attributes:
        outcome: the name of what went wrong, as in `statistics()`.
    """

    def __init__(self, message: str, outcome: str) -> None:
        super().__init__(message)
        self.outcome = outcome


def save(path: str | os.PathLike[str], *, key: bytes | None = None) -> int:
    """Write every record of the store to one file, which `load` reads on this or another machine.

    Args:
        path: the file; it is replaced at once when all is written.
        key: signs the file (HMAC-SHA-256). Whoever has the key can check that nothing was changed.

    Returns:
        The number of records.

    Raises:
        StoreError: the file could not be written.
        TypeError, ValueError: a key that is not bytes, or empty.
    """
    return transfer(_C._store_shared(), "save", path, key)


def load(path: str | os.PathLike[str], *, key: bytes | None = None) -> int:
    """Add the records of a file that `save` wrote to the store. Reading runs nothing of what is in it.

    The whole file is checked first. Records that the store has already stay as they are. Those of a file
    without signature are kept, but what they hold is compiled again here before it runs.

    Args:
        path: the file.
        key: the key it was signed with; a signed file is read with its key only.

    Returns:
        The number of records that were added.

    Raises:
        StoreError: the file is missing, damaged, of another version or signed otherwise, or the store cannot
            be written. Nothing was added, unless writing failed half way.
        TypeError, ValueError: a key that is not bytes, or empty.
    """
    return transfer(_C._store_shared(), "load", path, key)


def transfer(store: _C.Store, name: str, path: str | os.PathLike[str], key: bytes | None) -> int:
    """`save` or `load` of a given store."""
    if key is not None and not isinstance(key, bytes):
        raise TypeError(f"[flashpoint.store.{name}] key must be bytes or None, not {type(key).__name__}")
    if key == b"":
        raise ValueError(f"[flashpoint.store.{name}] the key is empty: give a secret, or leave it out")
    run = store.save if name == "save" else store.load
    outcome, count = run(path, key or b"")
    if outcome not in ("hit", "written"):
        hint = _HINTS.get(outcome)
        what = "there is no such file" if outcome == "absent" else _C._store_outcomes()[outcome]
        raise StoreError(
            f"[flashpoint.store.{name}] {os.fspath(path)}: {what}" + (f" ({hint})" if hint else ""),
            outcome,
        )
    return count
