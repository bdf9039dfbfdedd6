#include "py/layout.h"

#include <structmember.h>

namespace flashpoint::py {

PyObject** object_slot(PyObject* object, PyObject* member_descriptor) {
  if (!Py_IS_TYPE(member_descriptor, &PyMemberDescr_Type)) return nullptr;
  PyMemberDef* member = reinterpret_cast<PyMemberDescrObject*>(member_descriptor)->d_member;
  if (member->type != T_OBJECT_EX && member->type != T_OBJECT) return nullptr;
  if (!PyObject_TypeCheck(object, PyDescr_TYPE(member_descriptor))) return nullptr;
  return reinterpret_cast<PyObject**>(reinterpret_cast<char*>(object) + member->offset);
}

PyObject* super_lookup(PyTypeObject* type, PyTypeObject* after, PyObject* name) {
  PyObject* mro = type->tp_mro;
  if (mro == nullptr) return nullptr;
  const Py_ssize_t n = PyTuple_GET_SIZE(mro);
  Py_ssize_t i = 0;
  while (i < n && PyTuple_GET_ITEM(mro, i) != reinterpret_cast<PyObject*>(after)) ++i;
  for (++i; i < n; ++i) {
    PyObject* dict = reinterpret_cast<PyTypeObject*>(PyTuple_GET_ITEM(mro, i))->tp_dict;
    if (dict == nullptr) continue;
    PyObject* found = PyDict_GetItemWithError(dict, name);
    if (found != nullptr) return found;
    PyErr_Clear();
  }
  return nullptr;
}

Ref bases_of(PyTypeObject* type) { return Ref::steal(PyTuple_Pack(2, type->tp_mro, type->tp_bases)); }

}  // namespace flashpoint::py
