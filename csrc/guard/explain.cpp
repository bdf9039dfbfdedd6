// Textual form of guards, why the last evaluation failed, and what it met instead.
#include <string>

#include "guard/guard_access.h"
#include "guard/guard_tree.h"
#include "py/key_hash.h"
#include "py/layout.h"
#include "py/torch_bridge.h"

namespace flashpoint {

namespace {

struct Row {
  const char* name;
  const char* text;
};
constexpr Row kSteps[] = {
#define X(name, portable, text) {#name, text},
#include "guard/steps.def"
#undef X
};
constexpr Row kChecks[] = {
#define X(name, tagged, operands, text) {#name, text},
#include "guard/checks.def"
#undef X
};

std::string show(PyObject* o) {
  if (o == nullptr) return "";
  if (PyType_Check(o)) return reinterpret_cast<PyTypeObject*>(o)->tp_name;
  if (PyTuple_CheckExact(o)) {
    std::string out = "(";
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(o); ++i) {
      if (i > 0) out += ", ";
      out += show(PyTuple_GET_ITEM(o, i));
    }
    return out + ")";
  }
  if (PyModule_Check(o)) {
    const char* name = PyModule_GetName(o);
    if (name == nullptr) PyErr_Clear();
    return std::string("module ") + (name == nullptr ? "?" : name);
  }
  if (PyFunction_Check(o)) return "function " + show(reinterpret_cast<PyFunctionObject*>(o)->func_qualname);
  if (PyCode_Check(o)) return "code " + show(reinterpret_cast<PyCodeObject*>(o)->co_qualname);
  if (PyCFunction_Check(o))
    return std::string("builtin ") + reinterpret_cast<PyCFunctionObject*>(o)->m_ml->ml_name;
  if (!is_primitive(o) && !PyFrozenSet_CheckExact(o)) return std::string("a ") + Py_TYPE(o)->tp_name;
  Ref repr = Ref::steal(PyObject_Repr(o));
  const char* utf8 = repr ? PyUnicode_AsUTF8(repr.get()) : nullptr;
  if (utf8 == nullptr) {
    PyErr_Clear();
    return "?";
  }
  std::string text = utf8;
  if (text.size() > 80) {
    size_t end = 77;  // not within a character
    while ((static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
    text = text.substr(0, end) + "...";
  }
  return text;
}

std::string describe(const Check& c) {
  std::string text = c.operand ? show(c.operand.get()) : std::to_string(c.number);
  return c.second ? "(" + text + ", " + show(c.second.get()) + ")" : text;
}

void substitute(std::string& text, const std::string& slot, const std::string& value) {
  for (size_t at = text.find(slot); at != std::string::npos; at = text.find(slot, at + value.size())) {
    text.replace(at, slot.size(), value);
  }
}

}  // namespace

std::string GuardTree::path(NodeId id) const {
  const Node& n = nodes_[id];
  std::string text = kSteps[static_cast<int>(n.step)].text;
  if (n.step == Step::kConst && PyDict_Check(n.key.get())) {
    PyObject* name = PyDict_GetItemString(n.key.get(), "__name__");
    return "G(" + (name == nullptr ? std::string("?") : show(name)) + ")";
  }
  if (n.parent != kNoNode) substitute(text, "{}", path(n.parent));
  const std::string key = n.key ? show(n.key.get()) : std::to_string(n.index);
  substitute(text, "[]", key);
  return text;
}

std::string GuardTree::place(NodeId id, CheckKind kind, PyObject* key, int32_t index) const {
  return path(id) + ' ' + kChecks[static_cast<int>(kind)].name + ' ' + show(key) + ' ' +
         std::to_string(index);
}

std::string GuardTree::text_of(const Check& c) const {
  std::string line = kChecks[static_cast<int>(c.kind)].text;
  std::string operand;
  if (c.kind == CheckKind::kTensor) {
    operand = metas_[c.number].text();
  } else if (c.kind >= CheckKind::kSameAs && c.kind <= CheckKind::kNotSameAs) {
    operand = path(c.number);
  } else {
    operand = describe(c);
  }
  substitute(line, "[]", operand);
  return line;
}

std::string GuardTree::text() const {
  std::string out;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const Node& n = nodes_[i];
    for (const int32_t head : {n.checks, n.tagged_checks}) {
      for (int32_t at = head; at >= 0; at = checks_[at].next) {
        out += path(static_cast<NodeId>(i)) + ": " + text_of(checks_[at]) + "\n";
      }
    }
  }
  return out;
}

std::string GuardTree::explain_failure() const {
  if (failed_node_ == kNoNode) return "";
  std::string out = path(failed_node_) + ": ";
  if (failed_check_ < 0) return out + "not there";
  return out + "expected " + text_of(checks_[failed_check_]);
}

std::string Found::text() const {
  if (tensor) return "tensor " + tensor->text();
  if (!object) return "";
  return (PyType_Check(object.get()) ? "a " : "") + show(object.get());
}

// The value that a check of one is about; borrowed, null where there is none.
static PyObject* value_at_place(const Check& c, PyObject* v) {
  const auto at = static_cast<Py_ssize_t>(c.number);
  switch (c.kind) {
    case CheckKind::kValue:
      return v;
    case CheckKind::kItemValue:
      return PyDict_Check(v) ? py::dict_get(v, c.operand.get()) : nullptr;
    case CheckKind::kCellValue:
      return PyCell_Check(v) ? PyCell_GET(v) : nullptr;
    case CheckKind::kListItemValue:
      return PyList_Check(v) && at < PyList_GET_SIZE(v) ? PyList_GET_ITEM(v, at) : nullptr;
    case CheckKind::kTupleItemValue:
      return PyTuple_Check(v) && at < PyTuple_GET_SIZE(v) ? PyTuple_GET_ITEM(v, at) : nullptr;
    case CheckKind::kSlotValue: {
      PyObject** const slot = py::object_slot(v, c.operand.get());
      return slot == nullptr ? nullptr : *slot;
    }
    case CheckKind::kDefaultValue: {
      PyObject* const defaults = PyFunction_Check(v) ? PyFunction_GET_DEFAULTS(v) : nullptr;
      return defaults != nullptr && at < PyTuple_GET_SIZE(defaults) ? PyTuple_GET_ITEM(defaults, at)
                                                                    : nullptr;
    }
    case CheckKind::kLookupValue:
      return PyType_Check(v) ? _PyType_Lookup(reinterpret_cast<PyTypeObject*>(v), c.operand.get()) : nullptr;
    default:
      return nullptr;
  }
}

// A failed check that a place holds a number, where it holds another one.
bool GuardTree::is_other_number(const Check& c, PyObject* v) const {
  PyObject* const now = value_at_place(c, v);
  const bool itself = c.kind == CheckKind::kValue || c.kind == CheckKind::kCellValue;
  PyObject* const recorded = itself ? c.operand.get() : c.second.get();
  return now != nullptr && (PyLong_CheckExact(now) || PyFloat_CheckExact(now)) &&
         Py_TYPE(now) == Py_TYPE(recorded);
}

Found GuardAccess::found_instead(const GuardTree& tree) {
  Found found;
  if (tree.failed_node_ == kNoNode || tree.failed_check_ < 0) return found;
  const Check& c = tree.checks_[static_cast<size_t>(tree.failed_check_)];
  PyObject* const v = tree.values_[static_cast<size_t>(tree.failed_node_)];
  if (v == nullptr) return found;
  const bool of_place = c.second || c.kind == CheckKind::kCellValue;
  PyObject* const value = of_place ? value_at_place(c, v) : v;
  if (value == nullptr) return found;
  const bool size = c.kind == CheckKind::kLen || c.kind == CheckKind::kDictLen;
  if (c.kind == CheckKind::kTensor && is_tensor(value)) {
    found.tensor = TensorMeta::of(value);
  } else if (size && (PyList_CheckExact(v) || PyTuple_Check(v) || PyDict_CheckExact(v))) {
    found.object = Ref::steal(PyLong_FromSsize_t(PyObject_Size(v)));
  } else if (is_primitive(value) && c.kind != CheckKind::kTypeIs) {
    found.object = Ref::share(value);
  } else {
    found.object = Ref::share(reinterpret_cast<PyObject*>(Py_TYPE(value)));
  }
  return found;
}

}  // namespace flashpoint
