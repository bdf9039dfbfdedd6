#include "portable/table.h"

#include <ATen/core/ivalue.h>

#include <cstring>
#include <string_view>

#include "guard/guard_tree.h"
#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/rules/rules.h"

namespace flashpoint::portable {

namespace {

using store::put_number;

constexpr bool kIdentity[] = {
#define X(name, identity, text) identity,
#include "portable/values.def"
#undef X
};
constexpr const char* kTexts[] = {
#define X(name, identity, text) text,
#include "portable/values.def"
#undef X
};

constexpr size_t kMaxParts = 1 << 16;
constexpr size_t kMaxText = 16 << 20;
constexpr size_t kMaxValues = 1 << 20;

std::string utf8(PyObject* text) {
  const Ref bytes =
      Ref::steal(PyUnicode_Check(text) ? PyUnicode_AsEncodedString(text, "utf-8", "surrogatepass") : nullptr);
  if (!bytes) return PyErr_Clear(), std::string();
  return {PyBytes_AS_STRING(bytes.get()), static_cast<size_t>(PyBytes_GET_SIZE(bytes.get()))};
}

PyObject* string_of(const std::string& bytes) {
  PyObject* text = PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "surrogatepass");
  // As names and constants of code are.
  if (text != nullptr && bytes.size() <= 256) PyUnicode_InternInPlace(&text);
  return text;
}

PyObject* imported(const std::string& name) {
  PyObject* modules = PyImport_GetModuleDict();
  PyObject* module = modules == nullptr ? nullptr : PyDict_GetItemString(modules, name.c_str());
  if (module != nullptr) return PyModule_Check(module) ? module : nullptr;
  PyErr_Clear();
  // Modules of C code that are attributes only.
  const size_t dot = name.rfind('.');
  PyObject* parent = dot == std::string::npos ? nullptr : imported(name.substr(0, dot));
  module =
      parent == nullptr ? nullptr : PyDict_GetItemString(PyModule_GetDict(parent), name.c_str() + dot + 1);
  return module != nullptr && PyModule_Check(module) ? module : nullptr;
}

std::string module_name(PyObject* module) {
  PyObject* name = PyDict_GetItemString(PyModule_GetDict(module), "__name__");
  return name == nullptr ? std::string() : utf8(name);
}

constexpr PyTypeObject* kDescriptors[] = {&PyMethodDescr_Type, &PyWrapperDescr_Type, &PyGetSetDescr_Type,
                                          &PyMemberDescr_Type, &PyClassMethodDescr_Type};
constexpr PyTypeObject* kHolders[] = {&PyProperty_Type, &PyStaticMethod_Type, &PyClassMethod_Type};

template <size_t N>
int index_in(PyTypeObject* const (&types)[N], PyTypeObject* type) {
  for (size_t i = 0; i < N; ++i) {
    if (types[i] == type) return static_cast<int>(i);
  }
  return -1;
}

// Types of C code that no module holds under their name.
PyTypeObject* unlisted_type(std::string_view name) {
  static PyTypeObject* const types[] = {&PyFunction_Type,
                                        &PyMethod_Type,
                                        &PyCFunction_Type,
                                        &PyCode_Type,
                                        &PyCell_Type,
                                        &PyModule_Type,
                                        &PyDictProxy_Type,
                                        &PyGen_Type,
                                        &PyMethodDescr_Type,
                                        &PyWrapperDescr_Type,
                                        &PyGetSetDescr_Type,
                                        &PyMemberDescr_Type,
                                        &PyDictKeys_Type,
                                        &PyDictValues_Type,
                                        &PyDictItems_Type,
                                        Py_TYPE(Py_None),
                                        Py_TYPE(Py_Ellipsis),
                                        Py_TYPE(Py_NotImplemented),
                                        &PyClassMethodDescr_Type};
  for (PyTypeObject* type : types) {
    if (name == type->tp_name) return type;
  }
  return nullptr;
}

bool is_singleton(PyObject* o) {
  static PyTypeObject* const types[] = {Py_TYPE(wrap_dtype(c10::ScalarType::Float)),
                                        Py_TYPE(wrap_layout(c10::Layout::Strided)),
                                        Py_TYPE(wrap_memory_format(c10::MemoryFormat::Contiguous))};
  for (PyTypeObject* type : types) {
    if (Py_TYPE(o) == type) return true;
  }
  return false;
}

// X | Y and list[X], as the interpreter makes them.
bool is_alias(PyObject* o) {
  return Py_IS_TYPE(o, &Py_GenericAliasType) ||
         reinterpret_cast<PyObject*>(Py_TYPE(o)) == find_by_name("types", "UnionType");
}

// Its type, what it is made of; nothing where it has something else to say.
std::vector<Ref> alias_parts(PyObject* o) {
  const Ref arguments = Ref::steal(PyObject_GetAttrString(o, "__args__"));  // members of C types
  const Ref origin = Py_IS_TYPE(o, &Py_GenericAliasType) ? Ref::steal(PyObject_GetAttrString(o, "__origin__"))
                                                         : Ref::share(Py_None);
  if (!arguments || !origin || !PyTuple_CheckExact(arguments.get())) return PyErr_Clear(), std::vector<Ref>();
  return {Ref::share(reinterpret_cast<PyObject*>(Py_TYPE(o))), origin, arguments};
}

std::string repr_of(PyObject* singleton) {
  const Ref text = Ref::steal(Py_TYPE(singleton)->tp_repr(singleton));  // C code of torch
  if (!text) return PyErr_Clear(), std::string();
  return utf8(text.get());
}

std::vector<PyObject*> held_by(PyObject* holder) {
  if (!PyObject_TypeCheck(holder, &PyProperty_Type)) return {py::held_callable(holder)};
  const auto* property = reinterpret_cast<py::PropertyLayout*>(holder);
  return {property->getter, property->setter, property->deleter};
}

// All that calling it depends on: code, globals, defaults by position and name, what its closure holds.
std::vector<PyObject*> parts_of(PyFunctionObject* f) {
  std::vector<PyObject*> parts = {f->func_code, f->func_globals, f->func_defaults};
  PyObject *name, *value;
  for (Py_ssize_t pos = 0;
       f->func_kwdefaults != nullptr && PyDict_Next(f->func_kwdefaults, &pos, &name, &value);) {
    parts.push_back(name);
    parts.push_back(value);
  }
  const Py_ssize_t cells = f->func_closure == nullptr ? 0 : PyTuple_GET_SIZE(f->func_closure);
  for (Py_ssize_t i = 0; i < cells; ++i) parts.push_back(PyCell_GET(PyTuple_GET_ITEM(f->func_closure, i)));
  return parts;
}

std::string type_module(PyTypeObject* type) {
  if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) {
    const std::string_view name = type->tp_name;
    const size_t dot = name.rfind('.');
    return dot == std::string_view::npos ? "builtins" : std::string(name.substr(0, dot));
  }
  PyObject* module = PyDict_GetItemString(type->tp_dict, "__module__");
  return module == nullptr ? std::string() : utf8(module);
}

