"""Programs as trees of statements, so that a failing one can be made smaller by deletion."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.support import Call


@dataclass
class Stmt:
    """One statement. A compound one has clauses: a header ("if c:", "else:") and its statements."""

    text: str = ""
    clauses: list[tuple[str, list[Stmt]]] = field(default_factory=list)
    fixed: bool = False  # never deleted

    def render(self, indent: str, out: list[str]) -> None:
        if self.text:
            out += [indent + line for line in self.text.split("\n")]
        for header, body in self.clauses:
            out.append(indent + header)
            for stmt in body:
                stmt.render(indent + "  ", out)
            if not body:
                out.append(indent + "  pass")


@dataclass
class Program:
    """A module of statements that defines `fn`, and the calls made to it."""

    seed: int
    body: list[Stmt]
    calls: list[Call]
    watch: str = "each"

    def source(self) -> str:
        out: list[str] = []
        for stmt in self.body:
            stmt.render("", out)
        return "\n".join(out) + "\n"


def _lists(body: list[Stmt]) -> Iterator[list[Stmt]]:
    yield body
    for stmt in body:
        for _, inner in stmt.clauses:
            yield from _lists(inner)


def smaller(program: Program) -> Iterator[Program]:
    """Copies of a program with one statement, one clause's nesting, or one call less."""
    for index in range(len(program.calls) - 1, -1, -1):
        if len(program.calls) > 1:
            smaller_calls = program.calls[:index] + program.calls[index + 1 :]
            yield Program(program.seed, program.body, smaller_calls, program.watch)
    for index, call in enumerate(program.calls):
        if call.pre:
            bare = Call(call.args, post=call.post)
            calls = program.calls[:index] + [bare] + program.calls[index + 1 :]
            yield Program(program.seed, program.body, calls, program.watch)
    count = sum(len(statements) for statements in _lists(program.body))
    for position in range(count - 1, -1, -1):
        for hoist in (False, True):
            body = copy.deepcopy(program.body)
            if _edit(body, position, hoist):
                yield Program(program.seed, body, program.calls, program.watch)


def _edit(body: list[Stmt], position: int, hoist: bool) -> bool:
    """Deletes the statement at a position, or puts the bodies of its clauses in its place."""
    for statements in _lists(body):
        if position >= len(statements):
            position -= len(statements)
            continue
        stmt = statements[position]
        if stmt.fixed or (hoist and (not stmt.clauses or stmt.clauses[0][0].startswith(("def ", "class ")))):
            return False
        statements[position : position + 1] = [s for _, b in stmt.clauses for s in b] if hoist else []
        return True
    return False
