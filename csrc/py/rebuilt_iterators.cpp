#include "py/rebuilt_iterators.h"

#include <algorithm>
#include <string_view>
#include <vector>

namespace flashpoint::py {

namespace {

struct SetIterator {
  PyObject_HEAD PyObject* set;
};
struct Accumulate {
  PyObject_HEAD PyObject *total, *iterator, *function, *initial;
};
struct Pairwise {
  PyObject_HEAD PyObject *iterator, *last;
};

PyTypeObject* type_in(const char* module, const char* name) {
  Ref from = Ref::steal(PyImport_ImportModule(module));
  Ref type = Ref::steal(from ? PyObject_GetAttrString(from.get(), name) : nullptr);
  PyErr_Clear();
  return type && PyType_Check(type.get()) ? reinterpret_cast<PyTypeObject*>(type.release()) : nullptr;
}

// What iterates text and bytes has no name in the API.
PyTypeObject* type_of_iterator(PyObject* over) {
  Ref held = Ref::steal(over);
  Ref iterator = Ref::steal(held ? PyObject_GetIter(held.get()) : nullptr);
  PyErr_Clear();
  return iterator ? Py_TYPE(iterator.get()) : nullptr;
}

const std::vector<PyTypeObject*>& rebuilt_types() {
  static const std::vector<PyTypeObject*> types = [] {
    std::vector<PyTypeObject*> found = {
        &PyListIter_Type, &PyListRevIter_Type, &PyTupleIter_Type,   &PyRangeIter_Type, &PyLongRangeIter_Type,
        &PyEnum_Type,     &PyZip_Type,         &PyReversed_Type,    &PyMap_Type,       &PyFilter_Type,
        &PySeqIter_Type,  &PySetIter_Type,     &PyUnicodeIter_Type, &PyBytesIter_Type};
    found.push_back(type_of_iterator(PyUnicode_FromString("a")));
    for (const char* name : {"chain",        "islice",       "repeat",
                             "count",        "cycle",        "accumulate",
                             "compress",     "combinations", "combinations_with_replacement",
                             "permutations", "product",      "pairwise",
                             "starmap",      "takewhile",    "dropwhile",
                             "filterfalse",  "zip_longest",  "groupby",
                             "_grouper",     "_tee",         "_tee_dataobject"})
      found.push_back(type_in("itertools", name));
    for (const char* name : {"_deque_iterator", "_deque_reverse_iterator"})
      found.push_back(type_in("_collections", name));
    std::erase(found, nullptr);
    std::sort(found.begin(), found.end());
    return found;
  }();
  return types;
}

bool has_fixed_hash(PyObject* o) {
  return PyUnicode_CheckExact(o) || PyLong_CheckExact(o) || PyFloat_CheckExact(o) || PyBytes_CheckExact(o) ||
         PyBool_Check(o);
}

// Otherwise the order hangs on addresses, which are others at the next call.
bool has_fixed_order(PyObject* set) {
  PyObject* key;
  Py_hash_t hash;
  Py_ssize_t pos = 0;
  while (_PySet_NextEntry(set, &pos, &key, &hash)) {
    if (!has_fixed_hash(key)) return false;
  }
  return true;
}

// The copy takes the elements that are left: nothing else may see that it is another object, or change the
// set.
bool owns_its_set(PyObject* iterator) {
  PyObject* const set = reinterpret_cast<SetIterator*>(iterator)->set;
  if (set != nullptr && PySet_GET_SIZE(set) > 1 && !has_fixed_order(set)) return false;
  return Py_REFCNT(iterator) == 1 && (set == nullptr || PyFrozenSet_CheckExact(set) || Py_REFCNT(set) == 1);
}

// Of a running total that is None, __reduce__ gives an iterator of another type.
bool totals_none(PyObject* iterator) {
  static PyTypeObject* const accumulate = type_in("itertools", "accumulate");
  return Py_IS_TYPE(iterator, accumulate) && reinterpret_cast<Accumulate*>(iterator)->total == Py_None;
}

// It has no __reduce__. The element it holds comes first again.
Ref reduce_pairwise(PyObject* iterator) {
  static PyTypeObject* const chain = type_in("itertools", "chain");
  auto* pairs = reinterpret_cast<Pairwise*>(iterator);
  PyObject* const rest = pairs->iterator;
  Ref source =
      rest == nullptr ? Ref::steal(PyTuple_New(0))
      : pairs->last == nullptr
          ? Ref::share(rest)
          : Ref::steal(PyObject_CallFunction(reinterpret_cast<PyObject*>(chain), "(O)O", pairs->last, rest));
  if (source) return Ref::steal(Py_BuildValue("(O(O))", Py_TYPE(iterator), source.get()));
  PyErr_Clear();
  return {};
}

bool is_iter(PyObject* callable) {
  return PyCFunction_CheckExact(callable) &&
         std::string_view(reinterpret_cast<PyCFunctionObject*>(callable)->m_ml->ml_name) == "iter";
}

bool names_builtin(PyObject* callable) {
  return callable == reinterpret_cast<PyObject*>(&PyReversed_Type) || is_iter(callable);
}

}  // namespace

bool is_rebuilt_iterator(PyTypeObject* type) {
  const auto& types = rebuilt_types();
  return std::binary_search(types.begin(), types.end(), type);
}

Ref reduce_iterator(PyObject* iterator) {
  if (Py_IS_TYPE(iterator, &PySetIter_Type) && !owns_its_set(iterator)) return {};
  if (totals_none(iterator)) return {};
  static PyTypeObject* const pairwise = type_in("itertools", "pairwise");
  if (Py_IS_TYPE(iterator, pairwise)) return reduce_pairwise(iterator);
  Ref reduced = Ref::steal(PyObject_CallMethod(iterator, "__reduce__", nullptr));  // C code of a builtin type
  const Py_ssize_t size = reduced && PyTuple_Check(reduced.get()) ? PyTuple_GET_SIZE(reduced.get()) : 0;
  PyErr_Clear();
  if (size < 2 || size > 3) return {};
  PyObject* const callable = PyTuple_GET_ITEM(reduced.get(), 0);
  if (callable != reinterpret_cast<PyObject*>(Py_TYPE(iterator)) && !names_builtin(callable)) return {};
  // What copies an object skips a state that is None.
  if (size == 3 && PyTuple_GET_ITEM(reduced.get(), 2) == Py_None)
    return Ref::steal(PyTuple_GetSlice(reduced.get(), 0, 2));
  return reduced;
}

Ref set_items(PyObject* set) {
  Ref items = Ref::steal(PyList_New(0));
  PyObject* item;
  Py_hash_t hash;
  for (Py_ssize_t pos = 0; items && _PySet_NextEntry(set, &pos, &item, &hash);) {
    if (PyList_Append(items.get(), item) < 0) items = Ref();
  }
  return items;
}

bool is_rebuilt_in_order(PyObject* set) {
  if (PySet_GET_SIZE(set) < 2) return true;
  if (!has_fixed_order(set)) return false;
  const Ref items = set_items(set);
  Ref again = Ref::steal(items ? PySet_New(items.get()) : nullptr);
  Ref order = Ref::steal(again ? PySequence_List(again.get()) : nullptr);
  PyErr_Clear();
  if (!order || PyList_GET_SIZE(order.get()) != PyList_GET_SIZE(items.get())) return false;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(items.get()); ++i) {
    if (PyList_GET_ITEM(items.get(), i) != PyList_GET_ITEM(order.get(), i)) return false;
  }
  return true;
}

bool makes_iterators(PyObject* callable) {
  for (PyTypeObject* type : {&PyEnum_Type, &PyZip_Type, &PyReversed_Type, &PyMap_Type}) {
    if (callable == reinterpret_cast<PyObject*>(type)) return true;
  }
  return is_iter(callable);
}

}  // namespace flashpoint::py
