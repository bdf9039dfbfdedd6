// Text of objects: format(), str(), repr(), f-strings and the % operator.
//
// Each of the three goes its own way through the class: what has a __str__ of its own may still print an
// address in repr(), and containers print their elements with repr() whatever they were asked for.
#include <string>

#include "py/torch_bridge.h"
#include "record/recorder.h"
#include "record/rules/rules.h"

#include <ATen/core/Tensor.h>

namespace flashpoint {

namespace {

// Whether a slot found on a class is object's own, which goes on to the next simpler form.
bool is_objects_own(PyObject* slot) {
  return slot != nullptr &&
         (Py_IS_TYPE(slot, &PyWrapperDescr_Type) || Py_IS_TYPE(slot, &PyMethodDescr_Type)) &&
         PyDescr_TYPE(slot) == &PyBaseObject_Type;
}

bool repr_is_objects_own(PyTypeObject* type) {
  static PyObject* const name = PyUnicode_InternFromString("__repr__");
  return is_objects_own(_PyType_Lookup(type, name));
}

}  // namespace

void Recorder::read_text(PyObject* value, Text how, int depth) {
  if (is_primitive(value) || ended_) return;
  keep_hash_order_local(value);
  PyTypeObject* type = Py_TYPE(value);
  if (is_tensor(value)) {
    // Of a tensor without dimensions Tensor.__format__, which is Python code, formats the number.
    if (how == Text::kFormat && may_read_value(value) && unpack_tensor(value).dim() == 0 &&
        !is_parameter(value))
      return;
    return end(Break::k_tensor_data_as_python, "a tensor formatted as text");
  }
  if (depth > 32) return end(Break::k_format_object, "nested too deeply");
  if (PyType_Check(value)) {
    if (type == &PyType_Type) return;
    for (const char* name : {"__format__", "__str__", "__repr__"}) type_lookup(type, name);
    return;
  }
  if (rules().is_singleton_type(type) || rules().is_value_type(type) || PyRange_Check(value)) return;
  if (rules().is_enum_member(value)) {
    // The very member is guarded; the rest is Python code, or C code on its value.
    for (const char* name : {"__format__", "__str__", "__repr__"}) type_lookup(type, name);
    return;
  }
  if (PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) {
    if (how == Text::kFormat) {
      PyObject* format = type_lookup(type, "__format__");
      if (format != nullptr && PyFunction_Check(format)) return;
      if (!is_objects_own(format)) return end(Break::k_format_object, type->tp_name);
      how = Text::kStr;
    }
    if (how == Text::kStr) {
      PyObject* str = type_lookup(type, "__str__");
      if (str != nullptr && PyFunction_Check(str)) return;
      if (!is_objects_own(str) && !PyExceptionInstance_Check(value))
        return end(Break::k_format_object, type->tp_name);
      if (is_objects_own(str)) how = Text::kRepr;
    }
    if (how == Text::kRepr) {
      PyObject* repr = type_lookup(type, "__repr__");
      if (repr != nullptr && PyFunction_Check(repr)) return;
      if (!PyExceptionInstance_Check(value) && !is_objects_own(repr))
        return end(Break::k_format_object, type->tp_name);
    }
  }
  // "<function f at 0x...>": of what stays, its name and its address are constants.
  if ((PyFunction_Check(value) || (how == Text::kRepr && repr_is_objects_own(type))) && may_pin(value)) {
    static PyObject* const name = PyUnicode_InternFromString("__qualname__");
    if (PyFunction_Check(value)) read_attr(value, name);
    pin(value);
    return keep_local("an address");
  }
  if (PyExceptionInstance_Check(value) && node_of(value) == kNoNode) {
    PyObject* args = reinterpret_cast<PyBaseExceptionObject*>(value)->args;
    for (Py_ssize_t i = 0; args != nullptr && i < PyTuple_GET_SIZE(args); ++i) {
      read_text(PyTuple_GET_ITEM(args, i), Text::kStr, depth + 1);
      read_text(PyTuple_GET_ITEM(args, i), Text::kRepr, depth + 1);
    }
    return;
  }
  if (PyList_CheckExact(value) || PyTuple_CheckExact(value)) {
    read_elements(value);
    for (Py_ssize_t i = 0; i < Py_SIZE(value) && !ended_; ++i) {
      read_text(PyList_Check(value) ? PyList_GET_ITEM(value, i) : PyTuple_GET_ITEM(value, i), Text::kRepr,
                depth + 1);
    }
    return;
  }
  if (PyDict_CheckExact(value) || PyODict_CheckExact(value)) {
    read_elements(value);
    PyObject *key, *item;
    Py_ssize_t pos = 0;
    while (!ended_ && PyDict_Next(value, &pos, &key, &item)) {
      read_text(key, Text::kRepr, depth + 1);
      read_text(item, Text::kRepr, depth + 1);
    }
    return;
  }
  if (PyAnySet_CheckExact(value)) {
    read_iterable(value);  // ends where the order depends on addresses
    PyObject* item;
    Py_hash_t hash;
    Py_ssize_t pos = 0;
    while (!ended_ && _PySet_NextEntry(value, &pos, &item, &hash)) read_text(item, Text::kRepr, depth + 1);
    return;
  }
  if (PySlice_Check(value)) {
    auto* s = reinterpret_cast<PySliceObject*>(value);
    for (PyObject* part : {s->start, s->stop, s->step}) read_text(part, Text::kRepr, depth + 1);
    return;
  }
  end(Break::k_format_object, type->tp_name);
}

// format % values: which conversions the text asks for decides what each value is asked for.
void Recorder::read_percent(PyObject* format, PyObject* values) {
  bool str = false, repr = false;
  const char* text = PyUnicode_AsUTF8(format);
  if (text == nullptr) return PyErr_Clear();
  for (const char* c = text; *c != '\0'; ++c) {
    if (*c != '%') continue;
    ++c;
    if (*c == '(') {
      while (*c != '\0' && *c != ')') ++c;
      if (*c != '\0') ++c;
    }
    while (*c != '\0' && std::string_view("#0- +.*0123456789hlL").find(*c) != std::string_view::npos) ++c;
    if (*c == '\0') break;
    str = str || *c == 's';
    repr = repr || *c == 'r' || *c == 'a';
  }
  auto read = [&](PyObject* value) {
    // Number conversions run code of the value's class.
    if (!is_primitive(value) && !str && !repr && PyType_HasFeature(Py_TYPE(value), Py_TPFLAGS_HEAPTYPE))
      return rules().read_operator_slots(*this, value);
    if (str || !repr) read_text(value, Text::kStr);
    if (repr) read_text(value, Text::kRepr);
  };
  if (PyTuple_Check(values)) {
    read_elements(values);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(values) && !ended_; ++i) read(PyTuple_GET_ITEM(values, i));
  } else if (PyDict_CheckExact(values)) {
    read_elements(values);
    PyObject *key, *value;
    Py_ssize_t pos = 0;
    while (!ended_ && PyDict_Next(values, &pos, &key, &value)) read(value);
    if (!ended_ && text != nullptr) read_text(values, Text::kRepr);
  } else {
    read(values);
  }
}

}  // namespace flashpoint
