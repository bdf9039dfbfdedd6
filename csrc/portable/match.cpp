// Table: reading. Where an object of each kind is found by name, and whether one is what a row describes.
#include "guard/guard_tree.h"
#include "portable/parts.h"
#include "portable/table.h"
#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/rules/rules.h"

namespace flashpoint::portable {

// What the caches of typing wrap, which no guard leads to: by name, and the one with this code. Functions of
// others may depend on what was registered where.
PyObject* Table::find_function(const Value& value) const {
  if (value.name != "typing" || value.parts.empty() || !is_kind(value.parts[0], ValueKind::kCode))
    return nullptr;
  PyObject* found = find_by_name(value.name, value.text);
  for (int depth = 0; found != nullptr && depth < 8; ++depth) {
    Digest digest;
    if (PyFunction_Check(found) && fingerprint_code(PyFunction_GET_CODE(found), &digest) &&
        digest == values_[value.parts[0] - 1].digest)
      return found;
    PyObject* dict = PyFunction_Check(found) ? reinterpret_cast<PyFunctionObject*>(found)->func_dict
                                             : py::instance_dict(found);
    found = dict == nullptr ? nullptr : PyDict_GetItemString(dict, "__wrapped__");
  }
  return nullptr;
}

// A code object's constant: found again through the code, which must be there already.
PyObject* Table::find(const Value& value) {
  switch (value.kind) {
    case ValueKind::kRoot:
      return root_;
    case ValueKind::kModule:
      return imported(value.text);
    case ValueKind::kModuleDict: {
      PyObject* module = imported(value.text);
      return module == nullptr ? nullptr : PyModule_GetDict(module);
    }
    case ValueKind::kModules:
      return PyImport_GetModuleDict();
    case ValueKind::kType:
      if (value.name == "builtins") {
        if (PyTypeObject* type = unlisted_type(value.text)) return as_object(type);
      }
      return find_by_name(value.name, value.text);
    case ValueKind::kCodeConstant: {
      PyObject* code = value.parts.size() == 1 ? obtain(value.parts[0]) : nullptr;
      if (code == nullptr || !PyCode_Check(code)) return nullptr;
      PyObject* constants = reinterpret_cast<PyCodeObject*>(code)->co_consts;
      return value.number < 0 || value.number >= PyTuple_GET_SIZE(constants)
                 ? nullptr
                 : PyTuple_GET_ITEM(constants, value.number);
    }
    case ValueKind::kCFunction: {
      if (value.parts.empty()) return find_record(value.name, value.text);
      if (value.parts[0] == 0) return find_by_name(value.name, value.text);
      PyObject* self = obtain(value.parts[0]);
      return self == nullptr        ? nullptr
             : PyModule_Check(self) ? PyDict_GetItemString(PyModule_GetDict(self), value.text.c_str())
                                    : nullptr;
    }
    case ValueKind::kInstanceMethod:
    case ValueKind::kDescriptor: {
      PyObject* owner = value.parts.size() == 1 ? obtain(value.parts[0]) : nullptr;
      if (owner == nullptr || !PyType_Check(owner)) return nullptr;
      return PyDict_GetItemString(reinterpret_cast<PyTypeObject*>(owner)->tp_dict, value.text.c_str());
    }
    case ValueKind::kEnumMember: {
      PyObject* owner = value.parts.size() == 2 ? obtain(value.parts[0]) : nullptr;
      PyObject* members =
          owner == nullptr || !PyType_Check(owner)
              ? nullptr
              : PyDict_GetItemString(reinterpret_cast<PyTypeObject*>(owner)->tp_dict, "_member_map_");
      return members == nullptr || !PyDict_Check(members) ? nullptr
                                                          : PyDict_GetItemString(members, value.text.c_str());
    }
    case ValueKind::kSingleton: {
      const size_t dot = value.text.find('.');
      return dot == std::string::npos || value.text.substr(0, dot) != "torch"
                 ? nullptr
                 : find_by_name("torch", value.text.substr(dot + 1));
    }
    case ValueKind::kFunction:
      return find_function(value);
    case ValueKind::kCachedFunction: {
      PyObject* found = find_by_name(value.name, value.text);
      return found != nullptr && rules().is_lru_cache(found) ? found : nullptr;
    }
    case ValueKind::kTypingForm: {
      PyObject* found = find_by_name("typing", value.text);
      return found != nullptr && is_typing_form(found) ? found : nullptr;
    }
    default:
      return nullptr;
  }
}

bool Table::is_another_class(ValueRef ref, PyTypeObject* type) {
  if (!is_kind(ref, ValueKind::kType)) return false;
  const Value& recorded = values_[ref - 1];
  return ready_[ref - 1] ? objects_[ref - 1].get() != as_object(type)
                         : recorded.text != type_name(type) || recorded.name != type_module(type);
}

bool Table::matches_type(const Value& value, PyTypeObject* type) {
  if (type_name(type) != value.text || type_module(type) != value.name)
    return differs(value, ("is another class now, " + type_name(type)).c_str());
  if (type->tp_mro == nullptr ||
      value.parts.size() != static_cast<size_t>(PyTuple_GET_SIZE(type->tp_mro)) + 1)
    return differs(value, "has other base classes");
  if (fingerprint_type(type) != value.digest) return differs(value, "is defined otherwise");
  if (!take(value.parts[0], as_object(Py_TYPE(type)))) return differs(value, "has another metaclass");
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(type->tp_mro); ++i) {
    if (!take(value.parts[static_cast<size_t>(i) + 1], PyTuple_GET_ITEM(type->tp_mro, i)))
      return differs(value, "has other base classes");
  }
  return true;
}

