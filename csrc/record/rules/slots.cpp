// Handlers of instructions that reach type slots, and of imports.
#include <string>

#include "py/frame.h"
#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/graph_recorder.h"
#include "record/recorder.h"
#include "record/rules/rules.h"

namespace flashpoint {

bool Rules::read_function_attribute(Recorder& r, PyObject* f, PyObject* name) const {
  const std::string_view text = PyUnicode_AsUTF8(name);
  const NodeId node = r.node_of(f);
  if (node == kNoNode) return true;
  if (text == "__defaults__") {
    PyObject* defaults = PyFunction_GET_DEFAULTS(f);
    for (Py_ssize_t i = 0; defaults != nullptr && i < PyTuple_GET_SIZE(defaults); ++i) {
      PyObject* value = PyTuple_GET_ITEM(defaults, i);
      if (is_primitive(value)) {
        r.tree_.check_place(node, CheckKind::kDefaultValue, nullptr, value, static_cast<int32_t>(i));
      } else {
        r.observe(r.tree_.child(node, Step::kFuncDefault, nullptr, static_cast<int32_t>(i)), value);
      }
    }
    return true;
  }
  if (text == "__kwdefaults__") {
    PyObject* kw = PyFunction_GET_KW_DEFAULTS(f);
    if (kw != nullptr && PyDict_GET_SIZE(kw) > 0) r.watch(kw, r.tree_.child(node, Step::kFuncKwDefaults));
    return true;
  }
  if (text == "__annotations__") {
    Ref dict = Ref::steal(PyObject_GetAttr(f, name));  // made on first use
    if (!dict) PyErr_Clear();
    if (dict && PyDict_Check(dict.get())) r.watch(dict.get(), r.tree_.child(node, Step::kFuncAnnotations));
    return true;
  }
  if (text == "__name__" || text == "__qualname__" || text == "__doc__" || text == "__module__") {
    Ref value = Ref::steal(PyObject_GenericGetAttr(f, name));
    if (!value || !is_primitive(value.get())) {
      PyErr_Clear();
      return false;
    }
    if (r.once(f, name, 6)) r.tree_.check_place(node, CheckKind::kFunctionAttribute, name, value.get());
    return true;
  }
  // Guarded with the function's code and globals, or fixed for its life.
  return text == "__code__" || text == "__globals__" || text == "__builtins__" || text == "__closure__";
}

void Rules::read_operator_slots(Recorder& r, PyObject* o) const {
  PyTypeObject* type = Py_TYPE(o);
  for (const char* name : {"__int__", "__float__", "__index__", "__neg__", "__pos__", "__invert__", "__abs__",
                           "__round__", "__trunc__", "__bool__", "__len__", "__floor__", "__ceil__",
                           "__complex__", "__bytes__", "__divmod__"}) {
    PyObject* found = r.type_lookup(type, name);
    if (found != nullptr && !PyFunction_Check(found) && !PyDict_Check(o) && !PyList_Check(o) &&
        !PyTuple_Check(o) && !is_enum_member(o) && r.node_of(o) != kNoNode) {
      return r.end(Break::k_unsupported_container, std::string("operator on ") + type->tp_name);
    }
  }
}

void Rules::store_subscript(Recorder& r, PyObject* c, PyObject* key, PyObject* value) const {
  PyTypeObject* type = Py_TYPE(c);
  r.read_index(c, key);
  if (is_tensor(c)) {
    r.read_special(c, value == nullptr ? "__delitem__" : "__setitem__");
    read_tensor_index(r, c, key);
    return read_stored_value(r, c, key, value);
  }
  if (PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) {
    PyObject* set = r.type_lookup(type, value == nullptr ? "__delitem__" : "__setitem__");
    if (set != nullptr && PyFunction_Check(set)) return;
  }
  if (PyDict_Check(c)) {
    if (r.read_lazily(c)) return r.end(Break::k_read_after_mutation, "a dict that is being iterated");
    if (r.node_of(c) == kNoNode) return r.read_fresh_key(c, key);
    r.read_hash(key);
    if (value == nullptr) r.read_dict_present(c, key);
    return PyODict_Check(c) ? r.write_contents(c) : r.write_dict(c, key, value == nullptr);
  }
  if (PyList_Check(c)) {
    if (!is_primitive(key)) r.read_deep(key);
    if (value != nullptr) r.read_iterable_if_container(value);
    return r.write_list_item(c, key, value) ? void() : r.write_contents(c);
  }
  if (!is_deque(c)) return r.end(Break::k_unsupported_mutation, type->tp_name);
  r.write_contents(c);
}

// What a functools.partial holds: its function, and the arguments it adds.
void Rules::read_partial(Recorder& r, PyObject* f) const {
  auto* p = reinterpret_cast<py::PartialLayout*>(f);
  if (const NodeId node = r.node_of(f); node != kNoNode) {
    r.observe(r.tree_.child(node, Step::kPartialFunc), p->function);
    r.watch(p->args, r.tree_.child(node, Step::kPartialArgs));
    r.watch(p->keywords, r.tree_.child(node, Step::kPartialKeywords));
  }
  r.read_elements(p->args);
  r.read_elements(p->keywords);
}

void Rules::check_callback(Recorder& r, PyObject* f) const {
  if (PyFunction_Check(f) || f == Py_None) return;
  if (PyMethod_Check(f) && PyFunction_Check(PyMethod_GET_FUNCTION(f))) {
    const NodeId node = r.node_of(f);
    if (node != kNoNode) {
      r.observe(r.tree_.child(node, Step::kMethodFunc), PyMethod_GET_FUNCTION(f));
      r.observe(r.tree_.child(node, Step::kMethodSelf), PyMethod_GET_SELF(f));
    }
    return;
  }
  if (is_partial(f)) {
    read_partial(r, f);
    PyObject* inner = reinterpret_cast<py::PartialLayout*>(f)->function;
    return r.ended() ? void() : check_callback(r, inner);
  }
  // C functions called from C: their arguments are not seen. Allowed where arguments cannot matter more
  // than their values, which the caller has read.
  RuleRow row;
  if (PyCFunction_Check(f)) row = function(reinterpret_cast<PyCFunctionObject*>(f)->m_ml);
  if (Py_IS_TYPE(f, &PyMethodDescr_Type)) row = function(reinterpret_cast<PyMethodDescrObject*>(f)->d_method);
  if (PyType_Check(f)) {
    if (PyType_HasFeature(reinterpret_cast<PyTypeObject*>(f), Py_TPFLAGS_HEAPTYPE)) {
      return r.call_type(reinterpret_cast<PyTypeObject*>(f), nullptr, 0, nullptr);
    }
    row = type(reinterpret_cast<PyTypeObject*>(f));
    if (row.rule == Rule::kStrFormat || row.rule == Rule::kIterate) return;
  }
  if (row.rule == Rule::kPure || row.rule == Rule::kConstant || row.rule == Rule::kTorch ||
      row.rule == Rule::kTypeOf)
    return;
  if (PyType_HasFeature(Py_TYPE(f), Py_TPFLAGS_HEAPTYPE)) {
    PyObject* call = r.type_lookup(Py_TYPE(f), "__call__");
    if (call != nullptr && PyFunction_Check(call)) return;
  }
  r.end(Break::k_unknown_c_function, std::string("callback ") + Py_TYPE(f)->tp_name + " " + row.name);
}

}  // namespace flashpoint
