// Methods of list, tuple, set and deque; hashes.
#include <string>
#include <string_view>

#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/graph_recorder.h"
#include "record/recorder.h"
#include "record/rules/rules.h"

namespace flashpoint {

// Methods that read their receiver and arguments: index, count, copy, and the set operations.
void Rules::read_list_method(Recorder& r, PyObject* const* argv, Py_ssize_t count) const {
  PyObject* self = count > 0 ? argv[0] : nullptr;
  if (self == nullptr) return;
  if (PyDictKeys_Check(self) || PyDictItems_Check(self)) {
    std::vector<PyObject*> elements;
    read_elements_of(r, PyDictItems_Check(self) ? py::view_dict(self) : self, elements);
    if (PyDictItems_Check(self)) r.read_addresses(py::view_dict(self));
    for (PyObject* element : elements) r.read_hash(element);
    for (Py_ssize_t i = 1; i < count && !r.ended(); ++i) {
      if (is_primitive(argv[i])) continue;
      if (PyIter_Check(argv[i])) return r.end(Break::k_identity_value, "keys and an iterator");
      elements.clear();
      read_elements_of(r, argv[i], elements);
      for (PyObject* element : elements) r.read_hash(element);
    }
    return;
  }
  if (PyAnySet_Check(self)) {
    r.read_elements(self);
    for (Py_ssize_t i = 1; i < count && !r.ended(); ++i) {
      if (is_primitive(argv[i])) continue;
      std::vector<PyObject*> elements;
      if (PyIter_Check(argv[i])) {
        // Elements nobody sees, compared with those of the set by address: those are then plain values.
        PyObject* item;
        Py_hash_t hash;
        Py_ssize_t pos = 0;
        while (_PySet_NextEntry(self, &pos, &item, &hash)) {
          if (!is_primitive(item)) return r.end(Break::k_identity_value, "a set of objects and an iterator");
        }
        r.read_iterable(argv[i]);
        continue;
      }
      read_elements_of(r, argv[i], elements);
      for (PyObject* element : elements) r.read_hash(element);
    }
    return;
  }
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (is_primitive(argv[i])) continue;
    if (i == 0) {
      r.read_deep(self);
    } else {
      r.read_iterable_if_container(argv[i]);
    }
  }
  if (count > 1 && !r.ended()) r.read_contains(self, argv[1]);
}

// Methods that change a list, dict or set as a whole.
void Rules::change_contents(Recorder& r, RuleRow row, PyObject* const* argv, Py_ssize_t count) const {
  PyObject* self = count > 0 ? argv[0] : nullptr;
  if (self == nullptr) return;
  const std::string_view name = row.name;
  if (PyAnySet_Check(self)) {
    read_list_method(r, argv, name.ends_with("discard") || name.ends_with("remove") ? 1 : count);
    if (name.ends_with("discard") || name.ends_with("remove")) {
      for (Py_ssize_t i = 1; i < count; ++i) r.read_hash(argv[i]);
    }
    if (name.ends_with("pop") && !r.ended()) r.read_iterable(self);  // takes the first in its order
    if (!r.ended()) r.write_contents(self);
    return;
  }
  for (Py_ssize_t i = 1; i < count; ++i) {
    if (PyFunction_Check(argv[i]) || PyMethod_Check(argv[i]) || PyCFunction_Check(argv[i])) {
      check_callback(r, argv[i]);
    } else {
      r.read_iterable_if_container(argv[i]);
    }
  }
  if (PyDict_Check(self)) {
    for (Py_ssize_t i = 1; i < count && !r.ended(); ++i) {
      r.read_mapping_methods(argv[i]);
      if (PyDict_Check(argv[i])) r.read_elements(argv[i]);
    }
    if (count > 1 && !PyDict_Check(argv[1])) r.read_hash(argv[1]);
    if (r.node_of(self) == kNoNode) r.read_object_keys(self);
  }
  if (name == "list.remove" && count > 1) {
    r.read_elements(self);
    r.read_contains(self, argv[1]);
  }
  const bool heaps = name.find("heap") != name.npos;
  if ((name == "list.sort" || heaps) && !r.ended()) {
    if (!PyList_Check(self)) return r.end(Break::k_unsupported_mutation, Py_TYPE(self)->tp_name);
    if (count > 1 && !heaps) r.read_results(2, true);  // of a key function
    r.read_elements(self);
    const auto compared = [&](PyObject* element) {
      if (is_primitive(element)) return;
      if (heaps && is_tensor(element)) return r.end(Break::k_tensor_data_as_python, "order of tensors");
      if (PyTuple_Check(element) || PyList_Check(element)) r.read_addresses(element);
      r.read_order(element);
    };
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(self); ++i) compared(PyList_GET_ITEM(self, i));
    for (Py_ssize_t i = 1; heaps && i < count; ++i) compared(argv[i]);
  }
  if (!r.ended()) r.write_contents(self);
}

// hash(o) as a value: a number that follows from guarded values, never an address.
void Rules::hash(Recorder& r, PyObject* o) const {
  if (!PyLong_CheckExact(o) && !PyFloat_CheckExact(o))
    r.keep_local("a hash, which differs between processes");
  auto is_value = [&](auto& self, PyObject* v) -> bool {
    if (is_primitive(v) || is_value_type(Py_TYPE(v))) return true;
    if (!PyTuple_CheckExact(v) && !PyFrozenSet_CheckExact(v))
      return PyType_Check(v) && Py_TYPE(v) == &PyType_Type;
    if (PyFrozenSet_CheckExact(v)) {
      PyObject* item;
      Py_hash_t hash;
      for (Py_ssize_t pos = 0; _PySet_NextEntry(v, &pos, &item, &hash);) {
        if (!is_primitive(item)) return false;
      }
      return true;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(v); ++i) {
      if (!self(self, PyTuple_GET_ITEM(v, i))) return false;
    }
    return true;
  };
  if (is_tensor(o)) return r.end(Break::k_identity_value, "hash() of a tensor");
  if (is_value(is_value, o))
    return r.read_deep(o) ? r.read_hash(o) : r.end(Break::k_identity_value, "hash()");
  if (PyTuple_CheckExact(o)) {
    if (r.node_of(o) != kNoNode) r.read_elements(o);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(o) && !r.ended(); ++i) hash(r, PyTuple_GET_ITEM(o, i));
    return;
  }
  if (PyType_HasFeature(Py_TYPE(o), Py_TPFLAGS_HEAPTYPE)) {
    PyObject* method = r.type_lookup(Py_TYPE(o), "__hash__");
    if (method != nullptr && PyFunction_Check(method)) return;
  }
  r.end(Break::k_identity_value, "hash()");
}

}  // namespace flashpoint
