// The import statements. New references, or null / -1 with a Python error set. GIL held; dispatch loop only.
#pragma once

#include "py/internal.h"

namespace flashpoint {

PyObject* import_name(PyThreadState* tstate, _PyInterpreterFrame* frame, PyObject* name, PyObject* fromlist,
                      PyObject* level);
PyObject* import_from(PyObject* module, PyObject* name);
// from module import *, into the frame's namespace.
int import_star(_PyInterpreterFrame* frame, PyObject* module);

}  // namespace flashpoint
