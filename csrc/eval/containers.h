// Containers: building, unpacking, merging; f-string values.
//
// Functions return new references or null / -1 with a Python error set; operands stay the caller's. GIL
// held; called by the dispatch loop only.
#pragma once

#include "py/internal.h"

namespace flashpoint {

PyObject* build_set(PyObject* const* items, int count);
// keys and values are read every `stride` items.
PyObject* build_map(PyObject* const* keys, int key_stride, PyObject* const* values, int value_stride,
                    int count);
// Reads `iterable` to its end onto a stack that ends below `top`, the first element topmost; after >= 0: the
// `count` first elements, one list of what lies between, the `after` last ones.
int unpack_iterable(PyObject* iterable, int count, int after, PyObject** top);
int extend_list(PyObject* list, PyObject* iterable);
int update_dict(PyObject* dict, PyObject* mapping);
// Merges keyword arguments for a call of `callable`; duplicate keys are an error.
int merge_keywords(PyObject* callable, PyObject* dict, PyObject* mapping);
PyObject* format_value(PyObject* value, PyObject* spec, int conversion);

}  // namespace flashpoint
