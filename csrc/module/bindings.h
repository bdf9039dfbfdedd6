// The extension module flashpoint._C is put together here: each room that has Python bindings offers one
// `int bind_<room>(PyObject* module)` (0, or -1 with a Python error set), defined in csrc/module/<room>.cpp.
//
// To add one: declare it below, define it in its own file, and list it in module.cpp.
#pragma once

#include <Python.h>

namespace flashpoint {

int bind_eval(PyObject* module);
int bind_code_state(PyObject* module);
int bind_graph(PyObject* module);
int bind_driver(PyObject* module);
int bind_fx(PyObject* module);
int bind_recordings(PyObject* module);
int bind_scope(PyObject* module);
int bind_store_keys(PyObject* module);
int bind_store(PyObject* module);

}  // namespace flashpoint