std::string type_name(PyTypeObject* type) {
  if (PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE))
    return utf8(reinterpret_cast<PyHeapTypeObject*>(type)->ht_qualname);
  const std::string_view name = type->tp_name;
  return std::string(name.substr(name.rfind('.') + 1));
}

PyObject* as_object(PyTypeObject* type) { return reinterpret_cast<PyObject*>(type); }

}  // namespace

PyObject* find_by_name(const std::string& module, const std::string& path) {
  PyObject* where = imported(module);
  if (where == nullptr || path.empty()) return nullptr;
  PyObject* object = nullptr;
  for (size_t at = 0; at <= path.size();) {
    const size_t dot = std::min(path.find('.', at), path.size());
    PyObject* dict = object == nullptr        ? PyModule_GetDict(where)
                     : PyType_Check(object)   ? reinterpret_cast<PyTypeObject*>(object)->tp_dict
                     : PyModule_Check(object) ? PyModule_GetDict(object)
                                              : nullptr;
    object = dict == nullptr ? nullptr : PyDict_GetItemString(dict, path.substr(at, dot - at).c_str());
    if (object == nullptr) return nullptr;
    at = dot + 1;
  }
  return object;
}

bool has_identity(ValueKind kind) { return kIdentity[static_cast<size_t>(kind)]; }

