"""The tier beyond this machine, against a real redis-server: shared, signed, and no harm when it fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from flashpoint import _C
from flashpoint.store import __main__ as command
from flashpoint.store import remote as tier

ROOT = Path(__file__).resolve().parents[3]
KEY = b"a secret"


class Server:
    """A redis-server on a socket of its own, without files."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server")
        assert program is not None, "make setup installs redis-server"
        self.socket = str(folder / "s")
        self.url = f"unix://{self.socket}"
        self.client = redis.Redis.from_url(self.url)
        self.process = subprocess.Popen(
            [program, "--port", "0", "--unixsocket", self.socket, "--save", "", "--appendonly", "no"],
            stdout=subprocess.DEVNULL,
            cwd=folder,
        )
        for _ in range(200):
            try:
                self.client.ping()
                return
            except redis.exceptions.ConnectionError:
                time.sleep(0.05)
        raise RuntimeError("redis-server does not answer")

    def names(self) -> list[bytes]:
        return sorted(self.client.keys("flashpoint:*"))

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("r"))
    yield made
    made.stop()


def store_in(folder: Path) -> _C.Store:
    return _C.Store(str(folder))


def joined(store: _C.Store, server: Server, key: bytes = KEY, **options: Any) -> tier.Remote:
    remote = tier.connect_store(store, server.url, key, **{"timeout": 5.0, "interval": 60.0, **options})
    remote._begin()
    return remote


PARTS = {"code": "f", "kind": "test"}

CHILD = """
import json, sys, torch, flashpoint
backend, key = sys.argv[1], sys.argv[2].encode()
if key:
    remote = flashpoint.store.connect(sys.argv[3], key=key, timeout=5.0)
flashpoint.config.native_patience = 0
model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.GELU(), torch.nn.LayerNorm(4)).eval()
torch.manual_seed(0)
compiled = flashpoint.compile(model, backend=backend)
with torch.no_grad():
    for k in range(3):
        x = torch.full((2, 4), k + 0.5)
        torch.testing.assert_close(compiled(x), model(x))
got = flashpoint.store.statistics()["get"]
counts = flashpoint.counters()
print(json.dumps({"got": got, "captures": counts["captures_started"], "kernels": counts["kernels_compiled"],
    "loaded": counts["entries_loaded"], "hits": counts["hits"]}))
"""


def run(folder: Path, server: Server | None, backend: str, key: bytes = KEY, **env: str) -> dict[str, Any]:
    """A process whose own store is in a folder of its own."""
    url = "" if server is None else server.url
    done = subprocess.run(
        [sys.executable, "-c", CHILD, backend, key.decode(), url],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "FLASHPOINT_CACHE_DIR": str(folder),
            "FLASHPOINT_RECORDINGS": "1",
            **env,
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1]) | {"stderr": done.stderr}
    return told


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "native"])
def test_machines_share(server: Server, tmp_path: Path, backend: str) -> None:
    first = run(tmp_path / "a", server, backend)
    assert first["captures"] == 1 and first["loaded"] == 0
    assert len(server.names()) == (1 if backend == "eager" else 2)
    second = run(tmp_path / "b", server, backend)
    assert second["captures"] == 0 and second["loaded"] == 1 and second["hits"] == 3
    assert second["kernels"] == 0
    # And from then on without the server.
    third = run(tmp_path / "b", None, backend, key=b"")
    assert third["captures"] == 0 and third["kernels"] == 0


@pytest.mark.slow
def test_environment(server: Server, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(KEY)
    env = {"FLASHPOINT_CACHE_REDIS": server.url, "FLASHPOINT_CACHE_REDIS_KEY_FILE": str(tmp_path / "key")}
    assert run(tmp_path / "a", None, "eager", key=b"", **env)["captures"] == 1
    assert run(tmp_path / "b", None, "eager", key=b"", **env)["captures"] == 0
    told = run(tmp_path / "c", None, "eager", key=b"", **{**env, "FLASHPOINT_CACHE_REDIS_KEY_FILE": ""})
    assert told["captures"] == 1 and "FLASHPOINT_CACHE_REDIS is not used" in told["stderr"]


@pytest.mark.slow
def test_another_key(server: Server, tmp_path: Path) -> None:
    run(tmp_path / "a", server, "eager")
    other = run(tmp_path / "b", server, "eager", key=b"another")
    assert other["captures"] == 1 and other["got"]["bad_signature"] == 1


def filled(folder: Path, server: Server, payload: bytes = b"payload") -> bytes:
    """The server's name of a record that one machine made."""
    store = store_in(folder)
    remote = joined(store, server)
    assert store.put(PARTS, payload) == "queued"
    assert remote.push() == 1
    remote.close()
    (name,) = server.names()
    return name


def test_found_once_and_kept(server: Server, tmp_path: Path) -> None:
    filled(tmp_path / "a", server)
    store = store_in(tmp_path / "b")
    assert store.get(PARTS)["outcome"] == "absent"
    remote = joined(store, server)
    found = store.get(PARTS)
    assert (found["outcome"], found["payload"], found["layer"]) == ("hit", b"payload", "remote")
    assert found["origin"] == "signed"
    assert store.flush()
    assert store.get(PARTS)["layer"] == "user" and remote.fetched == 1
    for _ in range(3):
        assert store.get({"code": "g"})["outcome"] == "absent"
    assert remote.absent == 1  # asked once
    remote.close()
    remote.close()
    assert remote.push() == 0  # it came from elsewhere


@pytest.mark.parametrize("size", [0, 1, 40, 5000])
def test_every_byte_counts(server: Server, tmp_path: Path, size: int) -> None:
    name = filled(tmp_path / "a", server, bytes(size))
    good = server.client.get(name)
    assert good is not None
    positions = range(len(good)) if size < 1000 else range(0, len(good), 97)
    store = store_in(tmp_path / "b")
    for at in positions:
        assert store.unpack(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :], KEY) != "queued", at
        assert store.unpack(good[:at], KEY) != "queued", at
    assert store.unpack(good + b"x", KEY) == "bad_signature"
    assert store.unpack(good, b"") == "bad_signature"
    assert store.unpack(good, KEY) == "queued"
    assert store.flush() and store.unpack(good, KEY) == "hit"


