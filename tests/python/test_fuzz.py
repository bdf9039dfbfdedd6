"""Random programs do the same compiled as eagerly; and the fuzzer would notice if they did not."""

from __future__ import annotations

import ast
import os
import signal
from typing import Any

import pytest

from tests import fake
from tests.fuzz.generator import generate
from tests.fuzz.runner import fuzz, judge, shrink
from tests.support import FAKE, flashpoint

PROGRAMS = 2000
HIT_FLOOR = 0.4  # the share of programs of which at least one call must be answered by an entry

# Kinds of syntax that the programs must hold between them.
SYNTAX = {
    ast.AugAssign, ast.Break, ast.ClassDef, ast.Compare, ast.Continue, ast.Delete, ast.DictComp,
    ast.For, ast.FunctionDef, ast.GeneratorExp, ast.Global, ast.IfExp, ast.JoinedStr, ast.Lambda,
    ast.ListComp, ast.Match, ast.Nonlocal, ast.Raise, ast.SetComp, ast.Starred, ast.Subscript, ast.Try,
    ast.While, ast.With,
}  # fmt: skip


@pytest.mark.slow
def test_programs_do_as_eager_does(record_property: Any) -> None:
    verdicts = fuzz(range(PROGRAMS), flashpoint)
    failed = [verdict for verdict in verdicts if verdict.failed]
    hit = sum(verdict.counters.get("hits", 0) > 0 for verdict in verdicts) / PROGRAMS
    record_property("share of programs hit", hit)
    print(f"{hit:.1%} of {PROGRAMS} programs hit an entry")
    assert not failed, (
        f"{len(failed)} differ; for the first: python -m tests.fuzz --seed {failed[0].seed} --count 1\n"
        + "\n".join(f"{v.seed}: {v.kind}\n{v.message}" for v in failed[:3])
    )
    assert len(verdicts) == PROGRAMS
    if not FAKE:
        assert hit >= HIT_FLOOR


@pytest.mark.slow
def test_programs_are_diverse() -> None:
    programs = [generate(seed) for seed in range(200)]
    sources = {program.source() for program in programs}
    assert len(sources) == len(programs)
    found = {type(node) for source in sources for node in ast.walk(ast.parse(source))}
    assert SYNTAX <= found
    verdicts = [judge(program, fake.Identity()) for program in programs[:60]]
    raised, calls = sum(v.raised for v in verdicts), sum(v.calls for v in verdicts)
    assert 0 < raised < calls * 0.3, "most calls should get through, some should raise"


def test_generation_is_reproducible() -> None:
    assert generate(5).source() == generate(5).source()
    assert generate(5).calls == generate(5).calls


@pytest.mark.slow
@pytest.mark.parametrize("package", fake.WRONG, ids=lambda package: package.name)
def test_a_wrong_package_is_caught(package: fake.Identity) -> None:
    verdicts = fuzz(range(120), package)
    assert any(verdict.kind == "differs" for verdict in verdicts)


@pytest.mark.slow
def test_a_failing_program_is_made_smaller() -> None:
    package = fake.DropsMutations()
    seed = next(v.seed for v in fuzz(range(120), package) if v.kind == "differs")
    program = generate(seed)
    smallest, verdict = shrink(program, package)
    assert verdict.kind == "differs"
    assert len(smallest.source()) < len(program.source()) / 2
    assert len(smallest.calls) <= len(program.calls)


class _Dies(fake.Identity):
    def __init__(self, death: int) -> None:
        self.death = death

    def compile(self, fn: Any, **options: Any) -> Any:
        if "GL" in fn.__code__.co_names:
            os.kill(os.getpid(), self.death)
        return super().compile(fn)


@pytest.mark.slow
def test_a_dying_worker_costs_one_program() -> None:
    verdicts = fuzz(range(60), _Dies(signal.SIGABRT))
    kinds = [verdict.kind for verdict in verdicts]
    assert len(verdicts) == 60
    assert set(kinds) == {"same", "died"}
    assert "signal 6" in next(v.message for v in verdicts if v.kind == "died")
