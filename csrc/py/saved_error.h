// Python errors that are put aside: for a while (SavedError), or until they can be raised (KeptError).
//
// GIL: required.
#pragma once

#include <Python.h>

#include "py/ref.h"

namespace flashpoint {

// A pending Python error, put aside while our own code runs.
class SavedError {
 public:
  SavedError() { PyErr_Fetch(&type_, &value_, &traceback_); }
  ~SavedError() { PyErr_Restore(type_, value_, traceback_); }
  // Instead of it, the error that `raise` sets.
  template <typename Raise>
  void replace(Raise&& raise) {
    Py_XDECREF(type_);
    Py_XDECREF(value_);
    Py_XDECREF(traceback_);
    raise();
    PyErr_Fetch(&type_, &value_, &traceback_);
  }
  SavedError(const SavedError&) = delete;
  SavedError& operator=(const SavedError&) = delete;

 private:
  PyObject *type_, *value_, *traceback_;
};

// The Python error of a backend, kept until the program is at a point where it can be raised.
class KeptError {
 public:
  void take() {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    type_ = Ref::steal(type);
    value_ = Ref::steal(value);
    traceback_ = Ref::steal(traceback);
  }
  bool held() const { return static_cast<bool>(type_); }
  void raise() { PyErr_Restore(type_.release(), value_.release(), traceback_.release()); }

 private:
  Ref type_, value_, traceback_;
};

}  // namespace flashpoint
