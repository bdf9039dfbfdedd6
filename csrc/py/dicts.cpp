#include "py/dicts.h"

namespace flashpoint::py {

Ref keys_in_order(PyObject* dict) {
  if (!PyODict_Check(dict)) return Ref::steal(PyDict_Keys(dict));
  Ref iterator = Ref::steal(PyODict_Type.tp_iter(dict));
  Ref keys = Ref::steal(iterator ? PySequence_List(iterator.get()) : nullptr);
  bool fits = keys && PyList_GET_SIZE(keys.get()) == PyDict_GET_SIZE(dict);
  for (Py_ssize_t i = 0; fits && i < PyList_GET_SIZE(keys.get()); ++i)
    fits = PyDict_Contains(dict, PyList_GET_ITEM(keys.get(), i)) == 1;
  if (fits) return keys;
  PyErr_Clear();
  return Ref();
}

Py_ssize_t stored_size(PyObject* o) {
  if (PyList_Check(o) || PyTuple_Check(o)) return Py_SIZE(o);
  if (PyDict_Check(o)) return PyDict_GET_SIZE(o);
  if (PyAnySet_Check(o)) return PySet_GET_SIZE(o);
  PyTypeObject* type = Py_TYPE(o);
  while (PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) && type->tp_base != nullptr) type = type->tp_base;
  const PySequenceMethods* methods = type->tp_as_sequence;
  return methods != nullptr && methods->sq_length != nullptr ? methods->sq_length(o) : PyObject_Size(o);
}

}  // namespace flashpoint::py