// Of a part that was described with its owner: the object itself, or an equal value.
bool Table::is_same(ValueRef ref, PyObject* found) {
  if (ref == 0 || found == nullptr) return ref == 0 && found == nullptr;
  const Value& value = values_[ref - 1];
  if (has_identity(value.kind)) return take(ref, found);
  if (value.kind == ValueKind::kTuple) {
    if (!PyTuple_CheckExact(found) || static_cast<size_t>(PyTuple_GET_SIZE(found)) != value.parts.size())
      return false;
    for (size_t i = 0; i < value.parts.size(); ++i) {
      if (!is_same(value.parts[i], PyTuple_GET_ITEM(found, static_cast<Py_ssize_t>(i)))) return false;
    }
    return true;
  }
  PyObject* recorded = obtain(ref);
  if (recorded == nullptr) return false;
  if (PyFrozenSet_CheckExact(recorded) && PyFrozenSet_CheckExact(found)) {
    const int equal = PyObject_RichCompareBool(recorded, found, Py_EQ);
    if (equal < 0) PyErr_Clear();
    return equal == 1;
  }
  return is_primitive(recorded) && primitives_equal(recorded, found);
}

bool Table::matches(const Value& value, PyObject* o) {
  const auto part = [&](size_t i, PyObject* found) {
    if (i >= value.parts.size()) return false;
    if (value.parts[i] == 0 || found == nullptr) return value.parts[i] == 0 && found == nullptr;
    return has_identity(values_[value.parts[i] - 1].kind) ? take(value.parts[i], found)
                                                          : obtain(value.parts[i]) == found;
  };
  switch (value.kind) {
    case ValueKind::kRoot:
      return o == root_;
    case ValueKind::kModule:
      return (PyModule_Check(o) && imported(value.text) == o &&
              (value.parts.empty() ? PyModule_CheckExact(o) : part(0, as_object(Py_TYPE(o))))) ||
             differs(value, "is another module");
    case ValueKind::kModuleDict:
    case ValueKind::kModules:
    case ValueKind::kSingleton:
    case ValueKind::kTypingForm:
      return find(value) == o || differs(value, "is another object");
    case ValueKind::kGlobals: {
      PyObject* name = PyDict_CheckExact(o) ? PyDict_GetItemString(o, "__name__") : nullptr;
      return (name != nullptr && utf8(name) == value.text) || differs(value, "are others");
    }
    case ValueKind::kType:
      return PyType_Check(o) ? matches_type(value, reinterpret_cast<PyTypeObject*>(o))
                             : differs(value, "is no class any more");
    case ValueKind::kCode: {
      Digest digest;
      if (PyCode_Check(o) && fingerprint_code(o, &digest) && digest == value.digest) return true;
      return differs(value, "the source has changed");
    }
    case ValueKind::kCodeConstant:
      return find(value) == o;
    case ValueKind::kTensor:
      return is_tensor(o) || differs(value, "is no tensor any more");
    case ValueKind::kFunction: {
      if (!PyFunction_Check(o)) return differs(value, "is no function any more");
      const std::vector<PyObject*> parts = parts_of(reinterpret_cast<PyFunctionObject*>(o));
      bool same = parts.size() == value.parts.size();
      for (size_t i = 0; same && i < parts.size(); ++i) same = is_same(value.parts[i], parts[i]);
      return same || differs(value, "has other defaults, or another closure");
    }
    case ValueKind::kCFunction: {
      if (!PyCFunction_Check(o)) return differs(value, "is no C function any more");
      const auto* f = reinterpret_cast<PyCFunctionObject*>(o);
      PyObject* self = PyCFunction_GET_SELF(o);
      const std::string module = f->m_module == nullptr ? std::string() : utf8(f->m_module);
      // What calls one overload has no name of its own.
      const bool named = *f->m_ml->ml_name != 0 || !value.parts.empty();
      bool same = (!named || value.text == f->m_ml->ml_name) && value.number == f->m_ml->ml_flags &&
                  value.name == module;
      if (same && value.parts.empty()) {
        same =
            self != nullptr && rules().is_function_record(self) && find_record(value.name, value.text) == o;
      } else if (same && value.parts[0] != 0 && self != nullptr &&
                 !has_identity(values_[value.parts[0] - 1].kind)) {
        same = is_same(value.parts[0], self);
      } else if (same) {
        same = part(0, self);
      }
      return same || differs(value, "is another C function");
    }
    case ValueKind::kDescriptor: {
      const int which = index_in(kDescriptors, Py_TYPE(o));
      return (which == value.number && which >= 0 && utf8(PyDescr_NAME(o)) == value.text &&
              part(0, as_object(PyDescr_TYPE(o)))) ||
             differs(value, "is another descriptor");
    }
    case ValueKind::kInstanceMethod:
      return (Py_IS_TYPE(o, &PyInstanceMethod_Type) && PyCFunction_Check(PyInstanceMethod_GET_FUNCTION(o)) &&
              find(value) == o) ||
             differs(value, "is another method");
    case ValueKind::kHolder: {
      if (value.number < 0 || value.number >= 3 || Py_TYPE(o) != kHolders[value.number])
        return differs(value, "is another descriptor");
      const std::vector<PyObject*> held = held_by(o);
      if (held.size() != value.parts.size()) return false;
      for (size_t i = 0; i < held.size(); ++i) {
        if (held[i] == Py_None && is_kind(value.parts[i], ValueKind::kNone)) continue;
        if (!part(i, held[i])) return differs(value, "holds another function");
      }
      return true;
    }
    case ValueKind::kCachedFunction: {
      if (!rules().is_lru_cache(o)) return differs(value, "is no functools.lru_cache any more");
      const auto* cached = reinterpret_cast<const py::CachedFunctionLayout*>(o);
      return (cached->maxsize == value.number && cached->typed == value.second && value.parts.size() == 1 &&
              part(0, cached->function)) ||
             differs(value, "is made otherwise");
    }
    case ValueKind::kAlias: {
      const std::vector<Ref> parts = is_alias(o) ? alias_parts(o) : std::vector<Ref>();
      bool same = !parts.empty() && parts.size() == value.parts.size();
      for (size_t i = 0; same && i < parts.size(); ++i) same = is_same(value.parts[i], parts[i].get());
      return same || differs(value, "is made of other classes");
    }
    case ValueKind::kEnumMember: {
      PyObject* dict = rules().is_enum_member(o) ? py::instance_dict(o) : nullptr;
      PyObject* content = dict == nullptr ? nullptr : PyDict_GetItemString(dict, "_value_");
      if (content == nullptr || value.parts.size() != 2 || !part(0, as_object(Py_TYPE(o))))
        return differs(value, "is no member any more");
      PyObject* recorded = obtain(value.parts[1]);
      return (recorded != nullptr && is_primitive(content) && primitives_equal(recorded, content) &&
              find(value) == o) ||
             differs(value, "has another value");
    }
    default:
      return false;
  }
}

}  // namespace flashpoint::portable