std::string name_of_value(const Value& value) {
  std::string out = kTexts[static_cast<size_t>(value.kind)];
  if (!value.text.empty()) out += " " + (value.name.empty() ? "" : value.name + ".") + value.text;
  return out;
}

ValueRef Table::fail(std::string why) {
  if (failure_.empty()) failure_ = std::move(why);
  return 0;
}

bool Table::differs(const Value& value, const char* what) {
  if (why_.empty()) why_ = name_of_value(value) + ": " + what;
  return false;
}

ValueRef Table::add(PyObject* object) {
  if (object == nullptr || !failure_.empty()) return 0;
  if (const ValueRef* known = index_.find(object)) return *known;
  Value value;
  // Values come behind what they are made of. Descriptions come first, since classes refer to themselves.
  const bool compound = PyTuple_Check(object) || PyRange_Check(object) || PyFrozenSet_CheckExact(object) ||
                        std::string_view(Py_TYPE(object)->tp_name) == "torch.device";
  const auto unknown = [&] {
    return fail(std::string("an object of type ") + Py_TYPE(object)->tp_name + " has no portable form");
  };
  if (compound && !describe(object, value)) return unknown();
  const auto ref = static_cast<ValueRef>(values_.size() + 1);
  index_.try_emplace(object, ref);
  values_.emplace_back();
  objects_.push_back(Ref::share(object));
  ready_.push_back(false);
  if (!compound && !describe(object, value)) return unknown();
  values_[ref - 1] = std::move(value);
  return ref;
}

ValueRef Table::add_constant(ValueRef code, Py_ssize_t index, PyObject* object) {
  const auto ref = static_cast<ValueRef>(values_.size() + 1);
  if (const auto [known, added] = index_.try_emplace(object, ref); !added) return *known;
  Value value;
  value.kind = ValueKind::kCodeConstant;
  value.number = index;
  value.parts = {code};
  values_.push_back(std::move(value));
  objects_.push_back(Ref::share(object));
  ready_.push_back(false);
  return ref;
}

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
    // Some modules put an object in their place when they are imported.
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
    for (PyObject* part : parts_of(f)) value.parts.push_back(add(part));
    return kind(ValueKind::kFunction);
  }
  if (PyCFunction_Check(o)) {
    const auto* f = reinterpret_cast<PyCFunctionObject*>(o);
    PyObject* self = PyCFunction_GET_SELF(o);
    value.text = f->m_ml->ml_name;
    value.name = f->m_module == nullptr ? std::string() : utf8(f->m_module);
    value.number = f->m_ml->ml_flags;
    if (self != nullptr && rules().is_function_record(self))
      return find_by_name(value.name, value.text) == o && kind(ValueKind::kCFunction);
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
      if (held != nullptr && held != Py_None && !PyFunction_Check(held)) return false;
      value.parts.push_back(add(held));
    }
    return kind(ValueKind::kHolder);
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

void Table::mark_taken(ValueRef ref) {
  if (ref == 0 || ready_[ref - 1]) return;
  ready_[ref - 1] = true;
  // What taking it checks is taken with it.
  for (const ValueRef part : std::vector<ValueRef>(values_[ref - 1].parts)) mark_taken(part);
}

bool Table::is_obtainable(ValueRef ref) {
  if (ref == 0 || ready_[ref - 1]) return true;
  const Value& value = values_[ref - 1];
  if (!has_identity(value.kind)) {
    for (const ValueRef part : value.parts) {
      if (!is_obtainable(part)) return false;
    }
    return true;
  }
  if (value.kind != ValueKind::kType && value.kind != ValueKind::kFunction) {
    for (const ValueRef part : std::vector<ValueRef>(value.parts)) {
      if (!is_obtainable(part)) return false;
    }
  }
  if (find(values_[ref - 1]) != objects_[ref - 1].get()) return false;
  mark_taken(ref);
  return true;
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
      if (value.parts.empty() || value.parts[0] == 0) return find_by_name(value.name, value.text);
      PyObject* self = obtain(value.parts[0]);
      return self == nullptr        ? nullptr
             : PyModule_Check(self) ? PyDict_GetItemString(PyModule_GetDict(self), value.text.c_str())
                                    : nullptr;
    }
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
    default:
      return nullptr;
  }
}

