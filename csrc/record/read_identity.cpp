// What C code compares or hashes by address: keys, elements of containers that are searched or compared.
//
// The guards on two arguments do not say whether they are one object, and Python code sees only `is` and
// `==`. C code looks at addresses in many more places: as keys, in searches, and as a shortcut before every
// comparison of two elements. Each such place ends up here. NaN is the one number for which the shortcut
// matters (it equals itself only as an object), and numbers have no identity here: it ends the recording.
#include <cmath>

#include "py/dicts.h"
#include "py/key_hash.h"
#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/recorder.h"
#include "record/rules/rules.h"

namespace flashpoint {

namespace {

bool is_nan(PyObject* o) {
  if (PyFloat_CheckExact(o)) return std::isnan(PyFloat_AS_DOUBLE(o));
  if (!PyComplex_CheckExact(o)) return false;
  const Py_complex value = PyComplex_AsCComplex(o);
  return std::isnan(value.real) || std::isnan(value.imag);
}

bool is_container(PyObject* o) {
  return PyTuple_Check(o) || PyList_Check(o) || PyDict_Check(o) || PyAnySet_Check(o) || rules().is_deque(o) ||
         PyDictKeys_Check(o) || PyDictValues_Check(o) || PyDictItems_Check(o);
}

}  // namespace

void Recorder::pin(PyObject* o) {
  const NodeId node = node_of(o);
  if (node != kNoNode && tree_.node(node).step != Step::kConst) tree_.check(node, CheckKind::kIs, o);
}

// Whether its address may be a constant of the recording: of an argument only where it names code, as any
// other is often another object at each call; and of nothing that is made in the call.
bool Recorder::may_pin(PyObject* o) const {
  if (is_primitive(o) || is_fresh_class(o)) return false;
  if (PyType_Check(o) || PyModule_Check(o)) return true;
  const NodeId node = node_of(o);
  if (node == kNoNode) return false;
  return tree_.node(node).step != Step::kArg || PyCallable_Check(o) != 0;
}

// What is told apart by address must stay apart: two arguments may be one object at the next call.
void Recorder::read_address(PyObject* o) {
  if (node_of(o) == kNoNode || !once(o, o, 6)) return;
  for (PyObject* other : identified_) read_identity(o, other);
  identified_.push_back(o);
  if (identified_.size() > 128) end(Break::k_too_large, "objects told apart by address");
}

void Recorder::expose_address(PyObject* o) {
  exposed_.insert(o);
  hold(o);
  read_address(o);
}

bool Recorder::is_exposed_address(PyObject* number) const {
  if (exposed_.empty() || !PyLong_CheckExact(number)) return false;
  auto* address = static_cast<PyObject*>(PyLong_AsVoidPtr(number));
  if (PyErr_Occurred() != nullptr) PyErr_Clear();
  return exposed_.contains(address);
}

void Recorder::read_addresses(PyObject* o, int depth) {
  if (ended_) return;
  if (is_primitive(o)) {
    if (is_nan(o)) end(Break::k_identity_value, "NaN, which equals itself only as an object");
    return;
  }
  if (PyType_Check(o) || PyModule_Check(o) || rules().is_size(o) || rules().is_singleton_type(Py_TYPE(o)) ||
      rules().is_value_type(Py_TYPE(o)) || rules().is_enum_member(o)) {
    return;
  }
  if (depth > 32) return end(Break::k_too_large, "a container nested too deeply");
  if (PyMethod_Check(o)) {
    read_address(o);
    read_addresses(PyMethod_GET_SELF(o), depth + 1);
    return read_addresses(PyMethod_GET_FUNCTION(o), depth + 1);
  }
  if (PyCFunction_Check(o)) {
    PyObject* self = PyCFunction_GET_SELF(o);
    if (self != nullptr) read_addresses(self, depth + 1);
    return;
  }
  if (is_container(o)) {
    shadow_.read_inside(o);
    read_address(o);  // of the container itself, before its elements
    if (PyDictKeys_Check(o) || PyDictValues_Check(o) || PyDictItems_Check(o)) o = py::view_dict(o);
    if (PyDict_Check(o)) {
      PyObject *key, *value;
      Py_ssize_t pos = 0;
      while (!ended_ && PyDict_Next(o, &pos, &key, &value)) {
        read_hash(key);
        read_addresses(value, depth + 1);
      }
    } else if (PyAnySet_Check(o)) {
      read_object_keys(o);
    } else if (PyList_Check(o) || PyTuple_Check(o)) {
      for (Py_ssize_t i = 0; i < Py_SIZE(o) && !ended_; ++i) {
        read_addresses(PyList_Check(o) ? PyList_GET_ITEM(o, i) : PyTuple_GET_ITEM(o, i), depth + 1);
      }
    } else {
      const Py_ssize_t n = py::stored_size(o);
      for (Py_ssize_t i = 0; i < n && !ended_; ++i) {
        Ref item = Ref::steal(PySequence_GetItem(o, i));
        if (!item) return PyErr_Clear();
        read_addresses(item.get(), depth + 1);
      }
    }
    return;
  }
  read_order(o);
  read_address(o);
}

// C code of its own compares it by what it holds, which nothing guards: dates, decimals, subclasses of
// numbers.
static bool compares_by_content(PyObject* o) {
  PyTypeObject* type = Py_TYPE(o);
  if (type->tp_richcompare == PyBaseObject_Type.tp_richcompare || is_tensor(o)) return false;
  // Told by address, or by what they refer to.
  if (rules().is_enum_member(o) || rules().is_value_type(type) || rules().is_singleton_type(type) ||
      PyObject_TypeCheck(o, &Py_GenericAliasType) || PyWeakref_Check(o) || PyMethod_Check(o) ||
      PyCFunction_Check(o) || type == &_PyMethodWrapper_Type)
    return false;
  static PyObject* const names[] = {PyUnicode_InternFromString("__eq__"),
                                    PyUnicode_InternFromString("__lt__")};
  for (PyObject* name : names) {
    PyObject* found = _PyType_Lookup(type, name);
    if (found != nullptr && Py_IS_TYPE(found, &PyWrapperDescr_Type) &&
        PyDescr_TYPE(found) != &PyBaseObject_Type)
      return true;
  }
  return false;
}

// What decides how C code compares an object.
void Recorder::read_order(PyObject* o) {
  if (compares_by_content(o) && !is_container(o))
    return end(Break::k_unsupported_container, std::string("comparison of ") + Py_TYPE(o)->tp_name);
  if (!PyType_HasFeature(Py_TYPE(o), Py_TPFLAGS_HEAPTYPE)) return;
  for (const char* name : {"__lt__", "__le__", "__eq__", "__ne__", "__gt__", "__ge__", "__hash__"})
    type_lookup(Py_TYPE(o), name);
}

void Recorder::read_compared(PyObject* a, PyObject* b) {
  for (PyObject* o : {a, b}) {
    if (is_container(o) || PyMethod_Check(o) || PyCFunction_Check(o)) {
      read_addresses(a);
      return read_addresses(b);
    }
  }
}

void Recorder::read_element_identity(PyObject* c, PyObject* item) {
  if (is_primitive(item)) {
    if (is_nan(item)) end(Break::k_identity_value, "a search for NaN");
    return;
  }
  if (!PyList_Check(c) && !PyTuple_Check(c)) {
    read_addresses(c);
    return read_addresses(item);
  }
  shadow_.read_inside(c);
  for (Py_ssize_t i = 0; i < Py_SIZE(c) && !ended_; ++i) {
    PyObject* element = PyList_Check(c) ? PyList_GET_ITEM(c, i) : PyTuple_GET_ITEM(c, i);
    if (!is_primitive(element)) read_identity(element, item);
    read_compared(element, item);
  }
}

// Keys of a container made in the call that are told apart by address or by code of their own.
void Recorder::read_object_keys(PyObject* c) {
  keep_hash_order_local(c);
  PyObject *key, *value;
  Py_hash_t hash;
  Py_ssize_t pos = 0;
  if (PyDict_Check(c)) {
    while (!ended_ && PyDict_Next(c, &pos, &key, &value)) read_hash(key);
  } else if (PyAnySet_Check(c)) {
    while (!ended_ && _PySet_NextEntry(c, &pos, &key, &hash)) read_hash(key);
  }
}

void Recorder::read_fresh_key(PyObject* c, PyObject* key) {
  shadow_.read_inside(c);
  if (is_primitive(key) && !is_nan(key)) return;
  read_object_keys(c);
  read_hash(key);
}

// The hash of an object that becomes a key: Python code, or its address (then only equality can be seen).
void Recorder::read_hash(PyObject* o) {
  if (is_primitive(o)) {
    if (is_nan(o)) end(Break::k_identity_value, "NaN as a key");
    return;
  }
  if (py::is_plain_tuple(o)) {
    if (node_of(o) != kNoNode) read_elements(o);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(o) && !ended_; ++i) read_hash(PyTuple_GET_ITEM(o, i));
    return;
  }
  if (PyFrozenSet_CheckExact(o)) {
    if (node_of(o) != kNoNode) read_elements(o);
    return ended_ ? void() : read_object_keys(o);
  }
  if (PyFunction_Check(o)) return pin(o);
  if (PyMethod_Check(o) || PyCFunction_Check(o)) return read_addresses(o);
  if (PyType_Check(o) || PyModule_Check(o) || rules().is_singleton_type(Py_TYPE(o)) ||
      rules().is_value_type(Py_TYPE(o))) {
    return;  // guarded as the very object, or equal by value
  }
  if (PyType_HasFeature(Py_TYPE(o), Py_TPFLAGS_HEAPTYPE)) {
    type_lookup(Py_TYPE(o), "__hash__");
    type_lookup(Py_TYPE(o), "__eq__");
  }
  if (compares_by_content(o) && !is_container(o))
    return end(Break::k_unsupported_container, std::string("a key of type ") + Py_TYPE(o)->tp_name);
  read_address(o);
}

void Recorder::read_inside(PyObject* o) {
  if (is_primitive(o) || PyType_Check(o)) return;
  if (is_tensor(o)) return read_operators_of(Py_TYPE(o));
  read_deep(o);
  if (ended_) return;
  if (!PyType_HasFeature(Py_TYPE(o), Py_TPFLAGS_HEAPTYPE)) return read_order(o);
  for (const char* name : {"__bool__", "__len__", "__add__", "__radd__", "__iter__"})
    type_lookup(Py_TYPE(o), name);
  read_order(o);
}

void Recorder::watch_lazily(PyObject* container) {
  if (lazy_.insert(container)) hold(container);
}

}  // namespace flashpoint
