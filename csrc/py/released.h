// Runs something without the GIL: what waits for a disk or another thread.
//
// GIL: required at the call, and held again after it, also when the body throws.
#pragma once

#include <Python.h>

#include <utility>

namespace flashpoint {

template <typename Body>
auto released(Body&& body) {
  struct Release {
    PyThreadState* state = PyEval_SaveThread();
    ~Release() { PyEval_RestoreThread(state); }
  } release;
  return std::forward<Body>(body)();
}

}  // namespace flashpoint
