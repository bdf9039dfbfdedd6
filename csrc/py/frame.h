// Reads of a CPython frame under evaluation, for rooms that must not see CPython's internal headers.
// Results are borrowed from the frame. GIL: required.
#pragma once

#include <Python.h>

struct _PyInterpreterFrame;

namespace flashpoint::py {

PyObject* frame_globals(_PyInterpreterFrame* frame);
PyObject* frame_locals(_PyInterpreterFrame* frame);  // the namespace of a class or module body, or null
PyObject* frame_builtins(_PyInterpreterFrame* frame);
PyObject* frame_function(_PyInterpreterFrame* frame);
PyCodeObject* frame_code(_PyInterpreterFrame* frame);
// Line of the instruction being executed; 0 when there is none.
int frame_line(_PyInterpreterFrame* frame);
// Byte offset of the instruction being executed.
int frame_instruction(_PyInterpreterFrame* frame);
// Makes it the one that was executed last. For a frame that is about to start.
void set_frame_instruction(_PyInterpreterFrame* frame, int offset);
// The i-th fast local, or null when unset.
PyObject* frame_local(_PyInterpreterFrame* frame, int i);
// The first of its slots: locals, cells, then the value stack.
PyObject** frame_slots(_PyInterpreterFrame* frame);

}  // namespace flashpoint::py
