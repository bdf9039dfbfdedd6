"""pytest -p tests.isolate: each test in a forked child, so that a crash is one failed test and not the end of
the run. To be used with `python -m pytest`, which puts the tree on the path.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import time

import pytest
from _pytest.reports import TestReport
from _pytest.runner import runtestprotocol

from tests.world import Call, run


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--isolate-limit", type=float, default=120.0, help="seconds a child may take")


def _in_child(item: pytest.Item, write: int) -> None:
    code = 1
    try:
        reports = runtestprotocol(item, log=False)
        data = pickle.dumps(
            [item.config.hook.pytest_report_to_serializable(config=item.config, report=r) for r in reports]
        )
        with os.fdopen(write, "wb") as stream:
            stream.write(data)
        code = 0
    finally:
        os._exit(code)


def _collect(pid: int, read: int, limit: float) -> tuple[bytes, str | None]:
    chunks, end = [], time.monotonic() + limit
    while True:
        ready, _, _ = select.select([read], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return b"", f"took more than {limit:g} s"
        chunk = os.read(read, 1 << 16)
        if not chunk:
            break
        chunks.append(chunk)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return b"", f"died of {signal.Signals(os.WTERMSIG(status)).name}"
    if status != 0:
        return b"", f"ended with status {os.waitstatus_to_exitcode(status)}"
    return b"".join(chunks), None


def pytest_collection_finish(session: pytest.Session) -> None:
    """What every child would import and initialize is done once, before the first fork."""
    run("def fn(x):\n  with torch.no_grad(): return torch.rand(2) + x[0, :2]", [Call("x")])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _in_child(item, write)
    os.close(write)
    data, problem = _collect(pid, read, item.config.getoption("--isolate-limit"))
    os.close(read)
    if problem is None:
        for raw in pickle.loads(data):
            report = item.config.hook.pytest_report_from_serializable(config=item.config, data=raw)
            item.ihook.pytest_runtest_logreport(report=report)
    else:
        item.ihook.pytest_runtest_logreport(
            report=TestReport(
                nodeid=item.nodeid,
                location=item.location,
                keywords={item.name: 1},
                outcome="failed",
                longrepr=f"the test process {problem}",
                when="call",
                sections=[],
                duration=0,
                start=0,
                stop=0,
            )
        )
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