def test_a_server_that_lies(server: Server, tmp_path: Path) -> None:
    name = filled(tmp_path / "a", server)
    good = server.client.get(name)
    other = store_in(tmp_path / "c")
    other.put({"code": "other"}, b"another payload")
    remote = joined(other, server)
    remote.push()
    (second,) = [each for each in server.names() if each != name]
    for value, outcome in (
        (server.client.get(second), "other_key"),
        (b"", "bad_magic"),
        (b"fppack", "bad_size"),
        (good[:-1] + bytes([good[-1] ^ 128]), "bad_signature"),
    ):
        server.client.set(name, value)
        store = store_in(tmp_path / "b")
        tie = joined(store, server)
        assert store.get(PARTS)["outcome"] == outcome
        assert store.statistics()["get"] == {outcome: 1}
        tie.close()
    server.client.delete(name)
    server.client.lpush(name, b"not a string")
    store = store_in(tmp_path / "b")
    tie = joined(store, server)
    assert store.get(PARTS)["outcome"] == "unreachable" and tie.failures == 1
    tie.close()
    remote.close()


def test_a_server_that_goes(server: Server, tmp_path: Path) -> None:
    store = store_in(tmp_path / "b")
    remote = joined(store, server, timeout=0.2)
    server.stop()
    for number in range(5):
        outcome = store.get({"code": str(number)})["outcome"]
        assert outcome == "unreachable"
    assert remote.failures == 1  # not asked again for a while
    store.put(PARTS, b"x")
    with pytest.raises(ConnectionError, match="flashpoint.store.connect"):
        remote.push()
    remote.close()
    assert store.flush() and store.get(PARTS)["outcome"] == "hit"
    with pytest.raises(ConnectionError, match="flashpoint.store.connect"):
        tier.connect_store(store, server.url, KEY)


def test_a_server_that_hangs(server: Server, tmp_path: Path) -> None:
    store = store_in(tmp_path / "b")
    remote = joined(store, server, timeout=0.2)
    server.process.send_signal(signal.SIGSTOP)
    for number in range(20):
        assert store.get({"code": str(number)})["outcome"] == "unreachable"
    assert remote.failures == 1
    remote.close()


def test_a_fork_asks(server: Server, tmp_path: Path) -> None:
    filled(tmp_path / "a", server)
    store = store_in(tmp_path / "b")
    remote = joined(store, server)
    child = os.fork()
    if child == 0:
        good = store.get(PARTS)["outcome"] == "hit" and store.put({"code": "child"}, b"y") == "queued"
        remote.close()
        os._exit(0 if good and store.flush() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert remote.push() == 1  # what the child wrote
    remote.close()


def test_in_the_background(server: Server, tmp_path: Path) -> None:
    store = store_in(tmp_path / "b")
    remote = joined(store, server, interval=0.05, expire=1000)
    store.put(PARTS, b"x")
    for _ in range(200):
        if remote.pushed:
            break
        time.sleep(0.05)
    (name,) = server.names()
    assert remote.pushed == 1 and 0 < server.client.ttl(name) <= 1000
    remote.close()


def test_command(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key").write_bytes(KEY)
    ends = [server.url, "--key-file", str(tmp_path / "key")]
    with_store = store_in(tmp_path / "a")
    with_store.put(PARTS, b"x")
    assert with_store.flush()
    assert command.main(["--directory", str(tmp_path / "a"), "push", *ends]) == 0
    assert command.main(["--directory", str(tmp_path / "b"), "pull", *ends]) == 0
    assert capsys.readouterr().out == "1 records given\n1 records added\n"
    assert store_in(tmp_path / "b").get(PARTS)["origin"] == "signed"
    ends[0] = f"unix://{tmp_path}/nobody"
    assert command.main(["--directory", str(tmp_path / "b"), "pull", *ends]) == 1
    assert "flashpoint.store.connect" in capsys.readouterr().err


def test_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_in(tmp_path)
    for key, error in (("text", TypeError), (b"", ValueError), (None, TypeError)):
        with pytest.raises(error, match="flashpoint.store.connect"):
            tier.connect_store(store, "redis://localhost", key)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="flashpoint.store.connect"):
        tier.connect_store(store, "gopher://localhost", KEY)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ImportError, match=r"pip install flashpoint\[redis\]"):
        tier.connect_store(store, "redis://localhost", KEY)
