// The builtin iterators whose state is a position and what they take from. Their structs are private to
// CPython; the layouts are those of 3.11. GIL: required.
#pragma once

#include <Python.h>

namespace flashpoint::py {

// Over lists, tuples, ranges and dicts; enumerate, zip and reversed.
bool is_known_iterator(PyTypeObject* type);
// What it takes from, the i-th of zip; borrowed, null at the end or when there is no more.
PyObject* iterator_source(PyObject* iterator, int i);
// How far it has come: a new tuple of numbers, or null.
PyObject* iterator_state(PyObject* iterator);
bool iterator_state_is(PyObject* iterator, PyObject* state);
// Where the next element is: an index of the list or tuple, what PyDict_Next takes for a dict; -1 for others.
Py_ssize_t next_index(PyObject* iterator);
// Elements taken from the dict; the iterator is not at its end.
Py_ssize_t dict_iterator_taken(PyObject* iterator);

}  // namespace flashpoint::py
