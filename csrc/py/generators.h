// What becomes of a generator that is let go of.
//
// GIL: required. Runs no Python code.
#pragma once

#include <Python.h>

namespace flashpoint::py {

// It is suspended where closing it runs something: inside a try or with block.
bool closes_noticeably(PyObject* generator);
// It may yet be: it has not ended, and its code has such blocks.
bool may_close_noticeably(PyObject* generator);
bool is_generator_running(PyObject* generator);

}  // namespace flashpoint::py
