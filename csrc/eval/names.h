// Names: globals, builtins, class and module namespaces.
//
// Functions return new references or null / -1 with a Python error set, as CPython's do. GIL held; called
// by the dispatch loop only.
#pragma once

#include "py/internal.h"

namespace flashpoint {

// Finds a global; *owner is the dict it was found in, null where globals or builtins is no exact dict
// (or nothing was found). Null without an error: not defined.
PyObject* find_global(_PyInterpreterFrame* frame, PyObject* name, PyObject** owner);
PyObject* load_name(_PyInterpreterFrame* frame, PyObject* name);
PyObject* load_class_cell(_PyInterpreterFrame* frame, int slot);
PyObject* load_build_class(_PyInterpreterFrame* frame);
int store_name(_PyInterpreterFrame* frame, PyObject* name, PyObject* value);
int delete_name(_PyInterpreterFrame* frame, PyObject* name);
int delete_global(_PyInterpreterFrame* frame, PyObject* name);
int setup_annotations(_PyInterpreterFrame* frame);

}  // namespace flashpoint
