#include "eval/containers.h"

namespace flashpoint {
namespace {

constexpr int kConversionMask = 0x3;
constexpr int kConversionStr = 0x1;
constexpr int kConversionRepr = 0x2;
constexpr int kConversionAscii = 0x3;

bool iterable_at_all(PyObject* object) {
  return Py_TYPE(object)->tp_iter != nullptr || PySequence_Check(object);
}

// Splits the rest of an iterator: top[-1] = list of the middle, below it the `after` last ones.
int unpack_rest(PyObject* iterator, int count, int after, PyObject** top) {
  PyObject* rest = PySequence_List(iterator);
  if (rest == nullptr) return -1;
  const Py_ssize_t size = PyList_GET_SIZE(rest);
  if (size < after) {
    PyErr_Format(PyExc_ValueError, "not enough values to unpack (expected at least %d, got %zd)",
                 count + after, count + size);
    Py_DECREF(rest);
    return -1;
  }
  *--top = rest;
  for (int i = 0; i < after; ++i) *--top = PyList_GET_ITEM(rest, size - after + i);
  Py_SET_SIZE(reinterpret_cast<PyVarObject*>(rest), size - after);  // their references moved to the stack
  return 0;
}

}  // namespace

PyObject* build_set(PyObject* const* items, int count) {
  PyObject* set = PySet_New(nullptr);
  for (int i = 0; set != nullptr && i < count; ++i) {
    if (PySet_Add(set, items[i]) < 0) Py_CLEAR(set);
  }
  return set;
}

PyObject* build_map(PyObject* const* keys, int key_stride, PyObject* const* values, int value_stride,
                    int count) {
  PyObject* dict = count > 5 ? _PyDict_NewPresized(count) : PyDict_New();
  for (int i = 0; dict != nullptr && i < count; ++i) {
    if (PyDict_SetItem(dict, keys[i * key_stride], values[i * value_stride]) < 0) Py_CLEAR(dict);
  }
  return dict;
}

int unpack_iterable(PyObject* iterable, int count, int after, PyObject** top) {
  PyObject* iterator = PyObject_GetIter(iterable);
  if (iterator == nullptr) {
    if (PyErr_ExceptionMatches(PyExc_TypeError) && !iterable_at_all(iterable)) {
      PyErr_Format(PyExc_TypeError, "cannot unpack non-iterable %.200s object", Py_TYPE(iterable)->tp_name);
    }
    return -1;
  }
  int got = 0;
  int status = -1;
  for (; got < count; ++got) {
    PyObject* item = PyIter_Next(iterator);
    if (item == nullptr) break;
    top[-1 - got] = item;
  }
  if (got < count) {
    if (!PyErr_Occurred()) {
      if (after < 0) {
        PyErr_Format(PyExc_ValueError, "not enough values to unpack (expected %d, got %d)", count, got);
      } else {
        PyErr_Format(PyExc_ValueError, "not enough values to unpack (expected at least %d, got %d)",
                     count + after, got);
      }
    }
  } else if (after >= 0) {
    status = unpack_rest(iterator, count, after, top - count);
  } else {
    PyObject* extra = PyIter_Next(iterator);
    if (extra != nullptr) {
      Py_DECREF(extra);
      PyErr_Format(PyExc_ValueError, "too many values to unpack (expected %d)", count);
    } else if (!PyErr_Occurred()) {
      status = 0;
    }
  }
  if (status < 0) {
    while (got > 0) Py_DECREF(top[-got--]);
  }
  Py_DECREF(iterator);
  return status;
}

int extend_list(PyObject* list, PyObject* iterable) {
  PyObject* none = _PyList_Extend(reinterpret_cast<PyListObject*>(list), iterable);
  if (none != nullptr) {
    Py_DECREF(none);
    return 0;
  }
  if (PyErr_ExceptionMatches(PyExc_TypeError) && !iterable_at_all(iterable)) {
    PyErr_Clear();
    PyErr_Format(PyExc_TypeError, "Value after * must be an iterable, not %.200s",
                 Py_TYPE(iterable)->tp_name);
  }
  return -1;
}

int update_dict(PyObject* dict, PyObject* mapping) {
  if (PyDict_Update(dict, mapping) == 0) return 0;
  if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
    PyErr_Format(PyExc_TypeError, "'%.200s' object is not a mapping", Py_TYPE(mapping)->tp_name);
  }
  return -1;
}

int merge_keywords(PyObject* callable, PyObject* dict, PyObject* mapping) {
  if (_PyDict_MergeEx(dict, mapping, 2) == 0) return 0;
  if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
    PyErr_Clear();
    PyObject* text = _PyObject_FunctionStr(callable);
    if (text != nullptr) {
      PyErr_Format(PyExc_TypeError, "%U argument after ** must be a mapping, not %.200s", text,
                   Py_TYPE(mapping)->tp_name);
      Py_DECREF(text);
    }
  } else if (PyErr_ExceptionMatches(PyExc_KeyError)) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (value == nullptr || !PyTuple_Check(value) || PyTuple_GET_SIZE(value) != 1) {
      PyErr_Restore(type, value, traceback);
      return -1;
    }
    PyObject* text = _PyObject_FunctionStr(callable);
    if (text != nullptr) {
      PyErr_Format(PyExc_TypeError, "%U got multiple values for keyword argument '%S'", text,
                   PyTuple_GET_ITEM(value, 0));
      Py_DECREF(text);
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
  }
  return -1;
}

PyObject* format_value(PyObject* value, PyObject* spec, int conversion) {
  PyObject* converted = nullptr;
  switch (conversion & kConversionMask) {
    case kConversionStr:
      converted = PyObject_Str(value);
      break;
    case kConversionRepr:
      converted = PyObject_Repr(value);
      break;
    case kConversionAscii:
      converted = PyObject_ASCII(value);
      break;
    default:
      converted = value;
      Py_INCREF(converted);
  }
  if (converted == nullptr || (spec == nullptr && PyUnicode_CheckExact(converted))) return converted;
  PyObject* text = PyObject_Format(converted, spec);
  Py_DECREF(converted);
  return text;
}

}  // namespace flashpoint
