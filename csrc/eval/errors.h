// Raising, unwinding and tracebacks: what the evaluator needs when an instruction fails.
//
// All of these follow CPython's rule: on failure a Python error is set. Messages are those of the default
// evaluator, since programs (and CPython's tests) compare them.
// GIL held; called by the dispatch loop only.
#pragma once

#include "py/internal.h"

#include "py/exception_table.h"

namespace flashpoint {

// Adds this frame to the traceback of the current error.
void add_traceback(_PyInterpreterFrame* frame);
// Moves the current error out, normalized, traceback attached: a new reference to the exception.
PyObject* take_exception();
// Makes `exception` (borrowed) the current error again, with its own traceback.
void restore_exception(PyObject* exception);
// The raise statement; consumes both references. True: the active exception was raised again, and its
// traceback must not get this frame a second time.
bool raise_statement(PyThreadState* tstate, PyObject* exception, PyObject* cause);
// Whether `type` may stand in an except clause; -1 with an error set if not.
int check_except_type(PyObject* type);

void raise_unbound_local(PyCodeObject* code, int slot);
void raise_unbound_cell(PyCodeObject* code, int slot);
void raise_name_error(PyObject* name);

// sys.settrace events of a frame in which tracing was switched on by the instruction that failed.
void trace_exception(PyThreadState* tstate, _PyInterpreterFrame* frame);
void trace_unwind(PyThreadState* tstate, _PyInterpreterFrame* frame);

}  // namespace flashpoint
