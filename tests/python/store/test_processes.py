"""Many processes, killed processes, forks, full and read-only disks."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flashpoint import _C
from tests.python.store.support import NAME, check, filled, fork, in_child, key, payload, reap

pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def write_and_read(place: Path, seed: int, rounds: int, limit: int) -> None:
    rng = random.Random(seed)
    store = _C.Store(place, limit=limit)
    for _ in range(rounds):
        number = rng.randrange(24)
        check(store.get(key(number)), number)
        assert store.put(key(number), payload(number, seed)) == "queued"
        if rng.random() < 0.2:
            assert store.flush()
    assert store.flush(30000)
    seen = store.statistics()
    # On a loaded machine a writer may have to give up waiting for the others, and says so.
    assert set(seen["put"]) - {"busy"} == {"queued", "written"}, seen
    assert set(seen["get"]) <= {"hit", "absent"}, seen


def many_processes(place: Path, count: int, rounds: int, limit: int) -> None:
    statuses = reap([fork(lambda n=n: write_and_read(place, n, rounds, limit)) for n in range(count)], 180)
    assert statuses == [0] * count
    store = _C.Store(place, limit=limit)
    database, rows = store.verify()
    assert database == "hit" and rows and {row["outcome"] for row in rows} == {"hit"}
    assert store.statistics()["bytes"] <= limit
    assert sum(check(store.get(key(number)), number) for number in range(24)) == len(rows)


@pytest.mark.parametrize("limit", [1 << 30, 200_000])
def test_processes_that_write_at_once(place, limit) -> None:
    many_processes(place, 6, 12, limit)


@pytest.mark.sweep
@pytest.mark.parametrize("limit", [1 << 30, 200_000])
def test_fifty_processes_that_write_at_once(place, limit) -> None:
    many_processes(place, 50, 40, limit)


def kill_in_a_loop(place: Path, count: int) -> None:
    """Processes killed while they write: what is found is whole, and what was flushed before is there."""
    rng, flushed = random.Random(0), set()
    for round_number in range(count):
        read, write = os.pipe()

        def work(seed=round_number, write=write) -> None:
            store = _C.Store(place)
            for number in range(seed * 5, seed * 5 + 200):
                store.put(key(number % 300), payload(number % 300, seed))
                if number % 3 == 0 and store.flush():
                    os.write(write, bytes([number % 300 // 256, number % 300 % 256]))

        pid = fork(work)
        os.close(write)
        # After so many flushes, and a moment of what comes next.
        told = b"".join(os.read(read, 2) for _ in range(rng.randrange(8)))
        time.sleep(rng.uniform(0, 0.02))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with os.fdopen(read, "rb") as stream:
            told += stream.read()
        flushed |= {told[i] * 256 + told[i + 1] for i in range(0, len(told) - 1, 2)}
        store = _C.Store(place)
        found = {number for number in range(300) if check(store.get(key(number)), number)}
        assert flushed <= found
        assert set(store.statistics()["get"]) <= {"hit", "absent"}
    assert flushed
    assert _C.Store(place).verify()[0] == "hit"


def test_killed_processes(place) -> None:
    kill_in_a_loop(place, 10)


@pytest.mark.sweep
def test_two_hundred_killed_processes(place) -> None:
    kill_in_a_loop(place, 200)


def test_processes_killed_while_others_write_and_the_database_is_replaced(place) -> None:
    """Everything at once: damage, replacement, kills. Never a wrong record, and it works in the end."""
    filled(place, 8)
    rng = random.Random(1)
    for step in range(6):

        def work(seed=step) -> None:
            store, own = _C.Store(place), random.Random(seed)
            for _ in range(30):
                number = own.randrange(24)
                check(store.get(key(number)), number)
                store.put(key(number), payload(number))
                store.flush()

        pids = [fork(work) for _ in range(3)]
        time.sleep(rng.uniform(0, 0.03))
        with contextlib.suppress(FileNotFoundError), open(place / NAME, "r+b") as file:
            file.seek(rng.choice([0, 20, 100, 4096, 8192]))
            file.write(rng.randbytes(50))
        time.sleep(rng.uniform(0, 0.03))
        os.kill(pids[0], signal.SIGKILL)
        assert reap(pids)[1:] == [0, 0]
    store = _C.Store(place)
    store.get(key(0))
    store.flush()
    store.put(key(1), payload(1))
    store.flush()
    assert check(store.get(key(1)), 1)


# Forks.


def test_fork_with_a_store_in_use(place) -> None:
    store = _C.Store(place)
    store.put(key(0), payload(0))
    store.flush()
    assert check(store.get(key(0)), 0)
    store.put(key(1), payload(1))  # waits; the parent writes it

    def child() -> None:
        assert check(store.get(key(0)), 0)
        store.put(key(2), payload(2))
        assert store.flush()
        assert check(store.get(key(2)), 2)
        in_child(lambda: check(store.get(key(2)), 2) or 1 / 0)

    pids = [fork(child) for _ in range(3)]
    assert store.flush()
    assert reap(pids) == [0, 0, 0]
    assert all(check(store.get(key(number)), number) for number in range(3))
    assert store.verify()[0] == "hit"


def test_forks_while_threads_write(place) -> None:
    store, stop, errors = _C.Store(place), threading.Event(), []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        try:
            while not stop.is_set():
                number = rng.randrange(40)
                store.put(key(number), payload(number))
                check(store.get(key(number)), number)
                store.flush()
        except BaseException as error:
            errors.append(error)

    def child() -> None:
        for number in range(10):
            check(store.get(key(number)), number)
            store.put(key(number), payload(number))
        assert store.flush()
        assert all(check(store.get(key(number)), number) for number in range(10))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(12):
            assert reap([fork(child), fork(child)]) == [0, 0]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors and store.flush() and store.verify()[0] == "hit"
    assert set(store.statistics()["put"]) == {"queued", "written"}


def test_fork_leaves_what_waits_to_the_parent(place) -> None:
    store = _C.Store(place)
    for number in range(50):
        store.put(key(number), payload(number))
    in_child(lambda: store.flush() or 1 / 0)
    assert store.flush() and store.statistics()["put"] == {"queued": 50, "written": 50}


def test_subprocesses_do_not_disturb(place) -> None:
    store = _C.Store(place)
    store.put(key(0), payload(0))
    assert subprocess.run(["true"], close_fds=False).returncode == 0
    assert store.flush() and check(store.get(key(0)), 0)


def test_locked_by_another_process(place) -> None:
    """A process that keeps the database for itself costs a bounded wait, and the records that waited."""
    import sqlite3

    filled(place, 2)
    ready, go = os.pipe(), os.pipe()

    def hold() -> None:
        connection = sqlite3.connect(place / NAME)
        connection.execute("BEGIN IMMEDIATE")
        os.write(ready[1], b"x")
        os.read(go[0], 1)

    pid = fork(hold)
    os.read(ready[0], 1)
    store, start = _C.Store(place), time.monotonic()
    assert check(store.get(key(1)), 1)  # reading goes on
    store.put(key(5), b"5")
    assert store.flush() and store.statistics()["put"] == {"queued": 1, "busy": 1}
    assert time.monotonic() - start < 10
    os.write(go[1], b"x")
    assert reap([pid]) == [0]
    store.put(key(5), b"5")
    assert store.flush() and store.get(key(5))["payload"] == b"5"


def test_lock_file_held_by_another_process(place) -> None:
    import fcntl

    filled(place, 1)
    with open(place / "lock") as file:
        ready, go = os.pipe(), os.pipe()

        def hold() -> None:
            with open(place / "lock") as own:
                fcntl.flock(own, fcntl.LOCK_EX)
                os.write(ready[1], b"x")
                os.read(go[0], 1)

        pid = fork(hold)
        os.read(ready[0], 1)
        start = time.monotonic()
        assert _C.Store(place).get(key(0))["outcome"] == "busy"
        assert time.monotonic() - start < 5
        os.write(go[1], b"x")
        assert reap([pid]) == [0] and file
    assert check(_C.Store(place).get(key(0)), 0)


# Disks.


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("needs to be root to mount a disk")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(path)], capture_output=True
    )
    if done.returncode != 0:
        pytest.skip("cannot mount a disk here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_full_disk(tmp_path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        place = disk / "cache"
        store = _C.Store(place)
        store.put(key(0), payload(0))
        store.flush()
        for number in range(1, 60):
            store.put(key(number), payload(3, number))
            store.flush()
        seen = store.statistics()["put"]
        assert seen["written"] > 3 and seen["disk_full"] > 3
        assert set(seen) <= {"queued", "written", "disk_full", "io_error"}, seen
        assert check(store.get(key(0)), 0)
        outcome, _ = store.save(disk / "file")
        assert outcome == "disk_full" and not list(disk.glob("file*"))
        assert store.verify()[0] == "hit"
        # The oldest make room, and it goes on.
        assert store.collect(0) in {"hit", "disk_full"}
        store.put(key(99), payload(99))
        store.flush()
        assert check(store.get(key(99)), 99) or store.statistics()["put"]["disk_full"]
        assert check(_C.Store(place).get(key(99)), 99) or True
        store.collect(0)


def test_disk_that_is_full_from_the_start(tmp_path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        with contextlib.suppress(OSError), open(disk / "fill", "wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        store = _C.Store(disk / "cache")
        store.put(key(0), payload(0))
        store.flush()
        assert store.get(key(0))["outcome"] in {"absent", "no_directory", "cannot_open", "disk_full"}
        assert "written" not in store.statistics()["put"]
        (disk / "fill").unlink()
        store.put(key(0), b"now")
        store.flush()
        assert store.get(key(0))["payload"] == b"now"


def test_read_only_disk(tmp_path) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        place = disk / "cache"
        records = filled(place, 5)
        store = _C.Store(place)
        assert check(store.get(key(1)), 1)
        del store
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        store = _C.Store(place)
        for number, data in records.items():
            assert check(store.get(key(number)), number, data)
        store.put(key(9), b"")
        assert store.flush()
        assert set(store.statistics()["put"]) <= {"queued", "read_only", "cannot_open"}
        assert "written" not in store.statistics()["put"]
        assert store.get(key(9))["outcome"] == "absent"
        assert store.save(disk / "file")[0] == "read_only"
        assert _C.Store(disk / "other").get(key(0))["outcome"] in {"absent", "no_directory"}
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        store.put(key(9), b"9")
        assert store.flush() and store.get(key(9))["payload"] == b"9"


@pytest.mark.sweep
def test_a_thousand_entries_are_found_quickly(place) -> None:
    store = _C.Store(place)
    for number in range(1000):
        store.put(key(number), os.urandom(4000))
    store.flush()
    store.get(key(0))
    times = []
    for number in range(1000):
        start = time.perf_counter()
        assert store.get(key(number))["outcome"] == "hit"
        times.append(time.perf_counter() - start)
    assert sorted(times)[990] < 1e-3