void Table::write(std::string& out) const {
  put_number<uint32_t>(out, static_cast<uint32_t>(values_.size()));
  for (const Value& value : values_) {
    put_number<uint8_t>(out, static_cast<uint8_t>(value.kind));
    const bool with_digest = value.kind == ValueKind::kType || value.kind == ValueKind::kCode;
    const uint8_t has = static_cast<uint8_t>((value.number != 0 ? 1 : 0) | (value.second != 0 ? 2 : 0) |
                                             (!value.text.empty() ? 4 : 0) | (!value.name.empty() ? 8 : 0) |
                                             (with_digest ? 16 : 0) | (!value.parts.empty() ? 32 : 0));
    put_number<uint8_t>(out, has);
    if (value.number != 0) put_number<int64_t>(out, value.number);
    if (value.second != 0) put_number<int64_t>(out, value.second);
    for (const std::string* text : {&value.text, &value.name}) {
      if (text->empty()) continue;
      put_number<uint32_t>(out, static_cast<uint32_t>(text->size()));
      out += *text;
    }
    if (with_digest) store::put_digest(out, value.digest);
    if (value.parts.empty()) continue;
    put_number<uint32_t>(out, static_cast<uint32_t>(value.parts.size()));
    for (const ValueRef part : value.parts) put_number<uint32_t>(out, part);
  }
}

bool Table::parse(store::Reader& reader) {
  const auto count = reader.number<uint32_t>();
  if (!reader.ok() || count > kMaxValues || count > reader.left()) return false;
  values_.resize(count);
  objects_.resize(count);
  ready_.resize(count);
  for (uint32_t row = 0; row < count; ++row) {
    Value& value = values_[row];
    const auto kind = reader.number<uint8_t>();
    const auto has = reader.number<uint8_t>();
    if (!reader.ok() || kind >= kValueKinds || has >= 64) return false;
    value.kind = static_cast<ValueKind>(kind);
    if (has & 1) value.number = reader.number<int64_t>();
    if (has & 2) value.second = reader.number<int64_t>();
    for (std::string* text : {&value.text, &value.name}) {
      if (!(has & (text == &value.text ? 4 : 8))) continue;
      const auto size = reader.number<uint32_t>();
      if (size > kMaxText) return false;
      *text = reader.take(size);
    }
    if (has & 16) value.digest = reader.digest();
    if (has & 32) {
      const auto parts = reader.number<uint32_t>();
      if (parts > kMaxParts || parts * sizeof(uint32_t) > reader.left()) return false;
      for (uint32_t i = 0; i < parts; ++i) value.parts.push_back(reader.number<uint32_t>());
    }
    if (!reader.ok()) return false;
    for (const ValueRef part : value.parts) {
      // Values are made of earlier ones, so that making them ends; descriptions may refer to each other.
      if (part > count || (!has_identity(value.kind) && part > row)) return false;
    }
  }
  return true;
}

