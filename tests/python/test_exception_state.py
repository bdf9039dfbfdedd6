"""Exceptions with state that only C code sees: rebuilt field by field behind a break, or not recorded past it."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
import torch

import flashpoint
from tests.support import Call, check_calls

PRELUDE = """
import errno, shutil, traceback
class Own(OSError):
    def __init__(self, number, text, extra):
        super().__init__(number, text)
        self.extra = extra
class Renewed(OSError):
    def __new__(cls, *args): return super().__new__(cls, *args)
class Wide(UnicodeDecodeError):
    __slots__ = ("more",)
class Group(ExceptionGroup):
    def derive(self, excs): return Group(self.message, excs)
class NamedKey(KeyError):
    def __str__(self): return "named " + super().__str__()
FIELDS = ("args errno strerror filename filename2 characters_written msg name path code value obj lineno offset "
          "end_lineno end_offset text print_file_and_line encoding object start end reason message exceptions extra more "
          "__notes__ __cause__ __suppress_context__").split()
SEEN = []
@torch.compiler.disable
def state(e):
    fields = [(f, repr(getattr(e, f, "-"))) for f in FIELDS]
    return type(e).__name__, str(e), repr(e), fields, traceback.format_exception(e)
@torch.compiler.disable
def note(e):
    print(end="")
    SEEN.append(state(e))
"""

# What is raised, as an expression of k (a number) and x (a tensor).
RAISED = {
    "OSError": "OSError(2, 'no', 'file', None, 'other')",
    "OSError of one": "OSError('text')",
    "OSError of none": "OSError()",
    "OSError of four": "OSError(1, 'a', 'b', 'c')",
    "OSError of bytes": "OSError(13, 'no', b'file')",
    "by number": "OSError(errno.EEXIST, 'is', 'f')",
    "FileNotFoundError": "FileNotFoundError(2, 'no', 'file')",
    "BlockingIOError": "BlockingIOError(11, 'later', 7)",
    "ConnectionResetError": "ConnectionResetError(104, 'gone')",
    "a subclass": "Own(5, 'io', extra=k)",
    "with __new__": "Renewed(5, 'io', 'f')",
    "shutil": "shutil.SameFileError('same')",
    "ExceptionGroup": "ExceptionGroup('many', [ValueError(k), OSError(2, 'no')])",
    "nested group": "ExceptionGroup('many', [ExceptionGroup('few', [KeyError('a')]), TypeError(1)])",
    "BaseExceptionGroup": "BaseExceptionGroup('many', [KeyboardInterrupt()])",
    "a group of a class": "Group('many', [ValueError(k)])",
    "SyntaxError": "SyntaxError('bad', ('f.py', 3, 4, 'x = (', 3, 6))",
    "IndentationError": "IndentationError('bad')",
    "UnicodeEncodeError": "UnicodeEncodeError('ascii', 'a\\u00e9', 1, 2, 'no')",
    "UnicodeDecodeError": "UnicodeDecodeError('ascii', b'a\\xff', 1, 2, 'no')",
    "UnicodeTranslateError": "UnicodeTranslateError('a\\u00e9', 1, 2, 'no')",
    "slots beside C fields": "Wide('ascii', b'a\\xff', 1, 2, 'no')",
    "UnicodeError": "UnicodeError('plain')",
    "ImportError": "ImportError('no', name='mod', path='/p')",
    "ModuleNotFoundError": "ModuleNotFoundError('no', name='mod')",
    "StopIteration": "StopIteration(k)",
    "StopIteration of a tensor": "StopIteration(x * 3)",
    "SystemExit": "SystemExit(3)",
    "KeyError": "KeyError('key')",
    "a KeyError's text": "NamedKey('key')",
    "AttributeError": "AttributeError('no', name='attr', obj=[1, 2])",
    "NameError": "NameError('no', name='what')",
    "MemoryError": "MemoryError('no')",
    "notes": "(lambda e: (e.add_note('a note'), e)[1])(ValueError(k))",
}
# What C code raises.
DONE = {
    "open": "open('/does/not/exist')",
    "encode": "'a\u00e9'.encode('ascii')",
    "decode": "b'a\\xff'.decode('utf8')",
    "import": "import no_such_module_here",
    "import from": "from os import no_such_name",
    "attribute": "[].nothing",
    "name": "undefined_name",
    "next": "next(iter([]))",
    "int": "int('x')",
    "compile": "compile('x = (', 'f', 'exec')",
}


def source(statement: str) -> str:
    return f"""{PRELUDE}
