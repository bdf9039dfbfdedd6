"""What the store's tests share: records that prove themselves, processes, the format written out a second time.

The format here is written from its description, not from the code, so that a change of either is noticed.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sqlite3
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from flashpoint import _C

VERSION = 1
NAME = f"store-{VERSION}.db"

# What an access may come to when files are damaged or others are in the way.
MISSES = set(_C._store_outcomes()) - {"hit", "queued", "written", "internal", "disabled", "forked"}


def key(number: object) -> dict[str, str]:
    return {"code": f"function {number}", "host": "x86-64"}


def payload(number: int, writer: int = 0) -> bytes:
    """Bytes that say which record they are and whether they are whole; records differ in size, some in pages."""
    size = [10, 300, 5000, 40000][number % 4]
    body = random.Random(number * 1000 + writer).randbytes(size)
    return struct.pack("<ii", number, writer) + hashlib.sha256(body).digest() + body


def is_whole(data: bytes, number: int) -> bool:
    found, _ = struct.unpack_from("<ii", data)
    return found == number and hashlib.sha256(data[40:]).digest() == data[8:40]


def check(found: dict, number: int, want: bytes | None = None) -> bool:
    """Whether it was a hit. A hit has the right bytes, everything else is a known kind of miss."""
    if found["outcome"] == "hit":
        assert is_whole(found["payload"], number) if want is None else found["payload"] == want
        return True
    assert found["outcome"] in MISSES and found["payload"] is None, found
    return False


def filled(directory: Path, count: int) -> dict[int, bytes]:
    """A store with records 0..count-1, all in the database file."""
    store = _C.Store(directory)
    records = {number: payload(number) for number in range(count)}
    for number, data in records.items():
        assert store.put(key(number), data) == "queued"
    assert store.flush()
    assert store.statistics()["put"]["written"] == count
    return records


def fork(body: Callable[[], object]) -> int:
    """Runs body in a child; its exit status is 0 if nothing was raised."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            body()
            status = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)
    return pid


def reap(pids: list[int], seconds: float = 240) -> list[int]:
    """Exit statuses (negative: the signal); a child that takes too long is killed and fails the test."""
    end, statuses = time.monotonic() + seconds, []
    for pid in pids:
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                statuses.append(os.waitstatus_to_exitcode(status))
                break
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise AssertionError("a process hangs")
            time.sleep(0.002)
    return statuses


def in_child(body: Callable[[], object]) -> None:
    assert reap([fork(body)]) == [0]


def copy(source: Path, target: Path) -> Path:
    """A copy of a store without what only says who has it open."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o700)
    for file in source.iterdir():
        if not file.name.endswith(("-shm", "lock")):
            shutil.copyfile(file, target / file.name)
            (target / file.name).chmod(0o600)
    return target


def change_database(directory: Path, *statements: tuple) -> None:
    """Runs SQL on the database. In a child: two SQLite libraries in one process break each other's locks."""

    def run() -> None:
        connection = sqlite3.connect(directory / NAME)
        for statement in statements:
            connection.execute(*statement)
        connection.commit()
        connection.close()

    in_child(run)


def encode_parts(parts: dict[str, str]) -> bytes:
    out = struct.pack("<I", len(parts))
    for pair in sorted((k.encode(), v.encode()) for k, v in parts.items()):
        for text in pair:
            out += struct.pack("<I", len(text)) + text
    return out


def record_key(parts: dict[str, str], version: int = VERSION) -> bytes:
    return hashlib.sha256(b"fpsr" + struct.pack("<H", version) + encode_parts(parts)).digest()


def seal_head(unsealed: bytes) -> bytes:
    return unsealed + hashlib.sha256(unsealed).digest()


def encode_head(
    parts: dict[str, str], data: bytes, *, version: int = VERSION, origin: int = 0, created: int = 0
) -> bytes:
    body = encode_parts(parts)
    size = 4 + 2 + 2 + 4 + 8 + 8 + 32 + len(body) + 32
    start = b"fpsr" + struct.pack("<HHIqQ", version, origin, size, created, len(data))
    return seal_head(start + hashlib.sha256(data).digest() + body)


def encode_archive(records: list[tuple[dict[str, str], bytes]], *, version: int = VERSION) -> bytes:
    out = start = b"fparch" + struct.pack("<H", version)
    items = {}
    for parts, data in records:
        head = encode_head(parts, data, version=version)
        items[record_key(parts, version)] = struct.pack("<QIQ", len(out), len(head), len(data))
        out += head + data
    index = b"".join(name + items[name] for name in sorted(items))
    footer = struct.pack("<QQI", len(out), len(items), 0)
    out += index + footer + hashlib.sha256(start + index + footer).digest()
    return out + hashlib.sha256(out).digest()


def positions(size: int, everything: bool, step: int) -> Iterator[int]:
    """All positions of a file, or its beginning and end and every `step`th."""
    if everything:
        yield from range(size)
    else:
        yield from sorted({*range(min(size, 104)), *range(0, size, step), *range(max(0, size - 32), size)})
