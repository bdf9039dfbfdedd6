// Which handler of a code object covers an instruction. GIL: required. Runs no Python code.
#pragma once

#include <Python.h>

namespace flashpoint {

struct Handler {
  int target;  // in code units
  int stack_level;
  bool push_lasti;
};

// The handler that covers the code unit at `offset`, if any.
bool find_handler(PyCodeObject* code, int offset, Handler* handler);

}  // namespace flashpoint