def fn(x, k):
    SEEN.clear()
    y = x + 1
    try:
        y = y * 2
        {statement}
    except BaseException as e:
        y = y + 3
        note(e)
        y = y * 2
        note(e)
        held = e
    note(held)
    return y + 1, state(held), SEEN
"""


CALLS = [Call("x + 1, 2"), Call("x + 2, 2"), Call("x + 3, 2"), Call("x + 4, 2")]


@pytest.mark.parametrize("name", RAISED)
def test_raised(name: str) -> None:
    last = check_calls(source(f"raise {RAISED[name]}"), CALLS)[-1].counters
    if name == "MemoryError":  # they come from a list of free ones
        assert last["resume_hits"] == 0
    else:
        assert last["hits"] == 1 and last["captures_started"] == 0 and last["frames_handed_over"] == 0, last


@pytest.mark.parametrize("name", DONE)
def test_raised_by_c_code(name: str) -> None:
    check_calls(source(DONE[name]), CALLS)


def test_a_group_of_a_list_that_changes() -> None:
    program = f"{PRELUDE}\ndef fn(x, errors):\n  e = ExceptionGroup('many', errors)\n  return x + 1, len(e.exceptions), str(e)"
    calls = [Call("x, [ValueError(1)]"), Call("x, [ValueError(1)]"), Call("x, [ValueError(1), KeyError(2)]")]
    check_calls(program, calls)


def test_except_star() -> None:
    program = f"""{PRELUDE}
def fn(x, k):
    y = x + 1
    try:
        raise ExceptionGroup('many', [ValueError(k), OSError(2, 'no')])
    except* OSError as e:
        print(end='')
        y = y * 2 + len(e.exceptions)
    except* ValueError as e:
        y = y * 3
    return y
"""
    check_calls(program, CALLS)


def test_it_leaves_the_call_rebuilt() -> None:
    def fn(x: torch.Tensor) -> tuple[torch.Tensor, Any, Any]:
        error = FileNotFoundError(2, "no", "file")
        group = ExceptionGroup("many", [error, ValueError("a")])
        return x * 2, error, group

    compiled = flashpoint.compile(fn)
    results = [compiled(torch.ones(2)) for _ in range(3)]
    assert flashpoint.counters()["hits"] >= 2
    for _, error, group in results:
        assert type(error) is FileNotFoundError and (error.errno, error.filename) == (2, "file")
        assert group.exceptions[0] is error
        assert "[Errno 2] no: 'file'" in "".join(traceback.format_exception(group))
    assert results[1][1] is not results[2][1]


# Whole programs: what is raised travels, is looked at, changed, chained and raised again around breaks.
PROGRAMS = {
    "changed behind the break": """
def fn(x, k):
    try:
        raise FileNotFoundError(2, 'no', 'first')
    except OSError as e:
        note(e)
        e.filename, e.errno = 'second', k
        y = x + e.errno
        note(e)
        e.extra = y
        note(e)
        return y, str(e), e.extra
""",
    "held in a list over two breaks": """
def fn(x, k):
    held = []
    for n in range(3):
        try:
            if n == 1: raise BlockingIOError(11, 'later', n + k)
            raise OSError(n, 'text', f'file{n}')
        except OSError as e:
            held.append(e)
        x = x * 2
        print(end='')
    return x, [state(e) for e in held], [e.characters_written for e in held if isinstance(e, BlockingIOError)]