Ref Table::make(const Value& value) {
  const auto number = [](int64_t bits) {
    double real;
    std::memcpy(&real, &bits, sizeof real);
    return real;
  };
  const auto part = [&](size_t i) { return i < value.parts.size() ? obtain(value.parts[i]) : nullptr; };
  switch (value.kind) {
    case ValueKind::kNone:
      return Ref::share(Py_None);
    case ValueKind::kTrue:
      return Ref::share(Py_True);
    case ValueKind::kFalse:
      return Ref::share(Py_False);
    case ValueKind::kEllipsis:
      return Ref::share(Py_Ellipsis);
    case ValueKind::kNotImplemented:
      return Ref::share(Py_NotImplemented);
    case ValueKind::kInt:
      return Ref::steal(PyLong_FromLongLong(value.number));
    case ValueKind::kLongInt:
      return Ref::steal(PyLong_FromString(value.text.c_str(), nullptr, 16));
    case ValueKind::kFloat:
      return Ref::steal(PyFloat_FromDouble(number(value.number)));
    case ValueKind::kComplex:
      return Ref::steal(PyComplex_FromDoubles(number(value.number), number(value.second)));
    case ValueKind::kStr:
      return Ref::steal(string_of(value.text));
    case ValueKind::kBytes:
      return Ref::steal(
          PyBytes_FromStringAndSize(value.text.data(), static_cast<Py_ssize_t>(value.text.size())));
    case ValueKind::kFrozenSet:
    case ValueKind::kTuple:
    case ValueKind::kSize: {
      Ref tuple = Ref::steal(PyTuple_New(static_cast<Py_ssize_t>(value.parts.size())));
      for (size_t i = 0; tuple && i < value.parts.size(); ++i) {
        PyObject* item = part(i);
        if (item == nullptr) return Ref();
        if (value.kind == ValueKind::kSize && !PyLong_CheckExact(item)) return Ref();
        PyTuple_SET_ITEM(tuple.get(), static_cast<Py_ssize_t>(i), Py_NewRef(item));
      }
      if (!tuple || value.kind == ValueKind::kTuple) return tuple;
      if (value.kind == ValueKind::kFrozenSet) return Ref::steal(PyFrozenSet_New(tuple.get()));
      PyObject* size = find_by_name("torch", "Size");
      return size == nullptr ? Ref() : Ref::steal(PyObject_CallOneArg(size, tuple.get()));
    }
    case ValueKind::kRange: {
      PyObject *start = part(0), *stop = part(1), *step = part(2);
      if (start == nullptr || stop == nullptr || step == nullptr) return Ref();
      return Ref::steal(PyObject_CallFunctionObjArgs(reinterpret_cast<PyObject*>(&PyRange_Type), start, stop,
                                                     step, nullptr));
    }
    case ValueKind::kDevice: {
      PyObject *type = part(0), *index = part(1), *device = find_by_name("torch", "device");
      if (type == nullptr || index == nullptr || device == nullptr || !PyUnicode_CheckExact(type))
        return Ref();
      return Ref::steal(index == Py_None ? PyObject_CallOneArg(device, type)
                                         : PyObject_CallFunctionObjArgs(device, type, index, nullptr));
    }
    default:
      return Ref();
  }
}

PyObject* Table::obtain(ValueRef ref) {
  if (!is_valid(ref) || ref == 0) return nullptr;
  if (ready_[ref - 1]) return objects_[ref - 1].get();
  const Value& value = values_[ref - 1];
  if (!has_identity(value.kind)) {
    Ref made = make(value);
    if (!made) {
      PyErr_Clear();
      differs(value, "cannot be made");
      return nullptr;
    }
    objects_[ref - 1] = std::move(made);
    ready_[ref - 1] = true;
    return objects_[ref - 1].get();
  }
  PyObject* found = find(value);
  if (found == nullptr) {
    PyErr_Clear();
    differs(value, "is not there");
    return nullptr;
  }
  return take(ref, found) ? found : nullptr;
}

bool Table::take(ValueRef ref, PyObject* object) {
  if (!is_valid(ref) || ref == 0 || object == nullptr) return false;
  if (ready_[ref - 1]) {
    return objects_[ref - 1].get() == object || differs(values_[ref - 1], "is another object");
  }
  const Value& value = values_[ref - 1];
  if (!has_identity(value.kind)) return false;
  if (const auto [known, added] = index_.try_emplace(object, ref); !added && *known != ref)
    return differs(value, "is the same object as another one");
  ready_[ref - 1] = true;
  objects_[ref - 1] = Ref::share(object);
  return matches(value, object);
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
      bool same = value.text == f->m_ml->ml_name && value.number == f->m_ml->ml_flags && value.name == module;
      if (same && value.parts.empty()) {
        same =
            self != nullptr && rules().is_function_record(self) && find_by_name(value.name, value.text) == o;
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
