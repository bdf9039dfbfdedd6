"""Damaged, foreign and hostile files: a hit has the right bytes, everything else is a miss; then it works again.

In the fast suite positions are sampled; the sweep takes every byte and every length.
"""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest

from flashpoint import _C
from tests.python.store.support import (
    MISSES,
    NAME,
    VERSION,
    change_database,
    check,
    copy,
    encode_archive,
    encode_head,
    encode_parts,
    filled,
    fork,
    in_child,
    key,
    payload,
    positions,
    reap,
    record_key,
    seal_head,
)

pytestmark = pytest.mark.slow

COUNT = 4  # of records; one has pages of its own


@pytest.fixture(scope="module")
def master(tmp_path_factory) -> Path:
    """A store with everything in the database file."""
    place = tmp_path_factory.mktemp("master") / "store"
    filled(place, COUNT)
    return place


@pytest.fixture(scope="module")
def master_with_log(tmp_path_factory) -> Path:
    """A store as a killed process leaves it: half of the records are in the log only."""
    import sqlite3

    folder = tmp_path_factory.mktemp("master_with_log")
    place = folder / "store"
    filled(place, COUNT // 2)

    def write() -> None:
        # A reader keeps the log from being moved. It has SQLite of its own, so it is a process of its own.
        ready, go = os.pipe(), os.pipe()

        def hold() -> None:
            connection = sqlite3.connect(place / NAME)
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM entries").fetchone()
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            copy(place, folder / "kept")

        pid = fork(hold)
        os.read(ready[0], 1)
        store = _C.Store(place)
        for number in range(COUNT // 2, COUNT):
            store.put(key(number), payload(number))
        assert store.flush()
        os.write(go[1], b"x")
        assert reap([pid]) == [0]

    in_child(write)
    assert (folder / "kept" / f"{NAME}-wal").stat().st_size > 0
    return folder / "kept"


def use(place: Path, *, recover: bool) -> int:
    """Reads every record, then (if asked to) writes one and reads it back. Gives the number of hits."""
    store = _C.Store(place)
    hits = sum(check(store.get(key(number)), number, payload(number)) for number in range(COUNT))
    store.nearest(key(0))
    for row in store.list():
        assert row["outcome"] == "hit" or row["outcome"] in MISSES
    if recover:
        assert store.put(key("new"), b"new") == "queued" and store.flush()
        assert store.get(key("new"))["payload"] == b"new", store.statistics()
        # Some may be found again that were not: writing can put an index in order.
        for number in range(COUNT):
            check(store.get(key(number)), number, payload(number))
    assert store.statistics()["get"].get("internal", 0) == 0
    return hits


def flip_all(master: Path, file: str, tmp_path: Path, everything: bool, step: int) -> tuple[int, int]:
    """Uses copies in which one byte is different. Gives how many kept all their records, of how many."""
    data, kept, tried = (master / file).read_bytes(), 0, 0
    rng = random.Random(0)
    place = copy(master, tmp_path / "flipped")
    for position in positions(len(data), everything, step):
        copy(master, place)
        changed = bytearray(data)
        changed[position] ^= rng.choice([0xFF, 1 << rng.randrange(8)])
        (place / file).write_bytes(changed)
        kept += use(place, recover=tried % 8 == 0) == COUNT
        tried += 1
    return kept, tried


def cut_all(master: Path, file: str, tmp_path: Path, everything: bool, step: int) -> None:
    data = (master / file).read_bytes()
    for number, size in enumerate(positions(len(data), everything, step)):
        place = copy(master, tmp_path / "cut")
        (place / file).write_bytes(data[:size])
        use(place, recover=number % 8 == 0)


def test_undamaged(master, master_with_log, tmp_path) -> None:
    for number, source in enumerate((master, master_with_log)):
        assert use(copy(source, tmp_path / str(number)), recover=True) == COUNT


def test_flipped_bytes(master, tmp_path) -> None:
    kept, tried = flip_all(master, NAME, tmp_path, False, 1009)
    assert 0 < kept < tried > 200  # free space in pages may hold anything, the rest may not


def test_flipped_bytes_of_the_log(master_with_log, tmp_path) -> None:
    kept, tried = flip_all(master_with_log, f"{NAME}-wal", tmp_path, False, 3001)
    assert kept < tried


def test_cut_files(master, tmp_path) -> None:
    cut_all(master, NAME, tmp_path, False, 1009)


def test_cut_logs(master_with_log, tmp_path) -> None:
    cut_all(master_with_log, f"{NAME}-wal", tmp_path, False, 3001)


@pytest.mark.sweep
@pytest.mark.parametrize("log", [False, True])
def test_every_byte(master, master_with_log, tmp_path, log) -> None:
    source, file = (master_with_log, f"{NAME}-wal") if log else (master, NAME)
    flip_all(source, file, tmp_path, True, 1)


@pytest.mark.sweep
@pytest.mark.parametrize("log", [False, True])
def test_every_length(master, master_with_log, tmp_path, log) -> None:
    source, file = (master_with_log, f"{NAME}-wal") if log else (master, NAME)
    cut_all(source, file, tmp_path, True, 1)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\0" * 8192, b"SQLite format 3\0", b"x" * 5000])
def test_foreign_files_in_place_of_the_database(tmp_path, content) -> None:
    place = tmp_path / "store"
    place.mkdir(mode=0o700)
    (place / NAME).write_bytes(content)
    (place / NAME).chmod(0o600)
    assert use(place, recover=True) == 0


def test_random_pages(master, tmp_path) -> None:
    data, rng = (master / NAME).read_bytes(), random.Random(3)
    for number in range(60):
        place, changed = copy(master, tmp_path / "random"), bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            start = rng.randrange(0, len(data), 4096)
            size = rng.choice([8, 100, 4096])
            changed[start : start + size] = rng.choice([rng.randbytes(size), bytes(size), data[:size]])
        (place / NAME).write_bytes(changed[: len(data)])
        use(place, recover=number % 4 == 0)


@pytest.mark.parametrize(
    "statement",
    [
        "PRAGMA user_version = 2",
        "PRAGMA application_id = 0",
        "CREATE TABLE other(x)",
        "CREATE VIEW other AS SELECT 1",
        "CREATE TRIGGER other AFTER INSERT ON entries BEGIN DELETE FROM entries; END",
        "CREATE INDEX other ON entries(size)",
        "DROP INDEX by_use",
        "DROP TABLE payloads",
        "ALTER TABLE entries ADD COLUMN other",
        "ALTER TABLE entries RENAME COLUMN head TO body",
    ],
)
def test_another_layout(master, tmp_path, statement) -> None:
    place = copy(master, tmp_path / "layout")
    change_database(place, (statement,))
    store = _C.Store(place)
    assert store.get(key(0))["outcome"] == "bad_database"
    del store
    assert use(place, recover=True) == 0


@pytest.mark.parametrize(
    ("statement", "outcome"),
    [
        ("UPDATE entries SET head = x''", "bad_magic"),
        ("UPDATE entries SET head = 'fpsr'", "bad_magic"),
        ("UPDATE entries SET head = 5", "bad_magic"),
        ("UPDATE entries SET head = x'66707372'", "bad_size"),
        ("UPDATE entries SET head = x'667073720100'", "bad_size"),
        ("UPDATE entries SET head = x'667073720200'", "bad_version"),
        ("UPDATE entries SET head = substr(head, 1, length(head) - 1)", "bad_size"),
        ("UPDATE entries SET head = CAST(head || x'00' AS BLOB)", "bad_size"),
        ("UPDATE payloads SET data = x''", "bad_size"),
        ("UPDATE payloads SET data = CAST(data || x'00' AS BLOB)", "bad_size"),
        ("UPDATE payloads SET data = zeroblob(length(data))", "bad_checksum"),
        ("UPDATE payloads SET data = 'text'", "lost_payload"),
        ("DELETE FROM payloads", "lost_payload"),
        ("UPDATE payloads SET id = -id", "lost_payload"),
        ("UPDATE payloads SET data = zeroblob(3000000)", "bad_size"),
    ],
)
def test_bad_records(master, tmp_path, statement, outcome) -> None:
    place = copy(master, tmp_path / "bad")
    change_database(place, (statement,))
    store = _C.Store(place)
    assert [store.get(key(n))["outcome"] for n in range(COUNT)] == [outcome] * COUNT
    assert store.statistics()["get"] == {outcome: COUNT}
    assert store.flush()  # drops them
    assert [store.get(key(n))["outcome"] for n in range(COUNT)] == ["absent"] * COUNT
    store.put(key(1), b"new")
    store.flush()
    assert store.get(key(1))["payload"] == b"new" and store.verify()[0] == "hit"


def test_records_that_are_another_keys(master, tmp_path) -> None:
    place = copy(master, tmp_path / "swapped")
    change_database(
        place,
        ("UPDATE entries SET key = ? WHERE key = ?", (record_key(key("x")), record_key(key(0)))),
        ("UPDATE payloads SET id = -id",),
        (f"UPDATE payloads SET id = id + {COUNT + 1}",),
    )
    store = _C.Store(place)
    assert store.get(key("x"))["outcome"] == "other_key" and store.get(key(0))["outcome"] == "absent"
    for number in range(1, COUNT):
        assert not check(store.get(key(number)), number)
    assert {row["outcome"] for row in store.list() if row["key"] == record_key(key("x")).hex()} == {
        "other_key"
    }


def test_two_versions_of_the_format(master, tmp_path) -> None:
    """Another version has another database; a record, database or file of it in our place is a miss."""
    place, other = copy(master, tmp_path / "both"), f"store-{VERSION + 1}.db"
    (place / other).write_bytes(b"what a later version keeps")
    assert use(place, recover=True) == COUNT
    assert (place / other).read_bytes() == b"what a later version keeps"
    head = encode_head(key(0), payload(0), version=VERSION + 1)
    change_database(place, ("UPDATE entries SET head = ? WHERE key = ?", (head, record_key(key(0)))))
    store = _C.Store(place)
    assert store.get(key(0))["outcome"] == "bad_version" and check(store.get(key(1)), 1)
    assert record_key(key(0), VERSION + 1) != record_key(key(0))
    later = tmp_path / "later"
    later.write_bytes(encode_archive([(key(7), b"7")], version=VERSION + 1))
    later.chmod(0o600)
    assert store.load(later) == ("bad_version", 0)
    based = _C.Store(tmp_path / "empty", later)
    assert based.get(key(7))["outcome"] == "absent" and based.statistics()["get"]["bad_version"] == 1


# Heads and portable files as bytes.


def test_heads_cut_and_flipped() -> None:
    head = encode_head(key(1), payload(1))
    assert _C._store_decode(head) == "hit"
    for size in range(len(head)):
        assert _C._store_decode(head[:size]) in {"bad_magic", "bad_size"}
    for position in range(len(head)):
        for bit in range(8):
            changed = bytearray(head)
            changed[position] ^= 1 << bit
            assert _C._store_decode(bytes(changed)) in {
                "bad_magic",
                "bad_version",
                "bad_size",
                "bad_checksum",
            }


def hostile_heads(count: int) -> None:
    """Heads whose checksum is right and whose contents are not."""
    rng, good = random.Random(count), encode_head(key(1), payload(1))[:-32]
    seen = set()
    for _ in range(count):
        changed = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            kind = rng.randrange(4)
            at = rng.randrange(8, len(changed))
            if kind == 0:
                changed[at] = rng.randrange(256)
            elif kind == 1:
                struct.pack_into(
                    "<I", changed, rng.randrange(60, len(changed) - 4), rng.choice([0, 1, 2**31, 2**32 - 1])
                )
            elif kind == 2:
                del changed[at : at + rng.randrange(1, 20)]
            else:
                changed[at:at] = rng.randbytes(rng.randrange(1, 20))
            if len(changed) < 72:
                changed = bytearray(good)
        struct.pack_into("<I", changed, 8, len(changed) + 32)
        seen.add(_C._store_decode(seal_head(bytes(changed))))
    assert {"bad_parts", "bad_size", "hit"} <= seen <= {"bad_parts", "bad_size", "hit"}


def test_hostile_heads() -> None:
    hostile_heads(5000)


@pytest.mark.parametrize(
    "body",
    [
        struct.pack("<I", 0),
        struct.pack("<I", 257) + encode_parts({f"{n:03}": "" for n in range(257)})[4:],
        struct.pack("<I", 2) + encode_parts({"a": "1"})[4:] * 2,
        struct.pack("<I", 2) + encode_parts({"b": "1"})[4:] + encode_parts({"a": "1"})[4:],
        encode_parts({"a": "1"}) + b"\0",
        encode_parts({"a": "1"})[:-1],
        encode_parts({"": "1"}),
        struct.pack("<III", 1, 2**32 - 1, 0),
    ],
)
def test_malformed_parts(body) -> None:
    good = encode_head(key(1), b"")
    head = bytearray(good[:60] + body)
    struct.pack_into("<I", head, 8, len(head) + 32)
    assert _C._store_decode(seal_head(bytes(head))) == "bad_parts"


def test_random_bytes_as_heads() -> None:
    rng = random.Random(5)
    for _ in range(5000):
        data = rng.choice([b"", b"fpsr", b"fpsr\1\0"]) + rng.randbytes(rng.randrange(300))
        assert _C._store_decode(data) in MISSES


def read_archive(path: Path, tmp_path: Path, count: int) -> int:
    """Uses a file as a base layer and loads it. Gives the number of hits."""
    based = _C.Store(tmp_path / "nothing", path)
    hits = sum(check(based.get(key(n)), n, payload(n)) for n in range(count))
    based.list()
    based.nearest(key(0))
    fresh = _C.Store(tmp_path / "fresh", max_waiting=0)  # takes nothing in: only the check is of interest
    outcome, added = fresh.load(path)
    assert outcome in MISSES and added == 0
    assert based.statistics()["get"].get("internal", 0) == fresh.statistics()["get"].get("internal", 0) == 0
    return hits


def archive_damage(tmp_path: Path, everything: bool) -> None:
    good = encode_archive([(key(n), payload(n)) for n in (0, 1)])
    path, rng = tmp_path / "archive", random.Random(1)
    path.touch(mode=0o600)
    lost = 0
    for position in positions(len(good), everything, 7):
        changed = bytearray(good)
        changed[position] ^= rng.choice([0xFF, 1 << rng.randrange(8)])
        path.write_bytes(changed)
        lost += read_archive(path, tmp_path, 2) < 2
    assert lost > len(good) // 20
    for size in positions(len(good), everything, 7):
        path.write_bytes(good[:size])
        read_archive(path, tmp_path, 2)
    path.write_bytes(good + b"\0")
    assert read_archive(path, tmp_path, 2) == 0


def test_damaged_archives(tmp_path) -> None:
    archive_damage(tmp_path, False)


def hostile_archives(tmp_path: Path, count: int) -> None:
    """Files whose index and seal are right and whose offsets and sizes are not."""
    rng = random.Random(count)
    path = tmp_path / "archive"
    path.touch(mode=0o600)
    import hashlib

    good = encode_archive([(key(n), payload(n)) for n in (0, 1)])
    size = len(good)
    index_at = size - 84 - 2 * 52
    numbers = [0, 1, 7, 8, size, size - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1, index_at]
    for _ in range(count):
        changed = bytearray(good[:-64])
        for _ in range(rng.randrange(1, 4)):
            kind, item = rng.randrange(5), index_at + 52 * rng.randrange(2)
            value = rng.choice([*numbers, rng.randrange(size)])
            if kind == 0:
                struct.pack_into("<Q", changed, item + 32, value)
            elif kind == 1:
                struct.pack_into("<I", changed, item + 40, value & 0xFFFFFFFF)
            elif kind == 2:
                struct.pack_into("<Q", changed, item + 44, value)
            elif kind == 3:
                struct.pack_into("<Q", changed, len(changed) - 20 + 8 * rng.randrange(2), value)
            else:
                changed[item + rng.randrange(32)] ^= 1 << rng.randrange(8)
        index = min(struct.unpack_from("<Q", changed, len(changed) - 20)[0], len(changed) - 20)
        out = bytes(changed) + hashlib.sha256(bytes(changed[:8]) + bytes(changed[index:])).digest()
        path.write_bytes(out + hashlib.sha256(out).digest())
        based = _C.Store(tmp_path / "nothing", path)
        for number in (0, 1):
            check(based.get(key(number)), number, payload(number))
        based.list()
        _C.Store(tmp_path / "fresh", max_waiting=0).load(path)
        assert based.statistics()["get"].get("internal", 0) == 0


def test_hostile_archives(tmp_path) -> None:
    hostile_archives(tmp_path, 500)


@pytest.mark.sweep
def test_bytes_of_all_kinds(tmp_path) -> None:
    hostile_heads(300_000)
    hostile_archives(tmp_path, 30_000)
    archive_damage(tmp_path, True)


def test_a_base_that_shrinks_while_it_is_open(tmp_path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(encode_archive([(key(n), payload(n)) for n in range(4)]))
    path.chmod(0o600)
    store = _C.Store(tmp_path / "nothing", path)
    assert store.get(key(3))["outcome"] == "hit"
    os.truncate(path, 100)
    assert store.get(key(3))["outcome"] == "io_error"
