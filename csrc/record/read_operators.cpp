// What operators read of their operands: the methods of their classes, and what C code looks at in them.
#include <opcode.h>

#include <string>
#include <string_view>

#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/recorder.h"
#include "record/rules/rules.h"

namespace flashpoint {

namespace {

bool is_heap(PyTypeObject* type) { return PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE); }

const char* const kCompareNames[] = {"__lt__", "__le__", "__eq__", "__ne__", "__gt__", "__ge__"};
constexpr int kSwapped[] = {Py_GT, Py_GE, Py_EQ, Py_NE, Py_LT, Py_LE};

// NB_ADD .. NB_XOR of CPython's BINARY_OP, then the in-place forms in the same order.
constexpr int kInplace = 13;
#define FP_OPERATORS(X) \
  X("add")              \
  X("and")              \
  X("floordiv")         \
  X("lshift") X("matmul") X("mul") X("mod") X("or") X("pow") X("rshift") X("sub") X("truediv") X("xor")
const char* const kDirectNames[] = {
#define X(stem) "__" stem "__",
    FP_OPERATORS(X)
#undef X
};
const char* const kReflectedNames[] = {
#define X(stem) "__r" stem "__",
    FP_OPERATORS(X)
#undef X
};
const char* const kInplaceNames[] = {
#define X(stem) "__i" stem "__",
    FP_OPERATORS(X)
#undef X
};
#undef FP_OPERATORS

// Functions of builtins and operator that are an operator by another name.
struct NamedOperator {
  std::string_view name;
  int binary;         // of the above, -1: none
  const char* unary;  // null: none
};
constexpr NamedOperator kNamed[] = {
    {"add", 0, nullptr},       {"and_", 1, nullptr},      {"floordiv", 2, nullptr},
    {"lshift", 3, nullptr},    {"matmul", 4, nullptr},    {"mul", 5, nullptr},
    {"mod", 6, nullptr},       {"or_", 7, nullptr},       {"pow", 8, nullptr},
    {"rshift", 9, nullptr},    {"sub", 10, nullptr},      {"truediv", 11, nullptr},
    {"xor", 12, nullptr},      {"abs", -1, "__abs__"},    {"neg", -1, "__neg__"},
    {"pos", -1, "__pos__"},    {"inv", -1, "__invert__"}, {"invert", -1, "__invert__"},
    {"round", -1, "__round__"}};

}  // namespace

void Recorder::read_special(PyObject* o, const char* name) {
  if (is_heap(Py_TYPE(o))) type_lookup(Py_TYPE(o), name);
}

void Recorder::read_operators_of(PyTypeObject* type) {
  if (!is_heap(type)) return;
  for (int i = 0; i < kInplace; ++i) {
    type_lookup(type, kDirectNames[i]);
    type_lookup(type, kReflectedNames[i]);
  }
}

void Recorder::read_binary_methods(int op, PyObject* a, PyObject* b) {
  const int which = op % kInplace;
  if (op >= kInplace) read_special(a, kInplaceNames[which]);
  read_special(a, kDirectNames[which]);
  if (Py_TYPE(a) != Py_TYPE(b)) read_special(b, kReflectedNames[which]);
}

void Recorder::read_named_operator(std::string_view name, PyObject* const* args, Py_ssize_t count) {
  if (name == "divmod" && count == 2) {
    read_special(args[0], "__divmod__");
    return read_special(args[1], "__rdivmod__");
  }
  for (const NamedOperator& row : kNamed) {
    if (row.name != name) continue;
    if (row.binary >= 0 && count >= 2) read_binary_methods(row.binary, args[0], args[1]);
    if (row.unary != nullptr && count >= 1) read_special(args[0], row.unary);
  }
}

void Recorder::read_index(PyObject* c, PyObject* key) {
  if (is_primitive(key) || PyDict_Check(c) || PyType_Check(c)) return;
  if (PySlice_Check(key)) {
    const auto* slice = reinterpret_cast<PySliceObject*>(key);
    for (PyObject* part : {slice->start, slice->stop, slice->step}) read_index(c, part);
  } else if (!is_tensor(key) && !PyTuple_Check(key)) {
    read_special(key, "__index__");
  }
}

void Recorder::read_unary_method(int opcode, PyObject* o) {
  read_special(o, opcode == UNARY_NEGATIVE ? "__neg__" : opcode == UNARY_POSITIVE ? "__pos__" : "__invert__");
}

