"""A store shared by machines: a Redis server, asked for what no local layer has and given what is new.

Needs redis-py (`pip install flashpoint[redis]`). Every record on the server is signed (HMAC-SHA-256): one
that was not signed with the key at hand is not used, so the server need not be trusted. It may be slow, full
or gone: then calls are recorded and compiled here, as without it.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from typing import Any

from flashpoint import _C

_SILENCE = 30.0  # seconds without questions after the server did not answer
_LARGEST = 64 << 20  # bytes of a record that goes to the server


class Remote:
    """A connection of this process's store to a server. Made by `connect`; usable from any thread.

    Attributes:
        fetched, absent: questions that the server answered with a record, or without one.
        pushed: records that were given to it.
        failures: times it did not answer.
    """

    def __init__(
        self, store: _C.Store, client: Any, key: bytes, prefix: str, expire: int | None, interval: float
    ) -> None:
        self.fetched = self.absent = self.pushed = self.failures = 0
        self._store, self._client, self._key = store, client, key
        self._prefix, self._expire, self._interval = prefix, expire, interval
        self._known: set[tuple[str, int, int]] = set()  # what needs no pushing
        self._silent_until = 0.0
        self._pushing = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        # What was there before is for `push`: the first connection would otherwise send all of it.
        self._known.update(self._versions())

    def _begin(self) -> None:
        self._store.set_remote(self._key, self._fetch)
        self._thread = threading.Thread(target=self._run, name="flashpoint.store", daemon=True)
        self._thread.start()

    def pull(self) -> int:
        """Copy every record of the server that the store does not have, and say how many those were.

        Raises ConnectionError if the server does not answer.
        """
        count = 0
        try:
            for name in self._client.scan_iter(match=f"{self._prefix}:*", count=1000):
                data = self._client.get(name)
                count += data is not None and self._store.unpack(data, self._key) == "queued"
        except _errors() as error:
            raise ConnectionError(f"[flashpoint.store.connect] {error}") from error
        self._store.flush()
        return count

    def push(self) -> int:
        """Give the server every record that this user's own processes made, and say how many those were.

        Raises ConnectionError if the server does not answer.
        """
        self._store.flush()
        return self._push(set())

    def close(self) -> None:
        """Give the server what is new, then part from it. Nothing is raised; a second call does nothing."""
        global _connected
        if self._stop.is_set():
            return
        self._stop.set()
        self._store.set_remote(b"", None)
        if _connected is self:
            _connected = None
        if self._process != os.getpid():
            return  # the process that connected pushes
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5)
        self._try_push()
        self._client.close()

    def _name(self, key: str) -> str:
        return f"{self._prefix}:{key}"

    def _fetch(self, key: str) -> bytes | None:
        if time.monotonic() < self._silent_until:
            raise ConnectionError
        try:
            data: bytes | None = self._client.get(self._name(key))
        except _errors():
            self._failed()
            raise
        if data is None:
            self.absent += 1
        else:
            self.fetched += 1
        return data

    def _failed(self) -> None:
        self.failures += 1
        self._silent_until = time.monotonic() + _SILENCE

    def _versions(self) -> dict[tuple[str, int, int], dict[str, str]]:
        return {
            (row["key"], row["created"], row["size"]): row["parts"]
            for row in self._store.list()
            if row["outcome"] == "hit" and row["origin"] == "own" and row["layer"] != "base"
        }

    def _push(self, known: set[tuple[str, int, int]]) -> int:
        count = 0
        with self._pushing:
            for version, parts in self._versions().items():
                if version in known or version[2] > _LARGEST:
                    continue
                outcome, data = self._store.pack(parts, self._key)
                if data is not None:
                    try:
                        self._client.set(self._name(version[0]), data, ex=self._expire)
                    except _errors() as error:
                        self._failed()
                        raise ConnectionError(f"[flashpoint.store.connect] {error}") from error
                    count += 1
                    self.pushed += 1
                self._known.add(version)
        return count

    def _try_push(self) -> None:
        try:
            self._push(self._known)
        except ConnectionError:
            pass  # counted; the next round tries again

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            if time.monotonic() >= self._silent_until:
                self._try_push()


_connected: Remote | None = None
_environment_was_read = False


def connect(
    url: str,
    *,
    key: bytes,
    prefix: str = "flashpoint",
    timeout: float = 0.5,
    expire: int | None = None,
    interval: float = 2.0,
) -> Remote:
    """Share the store of this process through a Redis server.

    From now on the server is asked for what the store does not have, once for each record; what it has is
    kept in the store. What this process records and generates goes to the server in the background and at
    exit.

    Args:
        url: as redis-py takes it: `redis://host:port/0`, `rediss://...`, `unix:///path`.
        key: the secret that signs records; processes with another one do not see each other's.
        prefix: of the names on the server.
        timeout: seconds to wait for an answer. A server that gave none is left alone for half a minute.
        expire: seconds after which the server drops a record; None: never.
        interval: seconds between looks for new records.

    Returns:
        A `Remote`: `pull()`, `push()`, `close()` and counts. A connection that there was is closed.

    Raises:
        ImportError: redis-py is not installed.
        TypeError, ValueError: a key that is not bytes, or empty; a malformed URL.
        ConnectionError: the server does not answer.
    """
    global _connected
    made = connect_store(_C._store_shared(), url, key, prefix, timeout, expire, interval)
    if _connected is not None:
        _connected.close()
    _connected = made
    made._begin()
    return made


def connect_store(
    store: _C.Store,
    url: str,
    key: bytes,
    prefix: str = "flashpoint",
    timeout: float = 0.5,
    expire: int | None = None,
    interval: float = 2.0,
) -> Remote:
    """`connect` for a given store."""
    if not isinstance(key, bytes):
        raise TypeError(f"[flashpoint.store.connect] key must be bytes, not {type(key).__name__}")
    if key == b"":
        raise ValueError("[flashpoint.store.connect] the key is empty: give the secret that signs records")
    try:
        import redis
    except ImportError as error:
        raise ImportError(
            "[flashpoint.store.connect] needs redis-py: pip install flashpoint[redis]", name="redis"
        ) from error
    try:
        client = redis.Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout)
        client.set_retry(redis.retry.Retry(redis.backoff.NoBackoff(), 0))
        client.ping()
    except ValueError as error:
        raise ValueError(f"[flashpoint.store.connect] {error}") from error
    except _errors() as error:
        raise ConnectionError(f"[flashpoint.store.connect] {url}: {error}") from error
    return Remote(store, client, key, prefix, expire, interval)


def close() -> None:
    """Part from the server, if there is one. Called at exit, when everything is written."""
    if _connected is not None:
        _connected.close()


def connect_from_environment() -> None:
    """FLASHPOINT_CACHE_REDIS, a URL, with FLASHPOINT_CACHE_REDIS_KEY_FILE. A warning says what is wrong."""
    global _environment_was_read
    url = "" if _environment_was_read else os.environ.get("FLASHPOINT_CACHE_REDIS", "")
    _environment_was_read = True
    if url == "" or _connected is not None:
        return
    path = os.environ.get("FLASHPOINT_CACHE_REDIS_KEY_FILE", "")
    try:
        with open(path, "rb") as stream:
            key = stream.read()
        connect(url, key=key)
    except (OSError, ValueError, ImportError) as error:  # ConnectionError is an OSError
        warnings.warn(
            f"FLASHPOINT_CACHE_REDIS is not used: {error} (key file: {path or 'none'})", RuntimeWarning, 2
        )


def _errors() -> tuple[type[Exception], ...]:
    import redis

    return redis.exceptions.RedisError, OSError


def _in_child() -> None:
    """A forked process asks, but its parent pushes: also what it writes, for it is in the same store."""
    if _connected is not None:
        _connected._pushing = threading.Lock()


os.register_at_fork(after_in_child=_in_child)
