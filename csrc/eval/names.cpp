#include "eval/names.h"

#include "eval/errors.h"

namespace flashpoint {
namespace {

// A lookup in an exact dict or any mapping. Null without an error: absent.
PyObject* lookup(PyObject* mapping, PyObject* name) {
  if (PyDict_CheckExact(mapping)) {
    PyObject* value = PyDict_GetItemWithError(mapping, name);
    Py_XINCREF(value);
    return value;
  }
  PyObject* value = PyObject_GetItem(mapping, name);
  if (value == nullptr && PyErr_ExceptionMatches(PyExc_KeyError)) PyErr_Clear();
  return value;
}

PyObject* interned(const char* text) { return PyUnicode_InternFromString(text); }

}  // namespace

PyObject* find_global(_PyInterpreterFrame* frame, PyObject* name, PyObject** owner) {
  PyObject* globals = frame->f_globals;
  PyObject* builtins = frame->f_builtins;
  if (PyDict_CheckExact(globals) && PyDict_CheckExact(builtins)) [[likely]] {
    Py_hash_t hash = reinterpret_cast<PyASCIIObject*>(name)->hash;
    if (hash == -1) hash = PyObject_Hash(name);
    *owner = globals;
    PyObject* value = _PyDict_GetItem_KnownHash(globals, name, hash);
    if (value == nullptr && !PyErr_Occurred()) {
      *owner = builtins;
      value = _PyDict_GetItem_KnownHash(builtins, name, hash);
    }
    Py_XINCREF(value);
    return value;
  }
  *owner = nullptr;
  PyObject* value = PyObject_GetItem(globals, name);
  if (value != nullptr || !PyErr_ExceptionMatches(PyExc_KeyError)) return value;
  PyErr_Clear();
  value = PyObject_GetItem(builtins, name);
  if (value == nullptr && PyErr_ExceptionMatches(PyExc_KeyError)) PyErr_Clear();
  return value;
}

PyObject* load_name(_PyInterpreterFrame* frame, PyObject* name) {
  if (frame->f_locals == nullptr) {
    PyErr_Format(PyExc_SystemError, "no locals when loading %R", name);
    return nullptr;
  }
  PyObject* value = lookup(frame->f_locals, name);
  if (value == nullptr && !PyErr_Occurred()) {
    value = PyDict_GetItemWithError(frame->f_globals, name);
    Py_XINCREF(value);
  }
  if (value == nullptr && !PyErr_Occurred()) value = lookup(frame->f_builtins, name);
  if (value == nullptr && !PyErr_Occurred()) raise_name_error(name);
  return value;
}

PyObject* load_class_cell(_PyInterpreterFrame* frame, int slot) {
  PyObject* value = lookup(frame->f_locals, PyTuple_GET_ITEM(frame->f_code->co_localsplusnames, slot));
  if (value != nullptr || PyErr_Occurred()) return value;
  value = PyCell_GET(frame->localsplus[slot]);
  if (value == nullptr) raise_unbound_cell(frame->f_code, slot);
  Py_XINCREF(value);
  return value;
}

PyObject* load_build_class(_PyInterpreterFrame* frame) {
  PyObject* name = interned("__build_class__");
  if (name == nullptr) return nullptr;
  PyObject* value = lookup(frame->f_builtins, name);
  Py_DECREF(name);
  if (value == nullptr && !PyErr_Occurred()) PyErr_SetString(PyExc_NameError, "__build_class__ not found");
  return value;
}

int store_name(_PyInterpreterFrame* frame, PyObject* name, PyObject* value) {
  PyObject* locals = frame->f_locals;
  if (locals == nullptr) {
    PyErr_Format(PyExc_SystemError, "no locals found when storing %R", name);
    return -1;
  }
  if (PyDict_CheckExact(locals)) return PyDict_SetItem(locals, name, value);
  return PyObject_SetItem(locals, name, value);
}

int delete_name(_PyInterpreterFrame* frame, PyObject* name) {
  PyObject* locals = frame->f_locals;
  if (locals == nullptr) {
    PyErr_Format(PyExc_SystemError, "no locals when deleting %R", name);
    return -1;
  }
  if (PyObject_DelItem(locals, name) == 0) return 0;
  raise_name_error(name);
  return -1;
}

int delete_global(_PyInterpreterFrame* frame, PyObject* name) {
  if (PyDict_DelItem(frame->f_globals, name) == 0) return 0;
  if (PyErr_ExceptionMatches(PyExc_KeyError)) raise_name_error(name);
  return -1;
}

int setup_annotations(_PyInterpreterFrame* frame) {
  PyObject* locals = frame->f_locals;
  if (locals == nullptr) {
    PyErr_SetString(PyExc_SystemError, "no locals found when setting up annotations");
    return -1;
  }
  PyObject* name = interned("__annotations__");
  if (name == nullptr) return -1;
  PyObject* annotations = lookup(locals, name);
  int status = annotations != nullptr ? 0 : -1;
  if (annotations == nullptr && !PyErr_Occurred()) {
    annotations = PyDict_New();
    if (annotations != nullptr) status = store_name(frame, name, annotations);
  }
  Py_XDECREF(annotations);
  Py_DECREF(name);
  return status;
}

}  // namespace flashpoint
