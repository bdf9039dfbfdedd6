// A number for what the arguments of a call look like: types, shapes, values of numbers and texts.
//
// Nothing is decided by it. Among many entries it says which one to try first, so calls that look alike may
// share a number, and calls that differ in what no entry looks at may have two.
// GIL: required.
#pragma once

#include <Python.h>

#include <cstddef>
#include <cstdint>

namespace flashpoint {

struct CallSignature {
  uint64_t exact = 0;
  uint64_t alike = 0;  // the same for other objects of the classes that they have
};
CallSignature call_signature(PyObject* const* args, size_t nargs, PyObject* kwnames);

}  // namespace flashpoint
