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
