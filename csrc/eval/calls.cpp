#include "eval/calls.h"

#include "eval/containers.h"

namespace flashpoint {

PyObject* positional_tuple(PyObject* callable, PyObject* arguments) {
  if (PyTuple_CheckExact(arguments)) {
    Py_INCREF(arguments);
    return arguments;
  }
  if (Py_TYPE(arguments)->tp_iter == nullptr && !PySequence_Check(arguments)) {
    PyObject* text = _PyObject_FunctionStr(callable);
    if (text != nullptr) {
      PyErr_Format(PyExc_TypeError, "%U argument after * must be an iterable, not %.200s", text,
                   Py_TYPE(arguments)->tp_name);
      Py_DECREF(text);
    }
    return nullptr;
  }
  return PySequence_Tuple(arguments);
}

PyObject* keyword_dict(PyObject* callable, PyObject* mapping) {
  if (PyDict_CheckExact(mapping)) {
    Py_INCREF(mapping);
    return mapping;
  }
  PyObject* dict = PyDict_New();
  if (dict != nullptr && merge_keywords(callable, dict, mapping) < 0) Py_CLEAR(dict);
  return dict;
}

FlatArguments::FlatArguments(PyObject* tuple, PyObject* dict) {
  const Py_ssize_t count = PyTuple_GET_SIZE(tuple);
  values.reserve(count + (dict != nullptr ? PyDict_GET_SIZE(dict) : 0));
  for (Py_ssize_t i = 0; i < count; ++i) values.push_back(PyTuple_GET_ITEM(tuple, i));
  if (dict == nullptr || PyDict_GET_SIZE(dict) == 0) return;
  kwnames = PyTuple_New(PyDict_GET_SIZE(dict));
  if (kwnames == nullptr) {
    PyErr_Clear();
    return;
  }
  Py_ssize_t position = 0;
  Py_ssize_t index = 0;
  PyObject *key, *value;
  while (PyDict_Next(dict, &position, &key, &value)) {
    Py_INCREF(key);
    PyTuple_SET_ITEM(kwnames, index++, key);
    values.push_back(value);
  }
}

PyObject* context_manager_method(PyObject* manager, const char* name, bool exit_of_pair, bool async) {
  PyObject* text = PyUnicode_InternFromString(name);
  if (text == nullptr) return nullptr;
  PyObject* method = _PyObject_LookupSpecial(manager, text);
  Py_DECREF(text);
  if (method == nullptr && !PyErr_Occurred()) {
    const char* type = Py_TYPE(manager)->tp_name;
    const char* kind = async ? "asynchronous context manager" : "context manager";
    if (exit_of_pair) {
      PyErr_Format(PyExc_TypeError, "'%.200s' object does not support the %s protocol (missed %s method)",
                   type, kind, name);
    } else {
      PyErr_Format(PyExc_TypeError, "'%.200s' object does not support the %s protocol", type, kind);
    }
  }
  return method;
}

// Plain pointers, not Refs: they are never released.
PyObject* special_enter() {
  static PyObject* const name = PyUnicode_InternFromString("__enter__");
  return name;
}

PyObject* special_exit() {
  static PyObject* const name = PyUnicode_InternFromString("__exit__");
  return name;
}

// Takes the references of the optional parts from the stack: *top moves down past them.
PyObject* make_function(PyObject* code, PyObject* globals, PyObject** top, int flags) {
  PyObject* object = PyFunction_New(code, globals);
  if (object == nullptr) return nullptr;
  auto* function = reinterpret_cast<PyFunctionObject*>(object);
  if (flags & 0x08) function->func_closure = *--top;
  if (flags & 0x04) function->func_annotations = *--top;
  if (flags & 0x02) function->func_kwdefaults = *--top;
  if (flags & 0x01) function->func_defaults = *--top;
  return object;
}

PyObject* display_hook() {
  PyObject* hook = PySys_GetObject("displayhook");
  if (hook == nullptr) PyErr_SetString(PyExc_RuntimeError, "lost sys.displayhook");
  Py_XINCREF(hook);
  return hook;
}

}  // namespace flashpoint
