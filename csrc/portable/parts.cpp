#include "portable/parts.h"

#include "py/layout.h"
#include "py/torch_bridge.h"

namespace flashpoint::portable {

std::string utf8(PyObject* text) {
  const Ref bytes =
      Ref::steal(PyUnicode_Check(text) ? PyUnicode_AsEncodedString(text, "utf-8", "surrogatepass") : nullptr);
  if (!bytes) return PyErr_Clear(), std::string();
  return {PyBytes_AS_STRING(bytes.get()), static_cast<size_t>(PyBytes_GET_SIZE(bytes.get()))};
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

std::string spec_name(PyObject* module_dict) {
  PyObject* spec = PyDict_GetItemString(module_dict, "__spec__");
  PyObject* dict = spec == nullptr ? nullptr : py::instance_dict(spec);
  PyObject* name = dict == nullptr ? nullptr : PyDict_GetItemString(dict, "name");
  return name == nullptr ? std::string() : utf8(name);
}

PyObject* find_record(const std::string& module, const std::string& name) {
  constexpr std::string_view kOperators = "torch._ops.";
  if (!module.starts_with(kOperators)) return find_by_name(module, name);
  const std::string path = module.substr(kOperators.size()) + "." + name + "._op";
  PyObject* found = find_by_name("torch", "ops");
  for (size_t at = 0, dot; found != nullptr && at < path.size(); at = dot + 1) {
    dot = std::min(path.find('.', at), path.size());
    PyObject* dict = py::instance_dict(found);
    found = dict == nullptr ? nullptr : PyDict_GetItemString(dict, path.substr(at, dot - at).c_str());
  }
  return found;
}

std::string path_of_overload(const std::string& module, PyObject* op) {
  constexpr std::string_view kOperators = "torch._ops.";
  PyObject* ops = find_by_name("torch", "ops");
  PyObject* dict = ops == nullptr || !module.starts_with(kOperators) ? nullptr : py::instance_dict(ops);
  PyObject* space =
      dict == nullptr ? nullptr : PyDict_GetItemString(dict, module.c_str() + kOperators.size());
  PyObject* packets = space == nullptr ? nullptr : py::instance_dict(space);
  PyObject *packet, *overload, *name, *overload_name;
  for (Py_ssize_t i = 0; packets != nullptr && PyDict_Next(packets, &i, &name, &packet);) {
    PyObject* overloads = py::instance_dict(packet);
    for (Py_ssize_t k = 0; overloads != nullptr && PyDict_Next(overloads, &k, &overload_name, &overload);) {
      PyObject* members = py::instance_dict(overload);
      if (members != nullptr && PyDict_GetItemString(members, "_op") == op)
        return utf8(name) + "." + utf8(overload_name);
    }
  }
  return {};
}

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
                                        &PyClassMethodDescr_Type,
                                        &PyListIter_Type,
                                        &PyListRevIter_Type,
                                        &PyTupleIter_Type,
                                        &PyRangeIter_Type,
                                        &PyLongRangeIter_Type,
                                        &PyUnicodeIter_Type,
                                        &PyDictIterKey_Type,
                                        &PyDictIterValue_Type,
                                        &PyDictIterItem_Type};
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

bool is_typing_form(PyObject* o) {
  PyObject* type = find_by_name("typing", "_SpecialForm");
  return type != nullptr && as_object(Py_TYPE(o)) == type;
}

bool is_alias(PyObject* o) {
  return Py_IS_TYPE(o, &Py_GenericAliasType) ||
         reinterpret_cast<PyObject*>(Py_TYPE(o)) == find_by_name("types", "UnionType");
}

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

bool is_holdable(PyObject* held) {
  return PyFunction_Check(held) || PyCFunction_Check(held) || PyType_Check(held);
}

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

}  // namespace flashpoint::portable
