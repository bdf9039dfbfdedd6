#include "eval/match.h"

#include "py/ref.h"

namespace flashpoint {
namespace {

// Adds `item` to `seen`: 1 new, 0 already there, -1 with an error set.
int add_once(PyObject* seen, PyObject* item) {
  const int known = PySet_Contains(seen, item);
  if (known != 0) return known < 0 ? -1 : 0;
  return PySet_Add(seen, item) < 0 ? -1 : 1;
}

bool append_attribute(PyObject* attributes, PyObject* subject, PyObject* type, PyObject* name,
                      PyObject* seen) {
  const int fresh = add_once(seen, name);
  if (fresh <= 0) {
    if (fresh == 0) {
      PyErr_Format(PyExc_TypeError, "%s() got multiple sub-patterns for attribute %R",
                   reinterpret_cast<PyTypeObject*>(type)->tp_name, name);
    }
    return false;
  }
  Ref value = Ref::steal(PyObject_GetAttr(subject, name));
  if (!value) {
    if (PyErr_ExceptionMatches(PyExc_AttributeError)) PyErr_Clear();
    return false;
  }
  return PyList_Append(attributes, value.get()) == 0;
}

bool append_positional(PyObject* attributes, PyObject* subject, PyObject* type, Py_ssize_t count,
                       PyObject* seen) {
  const char* type_name = reinterpret_cast<PyTypeObject*>(type)->tp_name;
  bool match_self = false;
  Ref names = Ref::steal(PyObject_GetAttrString(type, "__match_args__"));
  if (names) {
    if (!PyTuple_CheckExact(names.get())) {
      PyErr_Format(PyExc_TypeError, "%s.__match_args__ must be a tuple (got %s)", type_name,
                   Py_TYPE(names.get())->tp_name);
      return false;
    }
  } else {
    if (!PyErr_ExceptionMatches(PyExc_AttributeError)) return false;
    PyErr_Clear();
    names = Ref::steal(PyTuple_New(0));
    if (!names) return false;
    match_self = PyType_HasFeature(reinterpret_cast<PyTypeObject*>(type), _Py_TPFLAGS_MATCH_SELF);
  }
  const Py_ssize_t allowed = match_self ? 1 : PyTuple_GET_SIZE(names.get());
  if (allowed < count) {
    PyErr_Format(PyExc_TypeError, "%s() accepts %zd positional sub-pattern%s (%zd given)", type_name, allowed,
                 allowed == 1 ? "" : "s", count);
    return false;
  }
  if (match_self) return PyList_Append(attributes, subject) == 0;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* name = PyTuple_GET_ITEM(names.get(), i);
    if (!PyUnicode_CheckExact(name)) {
      PyErr_Format(PyExc_TypeError, "__match_args__ elements must be strings (got %s)",
                   Py_TYPE(name)->tp_name);
      return false;
    }
    if (!append_attribute(attributes, subject, type, name, seen)) return false;
  }
  return true;
}

}  // namespace

PyObject* match_keys(PyObject* subject, PyObject* keys) {
  const Py_ssize_t count = PyTuple_GET_SIZE(keys);
  if (count == 0) return PyTuple_New(0);
  // get(key, default) neither creates keys in dict subclasses nor raises for a missing one.
  PyObject* found = nullptr;
  Ref name = Ref::steal(PyUnicode_InternFromString("get"));
  if (!name) return nullptr;
  const bool unbound = _PyObject_GetMethod(subject, name.get(), &found) != 0;
  Ref get = Ref::steal(found);
  if (!get) return nullptr;
  Ref seen = Ref::steal(PySet_New(nullptr));
  Ref missing = Ref::steal(PyObject_CallNoArgs(reinterpret_cast<PyObject*>(&PyBaseObject_Type)));
  Ref values = Ref::steal(PyTuple_New(count));
  if (!seen || !missing || !values) return nullptr;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* key = PyTuple_GET_ITEM(keys, i);
    const int fresh = add_once(seen.get(), key);
    if (fresh <= 0) {
      if (fresh == 0) PyErr_Format(PyExc_ValueError, "mapping pattern checks duplicate key (%R)", key);
      return nullptr;
    }
    PyObject* arguments[] = {subject, key, missing.get()};
    PyObject* value = unbound ? PyObject_Vectorcall(get.get(), arguments, 3, nullptr)
                              : PyObject_Vectorcall(get.get(), arguments + 1, 2, nullptr);
    if (value == nullptr) return nullptr;
    if (value == missing.get()) {
      Py_DECREF(value);
      Py_RETURN_NONE;
    }
    PyTuple_SET_ITEM(values.get(), i, value);
  }
  return values.release();
}

PyObject* match_class(PyObject* subject, PyObject* type, Py_ssize_t positional, PyObject* keyword_names) {
  if (!PyType_Check(type)) {
    PyErr_SetString(PyExc_TypeError, "called match pattern must be a type");
    return nullptr;
  }
  if (PyObject_IsInstance(subject, type) <= 0) return nullptr;
  Ref seen = Ref::steal(PySet_New(nullptr));
  Ref attributes = Ref::steal(PyList_New(0));
  if (!seen || !attributes) return nullptr;
  if (positional != 0 && !append_positional(attributes.get(), subject, type, positional, seen.get())) {
    return nullptr;
  }
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(keyword_names); ++i) {
    if (!append_attribute(attributes.get(), subject, type, PyTuple_GET_ITEM(keyword_names, i), seen.get())) {
      return nullptr;
    }
  }
  return PyList_AsTuple(attributes.get());
}

}  // namespace flashpoint
