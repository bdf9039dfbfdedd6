// Dicts as they are iterated, and sizes of containers. No Python code runs.
//
// GIL: required.
#pragma once

#include <Python.h>

#include "py/ref.h"

namespace flashpoint::py {

// A list of a dict's keys in the order of iteration; null, without an error, for an ordered dict whose order
// does not fit its items (dict's own methods were called on it).
Ref keys_in_order(PyObject* dict);

// How many elements a builtin container or an object of a subclass holds, whatever its own methods say.
Py_ssize_t stored_size(PyObject* container);

}  // namespace flashpoint::py
