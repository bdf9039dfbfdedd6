#include "py/key_hash.h"

#include "py/layout.h"
#include "py/ref.h"
#include "py/torch_bridge.h"

namespace flashpoint::py {

namespace {

// enum.Enum, whose hash is that of the member's name.
struct Enumerations {
  PyTypeObject* base = nullptr;
  PyObject* hash = nullptr;
  PyObject* hash_name = PyUnicode_InternFromString("__hash__");
  PyObject* equals_name = PyUnicode_InternFromString("__eq__");
  PyObject* name = PyUnicode_InternFromString("_name_");

  Enumerations() {
    Ref module = Ref::steal(PyImport_ImportModule("enum"));
    PyObject* found = module ? PyObject_GetAttrString(module.get(), "Enum") : nullptr;  // lives for ever
    if (found == nullptr) {
      PyErr_Clear();
      return;
    }
    base = reinterpret_cast<PyTypeObject*>(found);
    hash = _PyType_Lookup(base, hash_name);
  }
};

const Enumerations& enumerations() {
  static const Enumerations found;
  return found;
}

bool hashes_by_name(PyTypeObject* type) {
  const Enumerations& e = enumerations();
  return e.base != nullptr && type->tp_hash == e.base->tp_hash && PyType_IsSubtype(type, e.base) &&
         _PyType_Lookup(type, e.hash_name) == e.hash;
}

// False where Python code would have to be asked.
bool plain_hash(PyObject* key, Py_hash_t& hash);

// As tuples compute theirs (Objects/tupleobject.c: a variant of xxHash).
bool tuple_hash(PyObject* tuple, Py_hash_t& hash) {
  constexpr Py_uhash_t kPrime1 = 11400714785074694791ULL, kPrime2 = 14029467366897019727ULL,
                       kPrime5 = 2870177450012600261ULL;
  Py_uhash_t sum = kPrime5;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); ++i) {
    Py_hash_t element = 0;
    if (!plain_hash(PyTuple_GET_ITEM(tuple, i), element)) return false;
    sum += static_cast<Py_uhash_t>(element) * kPrime2;
    sum = (sum << 31) | (sum >> 33);
    sum *= kPrime1;
  }
  sum += static_cast<Py_uhash_t>(PyTuple_GET_SIZE(tuple)) ^ (kPrime5 ^ 3527539ULL);
  hash = sum == static_cast<Py_uhash_t>(-1) ? 1546275796 : static_cast<Py_hash_t>(sum);
  return true;
}

bool plain_hash(PyObject* key, Py_hash_t& hash) {
  if (is_plain_tuple(key)) return tuple_hash(key, hash);
  PyTypeObject* type = Py_TYPE(key);
  if (enumerations().base != nullptr && type->tp_hash == enumerations().base->tp_hash) {
    PyObject* dict = hashes_by_name(type) ? instance_dict(key) : nullptr;
    PyObject* name = dict == nullptr ? nullptr : PyDict_GetItemWithError(dict, enumerations().name);
    if (name == nullptr || !PyUnicode_CheckExact(name)) return PyErr_Clear(), false;
    hash = PyObject_Hash(name);
    return true;
  }
  hash = PyObject_Hash(key);
  if (hash == -1) PyErr_Clear();
  return hash != -1;
}

}  // namespace

bool is_plain_tuple(PyObject* o) {
  return PyTuple_Check(o) && Py_TYPE(o)->tp_hash == PyTuple_Type.tp_hash &&
         Py_TYPE(o)->tp_richcompare == PyTuple_Type.tp_richcompare;
}

bool is_plain_key(PyObject* key) {
  if (is_plain_tuple(key)) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(key); ++i) {
      if (!is_plain_key(PyTuple_GET_ITEM(key, i))) return false;
    }
    return true;
  }
  PyTypeObject* type = Py_TYPE(key);
  if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) return type->tp_hash != PyObject_HashNotImplemented;
  if (type->tp_hash == PyBaseObject_Type.tp_hash)
    return type->tp_richcompare == PyBaseObject_Type.tp_richcompare;
  if (type->tp_hash == PyObject_HashNotImplemented || PyTuple_Check(key) || PyFrozenSet_Check(key))
    return false;
  const Enumerations& e = enumerations();
  if (e.base == nullptr || (type->tp_hash == e.base->tp_hash && !hashes_by_name(type))) return false;
  PyObject* equals = _PyType_Lookup(type, e.equals_name);
  return equals != nullptr && !PyFunction_Check(equals);
}

PyObject* dict_get(PyObject* dict, PyObject* key) {
  const bool text = PyUnicode_CheckExact(key);
  if (!text && is_tensor(key)) return dict_get_tensor(dict, key);
  Py_hash_t hash = 0;
  PyObject* value = !text && plain_hash(key, hash) ? _PyDict_GetItem_KnownHash(dict, key, hash)
                                                   : PyDict_GetItemWithError(dict, key);
  if (value == nullptr) PyErr_Clear();
  return value;
}

}  // namespace flashpoint::py
