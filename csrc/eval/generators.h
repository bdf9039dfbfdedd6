// yield from, await and async iteration. New references, or null with a Python error set. GIL held; called
// by the dispatch loop only.
#pragma once

#include "py/internal.h"

namespace flashpoint {

// The iterator `yield from object` runs; `flags` are those of the code that runs it.
PyObject* yield_from_iterator(PyObject* object, int flags);
// The iterator `await object` runs; `where` is GET_AWAITABLE's argument.
PyObject* awaitable_iterator(PyObject* object, int where);
PyObject* async_iterator(PyObject* object);
// The awaitable of the next element of an asynchronous iterator.
PyObject* async_next(PyObject* iterator);

}  // namespace flashpoint
