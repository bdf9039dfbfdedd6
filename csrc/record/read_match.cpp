// Structural pattern matching: what the MATCH_* instructions and GET_LEN read of the subject; and what
// `except` reads of the exception.
#include <opcode.h>

#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/recorder.h"
#include "record/rules/rules.h"

namespace flashpoint {

void Recorder::read_match(const Operands& o) {
  PyObject* subject = o.a;
  PyTypeObject* type = Py_TYPE(subject);
  switch (o.detail) {
    case MATCH_SEQUENCE:
    case MATCH_MAPPING:
      return;  // a flag of the class
    case GET_LEN: {
      if (PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) {
        PyObject* length = type_lookup(type, "__len__");
        if (length != nullptr && PyFunction_Check(length)) return;
      }
      if (is_primitive(subject) || PyRange_Check(subject) || rules().is_value_type(type)) return;
      if (PyList_Check(subject) || PyTuple_Check(subject) || PyDict_Check(subject) ||
          rules().is_deque(subject))
        return read_length(subject);
      return end(Break::k_unsupported_instruction, "match");
    }
    case MATCH_KEYS:
      if (!PyDict_CheckExact(subject)) return end(Break::k_unsupported_instruction, "match of a mapping");
      for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(o.b) && !ended_; ++i)
        read_dict_key(subject, PyTuple_GET_ITEM(o.b, i));
      return;
    case MATCH_CLASS: {
      if (!PyType_Check(o.b)) return;  // raises
      auto* wanted = reinterpret_cast<PyTypeObject*>(o.b);
      if (is_tensor(subject) || Py_TYPE(o.b) != &PyType_Type)
        return end(Break::k_unsupported_instruction, "match of a class");
      PyObject* own = type_lookup(type, "__class__");
      read_bases(type);
      if (!PyType_IsSubtype(type, wanted)) {
        // An object may name another class as its own.
        if (own != nullptr && !Py_IS_TYPE(own, &PyGetSetDescr_Type))
          end(Break::k_unsupported_instruction, "match of a class");
        return;
      }
      PyObject* names = type_lookup(wanted, "__match_args__");
      if (names != nullptr && PyTuple_CheckExact(names)) {
        read_elements(names);
        // How many of them the pattern asks for is not told; reading all is reading too much at worst.
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names) && !ended_; ++i) {
          if (PyUnicode_Check(PyTuple_GET_ITEM(names, i))) read_attr(subject, PyTuple_GET_ITEM(names, i));
        }
      } else if (names != nullptr) {
        return end(Break::k_unsupported_instruction, "match of a class");
      }
      for (Py_ssize_t i = 0; o.c != nullptr && i < PyTuple_GET_SIZE(o.c) && !ended_; ++i)
        read_attr(subject, PyTuple_GET_ITEM(o.c, i));
      return;
    }
    case CHECK_EXC_MATCH:  // except: its class, and what that inherits from
      if (PyTuple_Check(o.b)) read_elements(o.b);
      return read_bases(PyExceptionClass_Check(subject) ? reinterpret_cast<PyTypeObject*>(subject) : type);
    default:
      return end(Break::k_unsupported_instruction, "match");
  }
}

}  // namespace flashpoint
