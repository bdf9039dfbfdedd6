// Calls with unpacked arguments, with statements, functions, displayhook.
//
// GIL held; called by the dispatch loop only. Errors as in CPython.
#pragma once

#include <vector>

#include "py/internal.h"

namespace flashpoint {

// The tuple of positional arguments for f(*arguments): a new reference, null with an error set.
PyObject* positional_tuple(PyObject* callable, PyObject* arguments);
// The dict of keyword arguments for f(**mapping): a new reference.
PyObject* keyword_dict(PyObject* callable, PyObject* mapping);

// Arguments of CALL_FUNCTION_EX in vectorcall form, for the observer. Borrows from tuple and dict, which
// must outlive it; owns only `kwnames`.
struct FlatArguments {
  FlatArguments(PyObject* tuple, PyObject* dict);
  ~FlatArguments() { Py_XDECREF(kwnames); }
  FlatArguments(const FlatArguments&) = delete;
  FlatArguments& operator=(const FlatArguments&) = delete;

  std::vector<PyObject*> values;
  PyObject* kwnames = nullptr;
};

// __enter__ or __exit__ of a context manager, bound; raises CPython's message if there is none.
PyObject* context_manager_method(PyObject* manager, const char* name, bool exit_of_pair, bool async);
// The names "__enter__" and "__exit__": borrowed, kept for the life of the process (interned constants).
PyObject* special_enter();
PyObject* special_exit();
PyObject* make_function(PyObject* code, PyObject* globals, PyObject** top, int flags);
PyObject* display_hook();

}  // namespace flashpoint
