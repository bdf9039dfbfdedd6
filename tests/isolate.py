"""pytest -p tests.isolate: each test in a forked child, so that a crash is one failed test and not the end of
the run. To be used with `python -m pytest`, which puts the tree on the path.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import tempfile
from typing import BinaryIO

import pytest
from _pytest.reports import TestReport
from _pytest.runner import runtestprotocol

from tests.world import Call, run


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--isolate-limit", type=float, default=120.0, help="seconds a child may take")


def _in_child(item: pytest.Item, results: BinaryIO) -> None:
    code = 1
    try:
        os.setpgid(0, 0)  # what the test starts ends with it
        reports = runtestprotocol(item, log=False)
        pickle.dump(
            [item.config.hook.pytest_report_to_serializable(config=item.config, report=r) for r in reports],
            results,
        )
        results.flush()
        code = 0
    finally:
        os._exit(code)


def _wait(pid: int, limit: float) -> str | None:
    """Waits for the child itself, whatever it left running; what went wrong, if something did."""
    with contextlib.suppress(ProcessLookupError):
        os.setpgid(pid, pid)  # in both, so that it is done whoever comes first
    process, ready = os.pidfd_open(pid), []
    try:
        ready, _, _ = select.select([process], [], [], limit)
    finally:
        os.close(process)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    if not ready:
        return f"took more than {limit:g} s"
    if os.WIFSIGNALED(status):
        return f"died of {signal.Signals(os.WTERMSIG(status)).name}"
    if status != 0:
        return f"ended with status {os.waitstatus_to_exitcode(status)}"
    return None


def pytest_collection_finish(session: pytest.Session) -> None:
    """What every child would import and initialize is done once, before the first fork."""
    run("def fn(x):\n  with torch.no_grad(): return torch.rand(2) + x[0, :2]", [Call("x")])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    with tempfile.TemporaryFile() as results:
        pid = os.fork()
        if pid == 0:
            _in_child(item, results)
        problem = _wait(pid, item.config.getoption("--isolate-limit"))
        results.seek(0)
        reports = pickle.load(results) if problem is None else []
    for raw in reports:
        report = item.config.hook.pytest_report_from_serializable(config=item.config, data=raw)
        item.ihook.pytest_runtest_logreport(report=report)
    if problem is not None:
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
