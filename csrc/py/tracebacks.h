// Tracebacks as replay makes them: of frames that run, and of frames that have ended.
//
// A frame that has ended is stood for by a new frame object of its code and globals, at its last instruction,
// without local variables.
//
// GIL: required.
#pragma once

#include <Python.h>

#include <vector>

#include "py/ref.h"

namespace flashpoint {

struct TracebackEntry {
  PyCodeObject* code;
  PyObject* globals;
  PyObject* frame;  // the frame object
  int lasti;
  int line;
  int stands_at;  // the instruction that the frame got to, in bytes
};

// From the outermost frame inwards; borrowed from the traceback.
std::vector<TracebackEntry> traceback_entries(PyObject* traceback);

// A new reference, or null with an error set. next: a traceback or null.
PyObject* make_traceback(PyObject* next, PyObject* code, PyObject* globals, int lasti, int line,
                         int stands_at);
// The frame that the entry stands for has been restored.
void set_traceback_frame(PyObject* traceback, PyObject* frame);

// The frame object of a frame of this thread, made on first use; null with an error set.
Ref frame_object(struct _PyInterpreterFrame* frame);
// The same where there is one already: borrowed, else null.
PyObject* known_frame_object(struct _PyInterpreterFrame* frame);

}  // namespace flashpoint
