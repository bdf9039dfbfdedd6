#include "portable/abstract_classes.h"

#include <algorithm>
#include <string>
#include <vector>

namespace flashpoint::portable {

namespace {

PyObject* attribute_of(const char* module, const char* name) {
  PyObject* found = PyDict_GetItemString(PyImport_GetModuleDict(), module);
  return found != nullptr && PyModule_Check(found) ? PyDict_GetItemString(PyModule_GetDict(found), name)
                                                   : nullptr;
}

bool add_name(PyObject* cls, std::string& out) {
  if (!PyType_Check(cls)) return false;
  auto* type = reinterpret_cast<PyTypeObject*>(cls);
  const bool heap = PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE);
  PyObject* module = heap ? PyDict_GetItemString(type->tp_dict, "__module__") : nullptr;
  const char* first = module != nullptr && PyUnicode_Check(module) ? PyUnicode_AsUTF8(module) : "";
  const char* second =
      heap ? PyUnicode_AsUTF8(reinterpret_cast<PyHeapTypeObject*>(type)->ht_qualname) : type->tp_name;
  if (first == nullptr || second == nullptr) return PyErr_Clear(), false;
  out += std::string(first) + "." + second + ";";
  return true;
}

// The names of what was registered, in order.
bool add_registrations(PyObject* cls, std::string& out) {
  PyObject* dump = attribute_of("_abc", "_get_dump");
  const Ref state = Ref::steal(dump == nullptr ? nullptr : PyObject_CallOneArg(dump, cls));
  if (!state || !PyTuple_Check(state.get()) || PyTuple_GET_SIZE(state.get()) < 1) return PyErr_Clear(), false;
  PyObject* registry = PyTuple_GET_ITEM(state.get(), 0);
  if (!PyAnySet_Check(registry)) return registry == Py_None;
  std::vector<std::string> names;
  PyObject* item;
  Py_hash_t hash;
  for (Py_ssize_t pos = 0; _PySet_NextEntry(registry, &pos, &item, &hash);) {
    PyObject* registered = PyWeakref_CheckRef(item) ? PyWeakref_GET_OBJECT(item) : nullptr;
    if (registered == nullptr || registered == Py_None) continue;
    if (!add_name(registered, names.emplace_back())) return false;
  }
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) out += name;
  return true;
}

}  // namespace

bool fingerprint_abstract_classes(const Table& table, Digest* digest) {
  PyObject* meta = attribute_of("abc", "ABCMeta");
  if (meta == nullptr || !PyType_Check(meta)) return false;
  std::vector<Ref> classes;
  table.for_each_class([&](PyObject* cls) { classes.push_back(Ref::share(cls)); });
  std::vector<Ref> abstract;
  for (const Ref& cls : classes) {
    if (PyObject_TypeCheck(cls.get(), reinterpret_cast<PyTypeObject*>(meta))) abstract.push_back(cls);
  }
  for (PyTypeObject* type :
       {&PyList_Type,      &PyTuple_Type,     &PyDict_Type,       &PySet_Type,       &PyFrozenSet_Type,
        &PyUnicode_Type,   &PyLong_Type,      &PyFloat_Type,      &PyBool_Type,      &PyBytes_Type,
        &PyRange_Type,     &PySlice_Type,     &PyODict_Type,      &PyFunction_Type,  &PyCFunction_Type,
        &PyMethod_Type,    &PyModule_Type,    &PyType_Type,       &PyGen_Type,       &PyListIter_Type,
        &PyTupleIter_Type, &PyRangeIter_Type, &PyEnum_Type,       &PyZip_Type,       &PyMap_Type,
        &PyFilter_Type,    &PyDictKeys_Type,  &PyDictValues_Type, &PyDictItems_Type, &PyDictProxy_Type,
        &PyComplex_Type,   Py_TYPE(Py_None)})
    classes.push_back(Ref::share(reinterpret_cast<PyObject*>(type)));
  std::string text;
  for (const Ref& cls : abstract) {
    if (!add_name(cls.get(), text) || !add_registrations(cls.get(), text)) return false;
    for (const Ref& type : classes) {
      const int answer = PyObject_IsSubclass(type.get(), cls.get());
      if (answer < 0) return PyErr_Clear(), false;
      text += answer != 0 ? '1' : '0';
    }
  }
  *digest = store::sha256(text);
  return true;
}

}  // namespace flashpoint::portable
