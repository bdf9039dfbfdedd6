// Hashes and dict lookups that run no Python code, for the keys whose class computes its hash in Python.
// GIL: required.
#pragma once

#include <Python.h>

namespace flashpoint::py {

// A tuple, or one of a class that hashes and compares as tuples do (named tuples).
bool is_plain_tuple(PyObject* object);

// Whether `key` can be looked up without Python code: by its address, or by a value that C code hashes and
// compares; members of enumerations too, which hash by their name.
bool is_plain_key(PyObject* key);

// The value under a key, borrowed; null where there is none. No error is set.
PyObject* dict_get(PyObject* dict, PyObject* key);

}  // namespace flashpoint::py