""",
    "cause and context": """
def fn(x, k):
    try:
        try:
            try:
                raise PermissionError(13, 'no', 'a', None, 'b')
            except OSError as first:
                y = x + 1
                note(first)
                raise UnicodeDecodeError('ascii', b'a\\xff', 1, 2, 'no') from first
        except ValueError as second:
            y = y * 2
            note(second)
            raise KeyError(k)
    except KeyError as third:
        note(third)
        y = y - 3
        chain = third
        names = []
        while chain is not None:
            names.append((type(chain).__name__, chain.__suppress_context__))
            chain = chain.__cause__ or chain.__context__
        return y, names
""",
    "raised in a helper, seen by its caller": """
def helper(x, k):
    y = x * k
    print(end='')
    raise TimeoutError(110, 'slow', 'peer')
def fn(x, k):
    try:
        helper(x + 1, k)
    except OSError as e:
        y = x * 3
        print(end='')
        return y, e.errno, e.strerror, e.filename, len(traceback.extract_tb(e.__traceback__))
""",
    "a group is split by hand": """
def fn(x, k):
    group = ExceptionGroup('g', [ValueError(k), ExceptionGroup('h', [OSError(5, 'io'), KeyError('q')])])
    y = x + len(group.exceptions)
    print(end='')
    found = []
    todo = [group]
    while todo:
        e = todo.pop()
        if isinstance(e, BaseExceptionGroup): todo.extend(e.exceptions)
        else: found.append(type(e).__name__)
    y = y * len(found)
    note(group)
    return y, found, group.message
""",
    "an OSError as an attribute of an object": """
class Job:
    def __init__(self, x): self.x, self.error = x, None
    def run(self, k):
        try:
            if k > 1: raise InterruptedError(4, 'stop')
        except OSError as e:
            self.error = e
        self.x = self.x * 2
        print(end='')
def fn(x, k):
    job = Job(x)
    job.run(k)
    job.x = job.x + 1
    print(end='')
    job.run(1)
    return job.x, state(job.error)
""",
    "raised again behind the break": """
def fn(x, k):
    y = x
    try:
        try:
            raise ConnectionAbortedError(103, 'gone')
        except ConnectionError:
            y = y + 1
            print(end='')
            y = y * 2
            raise
    except OSError as e:
        y = y + e.errno
        note(e)
    return y, SEEN[-1][0]
""",
    "handled inside a handler": """
def fn(x, k):
    try:
        raise UnicodeEncodeError('ascii', 'a\\u00e9', 1, 2, 'no')
    except UnicodeError as outer:
        y = x + outer.start
        try:
            raise OSError(k, 'inner')
        except OSError as inner:
            note(inner)
            y = y * inner.errno
        note(outer)
        y = y + outer.end
        return y, outer.object, outer.reason, outer.encoding
""",
    "notes and a class of one's own": """
class Lost(FileNotFoundError):
    def __init__(self, name, x):
        super().__init__(2, 'lost', name)
        self.shape = tuple(x.shape)
def fn(x, k):
    e = Lost('n', x)
    e.add_note(f'note {k}')
    y = x * 2
    print(end='')
    e.add_note('another')
    y = y + 1
    note(e)
    return y, e.__notes__, e.shape, e.filename
""",
    "returned and raised by the caller's turn": """
def make(k):
    try:
        raise IsADirectoryError(21, 'dir', f'd{k}')
    except OSError as e:
        print(end='')
        return e
def fn(x, k):
    e = make(k)
    y = x + 1
    print(end='')
    try:
        raise e
    except IsADirectoryError as again:
        y = y * 2
        note(again)
        return y, again is e, again.filename
""",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name: str) -> None:
    program = PRELUDE + PROGRAMS[name]
    outcomes = check_calls(program, CALLS)
    assert any(o.counters["captures_kept"] > 0 for o in outcomes)
