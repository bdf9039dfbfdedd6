#include "py/iterators.h"

#include "py/ref.h"

namespace flashpoint::py {

namespace {

struct SequenceIterator {  // list_iterator, list_reverseiterator, tuple_iterator
  PyObject_HEAD Py_ssize_t index;
  PyObject* sequence;
};
struct RangeIterator {
  PyObject_HEAD long index, start, step, length;
};
struct DictIterator {
  PyObject_HEAD PyObject* dict;
  Py_ssize_t used, position;
  PyObject* result;
  Py_ssize_t left;
};
struct Enumerate {
  PyObject_HEAD Py_ssize_t index;
  PyObject* iterator;
  PyObject* result;
  PyObject* long_index;
};
struct Zip {
  PyObject_HEAD Py_ssize_t size;
  PyObject* iterators;
  PyObject* result;
  int strict;
};

bool over_sequence(PyTypeObject* t) {
  return t == &PyListIter_Type || t == &PyTupleIter_Type || t == &PyListRevIter_Type || t == &PyReversed_Type;
}
bool over_dict(PyTypeObject* t) {
  return t == &PyDictIterKey_Type || t == &PyDictIterValue_Type || t == &PyDictIterItem_Type;
}

}  // namespace

bool is_known_iterator(PyTypeObject* t) {
  return over_sequence(t) || over_dict(t) || t == &PyRangeIter_Type || t == &PyEnum_Type || t == &PyZip_Type;
}

PyObject* iterator_source(PyObject* o, int i) {
  PyTypeObject* type = Py_TYPE(o);
  if (type == &PyZip_Type) {
    auto* zip = reinterpret_cast<Zip*>(o);
    return i < zip->size ? PyTuple_GET_ITEM(zip->iterators, i) : nullptr;
  }
  if (i > 0) return nullptr;
  if (over_sequence(type)) return reinterpret_cast<SequenceIterator*>(o)->sequence;
  if (over_dict(type)) return reinterpret_cast<DictIterator*>(o)->dict;
  if (type == &PyEnum_Type) return reinterpret_cast<Enumerate*>(o)->iterator;
  return nullptr;
}

PyObject* iterator_state(PyObject* o) {
  PyTypeObject* type = Py_TYPE(o);
  if (over_sequence(type)) {
    auto* it = reinterpret_cast<SequenceIterator*>(o);
    return Py_BuildValue("(ni)", it->index, it->sequence != nullptr);
  }
  if (over_dict(type)) {
    auto* it = reinterpret_cast<DictIterator*>(o);
    return Py_BuildValue("(nni)", it->position, it->left, it->dict != nullptr);
  }
  if (type == &PyRangeIter_Type) {
    auto* it = reinterpret_cast<RangeIterator*>(o);
    return Py_BuildValue("(llll)", it->index, it->start, it->step, it->length);
  }
  if (type == &PyEnum_Type) {
    auto* it = reinterpret_cast<Enumerate*>(o);
    if (it->long_index != nullptr) return nullptr;
    return Py_BuildValue("(n)", it->index);
  }
  if (type == &PyZip_Type) {
    auto* it = reinterpret_cast<Zip*>(o);
    return Py_BuildValue("(ni)", it->size, it->strict);
  }
  return nullptr;
}

bool iterator_state_is(PyObject* o, PyObject* state) {
  Ref now = Ref::steal(is_known_iterator(Py_TYPE(o)) ? iterator_state(o) : nullptr);
  const int equal = now ? PyObject_RichCompareBool(now.get(), state, Py_EQ) : 0;
  if (equal < 0) PyErr_Clear();
  return equal == 1;
}

Py_ssize_t next_index(PyObject* o) {
  if (Py_IS_TYPE(o, &PyListIter_Type) || Py_IS_TYPE(o, &PyTupleIter_Type))
    return reinterpret_cast<SequenceIterator*>(o)->index;
  return over_dict(Py_TYPE(o)) ? reinterpret_cast<DictIterator*>(o)->position : -1;
}

Py_ssize_t dict_iterator_taken(PyObject* o) {
  auto* it = reinterpret_cast<DictIterator*>(o);
  return PyDict_GET_SIZE(it->dict) - it->left;
}

}  // namespace flashpoint::py
