// Functions in whose place another one is recorded (flashpoint.substitute_in_graph). GIL: required.
#pragma once

#include <Python.h>

namespace flashpoint {

// From now on, for the life of the process; both are kept alive.
void substitute(PyObject* original, PyObject* replacement);
// What is recorded instead of the callable, borrowed; null for most.
PyObject* substitute_of(PyObject* callable);

}  // namespace flashpoint
