// Table: writing. How an object of each kind is described.
#include <cstring>
#include <string_view>

#include "guard/guard_tree.h"
#include "portable/parts.h"
#include "portable/table.h"
#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/rules/rules.h"

namespace flashpoint::portable {

bool Table::describe_type(PyTypeObject* type, Value& value) {
  value.kind = ValueKind::kType;
  value.text = type_name(type);
  value.name = type_module(type);
  if (value.text.empty() || type->tp_mro == nullptr) return false;
  value.digest = fingerprint_type(type);
  value.parts.push_back(add(as_object(Py_TYPE(type))));
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(type->tp_mro); ++i)
    value.parts.push_back(add(PyTuple_GET_ITEM(type->tp_mro, i)));
  return failure_.empty();
}

bool Table::describe(PyObject* o, Value& value) {
  const auto kind = [&](ValueKind found) {
    value.kind = found;
    return failure_.empty();
  };
  if (o == root_) return kind(ValueKind::kRoot);
  if (o == Py_None) return kind(ValueKind::kNone);
  if (o == Py_True) return kind(ValueKind::kTrue);
  if (o == Py_False) return kind(ValueKind::kFalse);
  if (o == Py_Ellipsis) return kind(ValueKind::kEllipsis);
  if (o == Py_NotImplemented) return kind(ValueKind::kNotImplemented);
  if (PyLong_CheckExact(o)) {
    int overflow = 0;
    value.number = PyLong_AsLongLongAndOverflow(o, &overflow);
    if (overflow == 0) return kind(ValueKind::kInt);
    const Ref text = Ref::steal(_PyLong_Format(o, 16));
    if (!text) return PyErr_Clear(), false;
    value.text = utf8(text.get());
    return kind(ValueKind::kLongInt);
  }
  if (PyFloat_CheckExact(o)) {
    const double number = PyFloat_AS_DOUBLE(o);
    std::memcpy(&value.number, &number, sizeof number);
    return kind(ValueKind::kFloat);
  }
  if (PyComplex_CheckExact(o)) {
    const Py_complex number = PyComplex_AsCComplex(o);
    std::memcpy(&value.number, &number.real, sizeof number.real);
    std::memcpy(&value.second, &number.imag, sizeof number.imag);
    return kind(ValueKind::kComplex);
  }
  if (PyUnicode_CheckExact(o)) {
    value.text = utf8(o);
    return (!value.text.empty() || PyUnicode_GET_LENGTH(o) == 0) && kind(ValueKind::kStr);
  }
  if (PyBytes_CheckExact(o)) {
    value.text.assign(PyBytes_AS_STRING(o), static_cast<size_t>(PyBytes_GET_SIZE(o)));
    return kind(ValueKind::kBytes);
  }
  if (rules().is_size(o) || PyTuple_CheckExact(o)) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(o); ++i) value.parts.push_back(add(PyTuple_GET_ITEM(o, i)));
    return kind(rules().is_size(o) ? ValueKind::kSize : ValueKind::kTuple);
  }
  if (PyFrozenSet_CheckExact(o)) {
    PyObject* item;
    Py_hash_t hash;
    for (Py_ssize_t pos = 0; _PySet_NextEntry(o, &pos, &item, &hash);) {
      if (!is_primitive(item)) return false;
      value.parts.push_back(add(item));
    }
    return kind(ValueKind::kFrozenSet);
  }
  if (PyRange_Check(o)) {
    for (const char* part : {"start", "stop", "step"}) {
      const Ref number = Ref::steal(PyObject_GetAttrString(o, part));
      if (!number) return PyErr_Clear(), false;
      value.parts.push_back(add(number.get()));
    }
    return kind(ValueKind::kRange);
  }
  if (PyModule_Check(o)) {
    value.text = module_name(o);
    if (imported(value.text) != o) value.text = spec_name(PyModule_GetDict(o));
    // Of a class that may be nowhere else.
    if (!PyModule_CheckExact(o)) value.parts = {add(as_object(Py_TYPE(o)))};
    return imported(value.text) == o && kind(ValueKind::kModule);
  }
  if (o == PyImport_GetModuleDict()) return kind(ValueKind::kModules);
  if (PyDict_CheckExact(o)) {
    PyObject* name = PyDict_GetItemString(o, "__name__");
    value.text = name == nullptr ? std::string() : utf8(name);
    PyObject* module = value.text.empty() ? nullptr : imported(value.text);
    if (value.text.empty()) return false;
    // Some modules put an object in their place when they are imported, others say that they are another one.
    if (module == nullptr || PyModule_GetDict(module) != o) {
      const std::string imported_as = spec_name(o);
      PyObject* other = imported_as.empty() ? nullptr : imported(imported_as);
      if (other != nullptr && PyModule_GetDict(other) == o) {
        value.text = imported_as;
        module = other;
      }
    }
    return kind(module != nullptr && PyModule_GetDict(module) == o ? ValueKind::kModuleDict
                                                                   : ValueKind::kGlobals);
  }
  if (PyType_Check(o)) return describe_type(reinterpret_cast<PyTypeObject*>(o), value);
  if (PyCode_Check(o)) {
    value.text = utf8(reinterpret_cast<PyCodeObject*>(o)->co_qualname);
    return fingerprint_code(o, &value.digest) && kind(ValueKind::kCode);
  }
  if (PyFunction_Check(o)) {
    auto* f = reinterpret_cast<PyFunctionObject*>(o);
    value.text = utf8(f->func_qualname);
    value.name = f->func_module == nullptr ? std::string() : utf8(f->func_module);
    for (PyObject* part : parts_of(f)) value.parts.push_back(add(part));
    return kind(ValueKind::kFunction);
  }
  if (PyCFunction_Check(o)) {
    const auto* f = reinterpret_cast<PyCFunctionObject*>(o);
    PyObject* self = PyCFunction_GET_SELF(o);
    value.text = f->m_ml->ml_name;
    value.name = f->m_module == nullptr ? std::string() : utf8(f->m_module);
    value.number = f->m_ml->ml_flags;
    if (value.text.empty()) value.text = path_of_overload(value.name, o);
    if (self != nullptr && rules().is_function_record(self))
      return find_record(value.name, value.text) == o && kind(ValueKind::kCFunction);
    value.parts = {add(self)};
    return kind(ValueKind::kCFunction);
  }
  if (const int which = index_in(kDescriptors, Py_TYPE(o)); which >= 0) {
    value.number = which;
    value.text = utf8(PyDescr_NAME(o));
    value.parts = {add(as_object(PyDescr_TYPE(o)))};
    return kind(ValueKind::kDescriptor);
  }
  if (const int which = index_in(kHolders, Py_TYPE(o)); which >= 0) {
    value.number = which;
    for (PyObject* held : held_by(o)) {
      if (held != nullptr && held != Py_None && !is_holdable(held)) return false;
      value.parts.push_back(add(held));
    }
    return kind(ValueKind::kHolder);
  }
  if (rules().is_lru_cache(o)) {
    // What it holds is asked for by the calls that were recorded.
    const auto* cached = reinterpret_cast<const py::CachedFunctionLayout*>(o);
    if (!PyFunction_Check(cached->function)) return false;
    const auto* function = reinterpret_cast<PyFunctionObject*>(cached->function);
    value.number = cached->maxsize;
    value.second = cached->typed;
    value.text = utf8(function->func_qualname);
    value.name = function->func_module == nullptr ? std::string() : utf8(function->func_module);
    value.parts = {add(cached->function)};
    return kind(ValueKind::kCachedFunction);
  }
  if (Py_IS_TYPE(o, &PyInstanceMethod_Type)) {
    PyObject* held = PyInstanceMethod_GET_FUNCTION(o);
    if (!PyCFunction_Check(held)) return false;
    value.text = reinterpret_cast<PyCFunctionObject*>(held)->m_ml->ml_name;
    for (size_t i = 0; i < values_.size(); ++i) {
      PyObject* owner = objects_[i].get();
      if (!PyType_Check(owner) || values_[i].kind != ValueKind::kType) continue;
      PyObject* dict = reinterpret_cast<PyTypeObject*>(owner)->tp_dict;
      if (dict == nullptr || PyDict_GetItemString(dict, value.text.c_str()) != o) continue;
      value.parts = {static_cast<ValueRef>(i + 1)};
      return kind(ValueKind::kInstanceMethod);
    }
    return false;
  }
  if (rules().is_enum_member(o)) {
    PyObject* dict = py::instance_dict(o);
    PyObject* name = dict == nullptr ? nullptr : PyDict_GetItemString(dict, "_name_");
    PyObject* content = dict == nullptr ? nullptr : PyDict_GetItemString(dict, "_value_");
    if (name == nullptr || content == nullptr || !PyUnicode_CheckExact(name) || !is_primitive(content))
      return false;
    value.text = utf8(name);
    value.parts = {add(as_object(Py_TYPE(o))), add(content)};
    return kind(ValueKind::kEnumMember) && find(value) == o;
  }
  if (is_alias(o)) {
    const std::vector<Ref> parts = alias_parts(o);
    for (const Ref& part : parts) value.parts.push_back(add(part.get()));
    return !parts.empty() && kind(ValueKind::kAlias);
  }
  // Whichever is there: guards say the rest of it, and it is another one than the other rows'.
  if (is_tensor(o)) return kind(ValueKind::kTensor);
  if (is_typing_form(o)) {
    PyObject *name, *found;
    for (Py_ssize_t pos = 0; PyDict_Next(PyModule_GetDict(imported("typing")), &pos, &name, &found);) {
      if (found == o) value.text = utf8(name);
    }
    return !value.text.empty() && find(Value{ValueKind::kTypingForm, 0, 0, value.text}) == o &&
           kind(ValueKind::kTypingForm);
  }
  if (is_singleton(o)) {
    value.text = repr_of(o);
    return find(Value{ValueKind::kSingleton, 0, 0, value.text}) == o && kind(ValueKind::kSingleton);
  }
  if (rules().is_value_type(Py_TYPE(o)) && std::string_view(Py_TYPE(o)->tp_name) == "torch.device") {
    value.text = repr_of(o);
    const Ref type = Ref::steal(PyObject_GetAttrString(o, "type"));
    const Ref index = Ref::steal(type ? PyObject_GetAttrString(o, "index") : nullptr);
    if (!index) return PyErr_Clear(), false;
    value.parts = {add(type.get()), add(index.get())};
    return kind(ValueKind::kDevice);
  }
  return false;
}

}  // namespace flashpoint::portable
