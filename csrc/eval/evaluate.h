// The substitute evaluator: runs a real CPython frame, instruction by instruction, with CPython's own
// operations, and hands it to CPython where it must.
//
// Two builds of one dispatch loop (dispatch.inc): evaluate_observed sends events and moves tags,
// evaluate_plain does neither. Both may be entered for a frame at its start, at a generator's resume
// (throwflag as in PEP 523), or in general at any instruction boundary.
//
// Called by the hook; GIL held; the frame belongs to the calling thread.
#pragma once

#include "py/internal.h"

#include "eval/thread_context.h"

namespace flashpoint {

PyObject* evaluate_plain(ThreadContext& context, PyThreadState* tstate, _PyInterpreterFrame* frame,
                         int throwflag);
PyObject* evaluate_observed(ThreadContext& context, PyThreadState* tstate, _PyInterpreterFrame* frame,
                            int throwflag);

// Fills the jump tables; once per process, before the hook is first installed.
void prepare_evaluator();

// Tells the observer that a frame is about to run outside the evaluator.
void report_unsupported(ThreadContext& context, _PyInterpreterFrame* frame, int opcode);

// Moves the thread's instruction count into the process-wide counter.
void flush_instruction_count(ThreadContext& context);

}  // namespace flashpoint
