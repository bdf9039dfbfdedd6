// Structural pattern matching. New references; null with or without a Python error as stated. GIL held;
// called by the dispatch loop only.
#pragma once

#include "py/internal.h"

namespace flashpoint {

// Values of `keys` in `subject` as a tuple, or None if one is missing; null with an error set.
PyObject* match_keys(PyObject* subject, PyObject* keys);
// Attributes of a class pattern as a tuple; null without an error: no match.
PyObject* match_class(PyObject* subject, PyObject* type, Py_ssize_t positional, PyObject* keyword_names);

}  // namespace flashpoint
