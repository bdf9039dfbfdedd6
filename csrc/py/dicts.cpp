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

}  // namespace flashpoint::py
