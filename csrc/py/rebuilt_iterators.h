// Iterators that can be made again where another one stands: what their own __reduce__ names, and where that
// is exact. Those over dicts are not among them (theirs copies the elements). GIL: required.
#pragma once

#include <Python.h>

#include "py/ref.h"

namespace flashpoint::py {

// Of builtins, itertools and deques. Whether one of them can be rebuilt says reduce_iterator.
bool is_rebuilt_iterator(PyTypeObject* type);
// (callable, arguments) or (callable, arguments, state); null, without an exception, where the result would
// be another one than `iterator`.
Ref reduce_iterator(PyObject* iterator);
// Whether a set made of the elements in this one's order is iterated in the same order, at any call: they are
// text or numbers, whose hashes are no addresses, and none takes another's place.
bool is_rebuilt_in_order(PyObject* set);
// What a set stores, as a list in its order, whatever methods its class has; null with a Python error set.
Ref set_items(PyObject* set);
// A callable that iterators of builtins name: one that means the same in every process.
bool makes_iterators(PyObject* callable);

}  // namespace flashpoint::py