void Recorder::read_compare(int op, PyObject* a, PyObject* b) {
  if ((is_primitive(a) && is_primitive(b)) || ended_) return;
  if (is_tensor(a) || is_tensor(b)) {
    read_special(a, kCompareNames[op]);
    if (Py_TYPE(a) != Py_TYPE(b)) read_special(b, kCompareNames[kSwapped[op]]);
    PyObject* other = is_tensor(a) ? b : a;
    if (!is_primitive(other) && !is_tensor(other) && !read_deep(other)) {
      end(Break::k_unsupported_container, "comparison with a tensor");
    }
    return;
  }
  read_compared(a, b);
  for (PyObject* o : {a, b}) {
    PyTypeObject* type = Py_TYPE(o);
    read_special(o, kCompareNames[kSwapped[op]]);  // asked where the other one does not know
    if (is_primitive(o) || PyType_Check(o)) {
      if (PyType_Check(o) && type != &PyType_Type) type_lookup(type, kCompareNames[op]);
      continue;
    }
    if (rules().is_enum_member(o)) {
      PyObject* method = type_lookup(type, kCompareNames[op]);
      if (method != nullptr && !PyFunction_Check(method)) read_identity(a, b);
      continue;
    }
    if (is_heap(type)) {
      PyObject* method = type_lookup(type, kCompareNames[op]);
      if (op == Py_NE) type_lookup(type, "__eq__");
      if (method != nullptr && PyFunction_Check(method)) continue;
      if (method != nullptr && Py_IS_TYPE(method, &PyWrapperDescr_Type) &&
          PyDescr_TYPE(method) == &PyBaseObject_Type) {
        read_identity(a, b);
        continue;
      }
    }
    if (!read_deep(o) && node_of(o) != kNoNode) {
      if (PyMethod_Check(o) || type == &PySuper_Type) {
        end(Break::k_unsupported_container, std::string("comparison of ") + type->tp_name);
      } else if (type->tp_richcompare == nullptr ||
                 type->tp_richcompare == PyBaseObject_Type.tp_richcompare) {
        read_identity(a, b);
      } else {
        end(Break::k_unsupported_container, std::string("comparison of ") + type->tp_name);
      }
    }
  }
  if ((PyType_Check(a) && PyType_Check(b)) || (PyFunction_Check(a) && PyFunction_Check(b)))
    read_identity(a, b);
}

void Recorder::read_binary(int op, PyObject* a, PyObject* b) {
  if (is_primitive(a) && is_primitive(b)) return;
  const bool inplace = op >= kInplace;
  if (is_tensor(a) || is_tensor(b)) {
    read_binary_methods(op, a, b);
    for (PyObject* o : {a, b}) {
      if (!is_tensor(o) && !is_primitive(o) && !PyTuple_Check(o)) {
        if (!is_heap(Py_TYPE(o)))
          end(Break::k_unsupported_container, std::string("operator on ") + Py_TYPE(o)->tp_name);
      }
    }
    return;
  }
  if (PyUnicode_CheckExact(a) && op % kInplace == 6) {
    return read_percent(a, b);
  }
  for (PyObject* o : {a, b}) {
    PyTypeObject* type = Py_TYPE(o);
    if (is_primitive(o) || rules().is_value_type(type) || rules().is_enum_member(o)) continue;
    if (PyGen_CheckExact(o)) continue;  // it has no operators; what reads it is below
    if (is_heap(type)) {
      PyObject* direct = type_lookup(type, kDirectNames[op % kInplace]);
      PyObject* reflected = type_lookup(type, kReflectedNames[op % kInplace]);
      PyObject* in = inplace ? type_lookup(type, kInplaceNames[op % kInplace]) : nullptr;
      if ((direct != nullptr && PyFunction_Check(direct)) ||
          (reflected != nullptr && PyFunction_Check(reflected)) || (in != nullptr && PyFunction_Check(in))) {
        continue;
      }
    }
    if (PyType_Check(o) || rules().is_singleton_type(type)) continue;  // unions of types
    if (PyObject_TypeCheck(o, &Py_GenericAliasType)) continue;
    if (PyDictKeys_Check(o) || PyDictItems_Check(o)) {
      read_elements(py::view_dict(o));
    } else if (Py_IS_TYPE(o, &PyDictProxy_Type) && node_of(o) == kNoNode &&
               PyDict_Check(py::proxied_mapping(o))) {
      read_elements(py::proxied_mapping(o));
    } else if (PyList_Check(o) || PyTuple_Check(o) || PyDict_Check(o) || PyAnySet_Check(o) ||
               rules().is_deque(o)) {
      read_elements(o);
      if (PyAnySet_Check(o)) read_deep(o);
    } else {
      end(Break::k_unsupported_container, std::string("operator on ") + type->tp_name);
    }
  }
  if (inplace && !ended_ && (PyList_Check(a) || PyDict_Check(a) || PySet_Check(a) || rules().is_deque(a))) {
    write_contents(a);
  }
  if (inplace && PyDict_Check(a)) read_mapping_methods(b);
  // The right side of list += iterates.
  if (inplace && (PyList_Check(a) || rules().is_deque(a))) read_iterable(b);
}

}  // namespace flashpoint
