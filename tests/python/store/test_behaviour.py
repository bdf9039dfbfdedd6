"""What a store keeps and finds, its layers, its limits, who may use it."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import flashpoint
from flashpoint import _C
from flashpoint.store import StoreError
from flashpoint.store.__main__ import main
from flashpoint.store.transfer import transfer
from tests.python.store.support import (
    MISSES,
    NAME,
    change_database,
    check,
    encode_archive,
    encode_head,
    filled,
    in_child,
    key,
    payload,
    record_key,
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_found_before_and_after_writing(place) -> None:
    store = _C.Store(place)
    assert store.get(key(1))["outcome"] == "absent"
    assert store.put(key(1), payload(1)) == "queued"
    assert store.get(key(1))["payload"] == payload(1)
    assert store.flush()
    found = store.get(dict(reversed(key(1).items())))
    assert found == {"outcome": "hit", "payload": payload(1), "layer": "user", "origin": "own"}
    assert store.statistics()["put"] == {"queued": 1, "written": 1}
    assert store.statistics()["get"] == {"absent": 1, "hit": 2}
    del store
    assert _C.Store(place).get(key(1))["payload"] == payload(1)


def test_the_last_put_counts(place) -> None:
    store = _C.Store(place)
    for text in (b"one", b"two"):
        store.put(key(1), text)
    assert store.get(key(1))["payload"] == b"two"
    store.flush()
    store.put(key(1), b"three")
    assert store.get(key(1))["payload"] == b"three"
    store.flush()
    assert store.get(key(1))["payload"] == b"three" and store.statistics()["records"] == 1


@pytest.mark.parametrize("data", [b"", b"\0", bytes(range(256)), b"x" * 4096, b"y" * (1 << 20)])
def test_payloads_of_all_kinds(place, data) -> None:
    store = _C.Store(place)
    store.put(key(1), data)
    store.flush()
    assert store.get(key(1))["payload"] == data


def test_every_part_of_a_key_counts(place) -> None:
    store = _C.Store(place)
    parts = {"a": "1", "b": "2"}
    others = [
        {"a": "1"}, {"a": "1", "b": "3"}, {"a": "1", "c": "2"}, {"a": "1", "b": "2", "c": ""}, {"a": "12", "b": ""},
        {"a": "1b", "": "2"}, {"ab": "12"}, {"a": "1", "b": "2\0"}, {"a": "2", "b": "1"}, {"A": "1", "b": "2"},
    ]  # fmt: skip
    store.put(parts, b"right")
    for _ in range(2):
        assert store.get(parts)["payload"] == b"right"
        assert {store.get(other)["outcome"] for other in others} == {"absent", "bad_parts"}
        store.flush()


def test_keys_that_are_none(place) -> None:
    store = _C.Store(place)
    for parts in ({}, {"": "x"}, {str(i): "" for i in range(257)}, {"a": "x" * (1 << 20)}):
        assert store.put(parts, b"") == "bad_parts"
        assert store.get(parts)["outcome"] == "bad_parts"
    for wrong in (None, [], {"a": 1}, {1: "a"}, {"a": b"x"}):
        with pytest.raises(TypeError, match=r"\[flashpoint.store\] "):
            store.get(wrong)
    with pytest.raises(TypeError):
        store.put(key(1), "text")


def test_texts_of_all_kinds_in_keys(place) -> None:
    store = _C.Store(place)
    parts = {"päth": "\U0001f600\udcff\0\n", "z" * 1000: "x" * 100000}
    store.put(parts, b"data")
    store.flush()
    assert store.get(parts)["outcome"] == "hit" and store.list()[0]["parts"] == parts


def test_format_is_as_described(place) -> None:
    """A record made from the description is found, and ours have the key that it gives."""
    filled(place, 1)
    parts, data = {"code": "by hand", "ä": "ö"}, b"payload by hand"
    change_database(
        place,
        ("INSERT INTO entries VALUES (77, ?, ?, 0, 0)", (record_key(parts), encode_head(parts, data))),
        ("INSERT INTO payloads VALUES (77, ?)", (data,)),
    )
    store = _C.Store(place)
    assert store.get(parts)["payload"] == data
    assert {row["key"] for row in store.list()} == {record_key(p).hex() for p in (parts, key(0))}


def test_nearest(place, tmp_path) -> None:
    base = tmp_path / "base"
    base.write_bytes(encode_archive([({"code": "c", "host": "h", "torch": "base"}, b"")]))
    store = _C.Store(place, base)
    assert store.nearest({"nothing": "alike"}) is None
    store.put({"code": "f", "host": "a", "torch": "1"}, b"")
    store.put({"code": "f", "host": "b", "torch": "2"}, b"")
    store.flush()
    store.put({"code": "g", "host": "b", "torch": "2"}, b"")
    for _ in range(2):
        assert store.nearest({"code": "f", "host": "b", "torch": "3"}) == {
            "code": "f",
            "host": "b",
            "torch": "2",
        }
        assert store.nearest({"code": "g", "host": "x", "torch": "2"}) == {
            "code": "g",
            "host": "b",
            "torch": "2",
        }
        assert store.nearest({"torch": "base"}) == {"code": "c", "host": "h", "torch": "base"}
        assert store.nearest({"code": "z"}) is None
        store.flush()
    assert _C.Store(place, enabled=False).nearest({"code": "f"}) is None


def test_least_recently_used_goes_first(place) -> None:
    data = b"x" * 10000
    store = _C.Store(place, limit=100_000)
    for number in range(8):
        store.put(key(number), data)
    store.flush()
    assert store.get(key(0))["outcome"] == "hit"  # used last now
    store.flush()
    for number in range(8, 14):
        store.put(key(number), data)
        store.flush()
    kept = [number for number in range(14) if store.get(key(number))["outcome"] == "hit"]
    held = store.statistics()
    assert 0 in kept and kept[-1] == 13 and 1 not in kept
    assert kept[1:] == list(range(kept[1], 14))
    assert held["bytes"] <= 100_000 and held["evicted"] == 14 - len(kept)


def test_files_stay_bounded(place) -> None:
    store = _C.Store(place, limit=1_000_000)
    for number in range(400):
        store.put(key(number), os.urandom(20000))
        if number % 20 == 0:
            store.flush()
    store.flush()
    assert store.collect() == "hit"
    assert sum(file.stat().st_size for file in place.iterdir()) < 3_000_000
    assert store.collect(0) == "hit" and store.statistics()["records"] == 0
    assert sum(file.stat().st_size for file in place.iterdir()) < 200_000


def test_what_is_too_large_is_not_kept(place) -> None:
    store = _C.Store(place, limit=100_000, max_waiting=150_000)
    assert store.put(key(0), bytes(60_000)) == "too_large"
    outcomes = [store.put(key(number), bytes(30_000)) for number in range(50)]
    assert set(outcomes) <= {"queued", "queue_full"} and "queue_full" in outcomes
    store.flush()
    assert store.put(key(99), bytes(30_000)) == "queued"


def test_clock_may_jump(place) -> None:
    data = b"x" * 10000
    store = _C.Store(place, limit=100_000)
    for number, now in enumerate([1, 2**62, -(2**62), 5, 2**63 - 1, -(2**63), 1000, 1, 2**40, 7, 3, 2]):
        store._set_clock(now)
        store.put(key(number), data)
        store.flush()
        assert store.get(key(number))["payload"] == data
    kept = [number for number in range(12) if store.get(key(number))["outcome"] == "hit"]
    assert kept == list(range(kept[0], 12)) and len(kept) >= 7
    assert main(["--directory", str(place), "list"]) == 0


def test_counts_of_use_may_be_anything(place) -> None:
    filled(place, 4)
    change_database(place, ("UPDATE entries SET used = 9223372036854775807",))
    store = _C.Store(place)
    store.put(key(5), b"5")
    store.flush()
    assert [store.get(key(n))["outcome"] for n in (0, 1, 2, 3, 5)] == ["hit"] * 5
    store.flush()
    del store
    change_database(place, ("UPDATE entries SET used = -5, size = -9223372036854775808",))
    store = _C.Store(place)
    store.put(key(6), b"6")
    store.flush()
    assert store.get(key(6))["payload"] == b"6"


def test_threads(place) -> None:
    store, errors = _C.Store(place), []

    def work(seed: int) -> None:
        try:
            for step in range(100):
                number = (seed * 7 + step) % 50
                check(store.get(key(number)), number)
                assert store.put(key(number), payload(number, seed)) == "queued"
                assert check(store.get(key(number)), number)
                if step % 25 == 0:
                    store.flush()
                    store.nearest(key(number))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and store.flush() and store.verify()[0] == "hit"
    assert all(check(store.get(key(number)), number) for number in range(50))


def test_switched_off(place) -> None:
    store = _C.Store(place, enabled=False)
    assert store.put(key(1), b"") == "disabled" and store.get(key(1))["outcome"] == "disabled"
    assert store.flush() and not place.exists()
    assert store.save(place) == ("disabled", 0) and store.collect() == "disabled" and store.list() == []


# Who may use it.


def test_directory_is_made_for_the_owner_alone(tmp_path) -> None:
    before = os.umask(0)
    try:
        filled(tmp_path / "a" / "b", 1)
    finally:
        os.umask(before)
    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for file in (tmp_path / "a" / "b").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def refused(place: Path, outcome: str) -> None:
    store = _C.Store(place)
    assert store.get(key(0))["outcome"] == outcome
    store.put(key(1), b"")
    store.flush()
    assert store.statistics()["put"] == {"queued": 1, outcome: 1}
    assert store.get(key(1))["outcome"] == outcome


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o1777])
def test_directory_that_others_may_write(place, mode) -> None:
    filled(place, 1)
    place.chmod(mode)
    refused(place, "directory_refused")


@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602])
def test_file_that_others_may_write(place, mode) -> None:
    filled(place, 1)
    (place / NAME).chmod(mode)
    refused(place, "file_refused")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root to give files away")
def test_what_belongs_to_others(place) -> None:
    filled(place, 1)
    os.chown(place / NAME, pwd.getpwnam("nobody").pw_uid, -1)
    refused(place, "file_refused")
    os.chown(place / NAME, 0, -1)
    os.chown(place, pwd.getpwnam("nobody").pw_uid, -1)
    refused(place, "directory_refused")


def test_links_and_other_kinds_of_file(place, tmp_path) -> None:
    filled(tmp_path / "other", 1)
    place.mkdir(mode=0o700)
    (place / NAME).symlink_to(tmp_path / "other" / NAME)
    refused(place, "file_refused")
    (place / NAME).unlink()
    os.mkfifo(place / NAME, 0o600)
    refused(place, "file_refused")


def test_no_directory(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    store = _C.Store(tmp_path / "file")
    store.put(key(1), b"")
    store.flush()
    assert store.statistics()["put"]["directory_refused"] == 1
    store = _C.Store(tmp_path / "file" / "below")
    store.put(key(1), b"")
    store.flush()
    assert store.statistics()["put"]["no_directory"] == 1
    assert store.get(key(1))["outcome"] in {"absent", "cannot_open"}


def test_strange_names_of_directories(tmp_path) -> None:
    place = tmp_path / "a?mode=memory#%41 b\né"
    filled(place, 2)
    assert (place / NAME).is_file()
    assert _C.Store(place).get(key(1))["payload"] == payload(1)


def test_cache_that_is_emptied_meanwhile(place) -> None:
    filled(place, 3)
    store = _C.Store(place)
    assert store.get(key(1))["outcome"] == "hit"
    for file in place.iterdir():
        file.unlink()
    assert store.get(key(1))["outcome"] == "absent"
    store.put(key(2), b"new")
    store.flush()
    assert store.get(key(2))["payload"] == b"new" and (place / NAME).exists()
    assert _C.Store(place).get(key(2))["payload"] == b"new"


# Layers and files.


def test_base_layer(place, tmp_path) -> None:
    base = tmp_path / "base"
    base.write_bytes(encode_archive([(key(n), payload(n)) for n in range(5)]))
    base.chmod(0o444)
    store = _C.Store(place, base)
    assert store.get(key(3)) == {
        "outcome": "hit", "payload": payload(3), "layer": "base", "origin": "unsigned",
    }  # fmt: skip
    assert store.get(key(9))["outcome"] == "absent"
    store.put(key(3), b"mine")
    store.flush()
    assert (store.get(key(3))["payload"], store.get(key(3))["layer"]) == (b"mine", "user")
    assert base.read_bytes() == encode_archive([(key(n), payload(n)) for n in range(5)])
    assert [row["layer"] for row in store.list()] == ["user"] + ["base"] * 5


@pytest.mark.parametrize("mode", [0o666, 0o620])
def test_base_that_others_may_write(place, tmp_path, mode) -> None:
    base = tmp_path / "base"
    base.write_bytes(encode_archive([(key(1), payload(1))]))
    base.chmod(mode)
    store = _C.Store(place, base)
    assert store.get(key(1))["outcome"] == "absent" and store.statistics()["get"]["file_refused"] == 1


def test_missing_base(place, tmp_path) -> None:
    store = _C.Store(place, tmp_path / "none")
    assert store.get(key(1))["outcome"] == "absent"


@pytest.mark.parametrize("secret", [None, b"secret", b"s" * 200])
def test_save_and_load(place, tmp_path, secret) -> None:
    records, path = filled(place, 6), tmp_path / "file"
    assert transfer(_C.Store(place), "save", path, secret) == 6
    if secret is None:
        entries = [(key(n), data) for n, data in records.items()]
        assert len(path.read_bytes()) == len(encode_archive(entries))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    other = _C.Store(tmp_path / "other")
    assert transfer(other, "load", path, secret) == 6
    for number, data in records.items():
        found = other.get(key(number))
        assert found["payload"] == data and found["origin"] == ("unsigned" if secret is None else "signed")
    assert transfer(other, "load", path, secret) == 0


def test_own_records_are_not_replaced(place, tmp_path) -> None:
    filled(tmp_path / "other", 2)
    assert _C.Store(tmp_path / "other").save(tmp_path / "file") == ("written", 2)
    store = _C.Store(place)
    store.put(key(0), b"mine")
    store.flush()
    assert store.load(tmp_path / "file") == ("written", 1)
    assert store.get(key(0))["payload"] == b"mine" and store.get(key(1))["payload"] == payload(1)
    # A signed one is worth more than an unsigned one.
    assert _C.Store(tmp_path / "other").save(tmp_path / "signed", b"k") == ("written", 2)
    assert store.load(tmp_path / "signed", b"k") == ("written", 1)
    assert [store.get(key(n))["origin"] for n in (0, 1)] == ["own", "signed"]


def test_signatures(place, tmp_path) -> None:
    filled(place, 2)
    store, other = _C.Store(place), _C.Store(tmp_path / "other")
    transfer(store, "save", tmp_path / "plain", None)
    transfer(store, "save", tmp_path / "signed", b"right")
    for name, secret in [("plain", b"right"), ("signed", None), ("signed", b"wrong")]:
        with pytest.raises(
            StoreError, match=rf"^\[flashpoint.store.load\] .*{name}: the signature"
        ) as caught:
            transfer(other, "load", tmp_path / name, secret)
        assert caught.value.outcome == "bad_signature"
    # Resealing without the key does not make it good.
    data = bytearray((tmp_path / "signed").read_bytes())
    data[100] ^= 1
    (tmp_path / "signed").write_bytes(data)
    with pytest.raises(StoreError):
        transfer(other, "load", tmp_path / "signed", b"right")
    assert other.list() == []


def test_errors_of_save_and_load(place, tmp_path) -> None:
    filled(place, 1)
    store = _C.Store(place)
    with pytest.raises(StoreError, match=r"\[flashpoint.store.load\] .*nothing: there is no such file"):
        transfer(store, "load", tmp_path / "nothing", None)
    with pytest.raises(
        StoreError, match=r"not a record of Flashpoint \(it was not written by flashpoint.store.save"
    ):
        transfer(store, "load", Path(__file__), None)
    with pytest.raises(StoreError, match=r"\[flashpoint.store.save\] .*no/file: .*cannot be found or made"):
        transfer(store, "save", tmp_path / "no" / "file", None)
    for name in ("save", "load"):
        with pytest.raises(
            TypeError, match=rf"\[flashpoint.store.{name}\] key must be bytes or None, not str"
        ):
            transfer(store, name, tmp_path / "file", "text")
        with pytest.raises(ValueError, match=rf"\[flashpoint.store.{name}\] the key is empty"):
            transfer(store, name, tmp_path / "file", b"")
    assert not list(tmp_path.glob("file*"))


def test_save_replaces_at_once(place, tmp_path) -> None:
    filled(place, 3)
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o400)
    assert _C.Store(place).save(path)[0] == "written"
    assert _C.Store(tmp_path / "other").load(path) == ("written", 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "file", "other"]


def test_reading_imports_and_runs_nothing(place, tmp_path) -> None:
    import pickle

    class Trap:
        def __reduce__(self):
            return (os._exit, (17,))

    store = _C.Store(place)
    store.put({"__reduce__": "os.system"}, pickle.dumps(Trap()))
    store.flush()
    store.save(tmp_path / "file")

    def read() -> None:
        fresh = _C.Store(place)
        modules, events = set(sys.modules), []
        sys.addaudithook(lambda name, args: events.append(name))
        assert fresh.get({"__reduce__": "os.system"})["outcome"] == "hit"
        assert fresh.load(tmp_path / "file") == ("hit", 0) or True
        fresh.list(), fresh.verify(), fresh.nearest({"__reduce__": "os.system"})
        assert set(sys.modules) == modules and not events, events

    in_child(read)


# The process's own store, and the command.


@pytest.mark.slow
def test_environment_and_exit(run_python, tmp_path) -> None:
    put = "from flashpoint import _C; print(_C._store_shared().put({'a': '1'}, b'x' * 9))"
    get = "from flashpoint import _C, store; print(_C._store_shared().get({'a': '1'})['outcome'], store.directory())"
    base = tmp_path / "base"
    base.write_bytes(encode_archive([({"a": "1"}, b"base")]))
    base.chmod(0o600)
    cases = [
        (put, {"FLASHPOINT_CACHE_DIR": str(tmp_path / "a")}, "queued"),
        (get, {"FLASHPOINT_CACHE_DIR": str(tmp_path / "a")}, f"hit {tmp_path}/a"),
        (
            get,
            {"FLASHPOINT_CACHE_DIR": str(tmp_path / "a"), "FLASHPOINT_CACHE": "0"},
            f"disabled {tmp_path}/a",
        ),
        (get, {"XDG_CACHE_HOME": str(tmp_path)}, f"absent {tmp_path}/flashpoint"),
        (get, {"XDG_CACHE_HOME": "", "HOME": str(tmp_path)}, f"absent {tmp_path}/.cache/flashpoint"),
        (
            get,
            {"XDG_CACHE_HOME": str(tmp_path), "FLASHPOINT_CACHE_BASE": str(base)},
            f"hit {tmp_path}/flashpoint",
        ),
        (put, {"FLASHPOINT_CACHE_DIR": str(tmp_path / "a"), "FLASHPOINT_CACHE": "0"}, "disabled"),
    ]
    for program, env, shown in cases:
        done = run_python("-c", program, **{"FLASHPOINT_CACHE_DIR": "", **env})
        assert (done.stdout.strip(), done.stderr) == (shown, ""), env
    assert not (tmp_path / "flashpoint").exists() and not (tmp_path / ".cache").exists()


@pytest.mark.slow
def test_command_as_module(run_python, tmp_path) -> None:
    filled(tmp_path / "a", 2)
    done = run_python("-m", "flashpoint.store", "verify", FLASHPOINT_CACHE_DIR=str(tmp_path / "a"))
    assert (done.returncode, done.stdout) == (0, "2 records, 0 bad\n"), done.stderr


def command(capsys, place: Path, *args: str) -> tuple[int, str, str]:
    status = main(["--directory", str(place), *args])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def test_command(place, tmp_path, capsys) -> None:
    records = filled(place, 5)
    status, out, _ = command(capsys, place, "list")
    assert status == 0 and len(out.splitlines()) == 6 and out.splitlines()[-1].startswith("5 records, ")
    name = record_key(key(3)).hex()
    status, out, _ = command(capsys, place, "inspect", name[:16])
    assert status == 0 and "  code = function 3\n  host = x86-64\n" in out and str(len(records[3])) in out
    assert command(capsys, place, "inspect", "ffffffffff")[0] == 1
    assert command(capsys, place, "verify") == (0, "5 records, 0 bad\n", "")
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret\n")
    for options in ((), ("--key-file", str(secret))):
        assert command(capsys, place, "export", str(tmp_path / "f"), *options) == (
            0,
            "5 records written\n",
            "",
        )
        target = tmp_path / f"other{len(options)}"
        assert command(capsys, target, "import", str(tmp_path / "f"), *options) == (
            0,
            "5 records added\n",
            "",
        )
    status, _, err = command(capsys, tmp_path / "new", "import", str(tmp_path / "f"))
    assert status == 1 and "signature" in err
    status, out, _ = command(capsys, place, "gc", "--limit", "0")
    assert status == 0 and out == "5 evicted; 0 records, 0 bytes\n"


def test_command_on_what_is_bad(place, tmp_path, capsys) -> None:
    filled(place, 3)
    change_database(place, ("UPDATE payloads SET data = x'00' WHERE id = 2",))
    status, out, _ = command(capsys, place, "verify")
    assert status == 1 and "bad_size" in out and out.endswith("3 records, 1 bad\n")
    assert command(capsys, place, "gc")[0] == 0
    assert command(capsys, place, "verify") == (0, "2 records, 0 bad\n", "")
    place.chmod(0o777)
    status, _, err = command(capsys, place, "list")
    assert status == 1 and "others may write to it" in err
    with pytest.raises(SystemExit) as caught:
        main(["nonsense"])
    assert caught.value.code == 2


def test_command_shows_no_control_characters(place, capsys) -> None:
    store = _C.Store(place)
    store.put({"a\x1b[2J": "b\n\x07\udcff"}, b"")
    store.flush()
    _, out, _ = command(capsys, place, "inspect", "")
    assert "\x1b" not in out and "\x07" not in out and r"a\x1b[2J = b\n\x07\udcff" in out


def test_every_outcome_has_a_text() -> None:
    outcomes = _C._store_outcomes()
    assert MISSES < set(outcomes) and all(outcomes.values())


def test_symbols_of_sqlite_are_hidden() -> None:
    shown = subprocess.run(["nm", "-D", "--defined-only", _C.__file__], capture_output=True, text=True)
    names = {line.split()[-1] for line in shown.stdout.splitlines()}
    # Instances of the standard library's templates may have SQLite's types in their names.
    assert "PyInit__C" in names and not [name for name in names if name.startswith("sqlite3_")]


def test_public_names() -> None:
    assert set(flashpoint.store.__all__) <= set(dir(flashpoint.store))
    assert isinstance(flashpoint.store.directory(), str)
    assert set(flashpoint.store.statistics()) == {"get", "put", "evicted", "records", "bytes"}
