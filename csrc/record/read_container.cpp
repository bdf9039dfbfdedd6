// Reads of containers and the operators whose result depends on what containers hold.
//
// Elements get sources of their own when a container is read as a whole, so provenance passes through
// every fresh container they are copied to. A container this recording wrote to is treated as write.cpp
// says: either its entry contents were guarded then (nothing more to learn), or the read ends the recording.
#include "eval/liveness.h"
#include "py/dicts.h"
#include "py/frame.h"
#include "py/iterators.h"
#include "py/key_hash.h"
#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/break_details.h"
#include "record/graph_recorder.h"
#include "record/recorder.h"
#include "record/rules/rules.h"

namespace flashpoint {

namespace {

bool is_heap(PyTypeObject* type) { return PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE); }

// An object of a class of the program that has neither a hash nor an equality of its own.
bool is_told_apart_by_address(PyObject* o) {
  PyTypeObject* type = Py_TYPE(o);
  return is_heap(type) && !PyType_Check(o) && !is_tensor(o) && type->tp_hash == PyBaseObject_Type.tp_hash &&
         type->tp_richcompare == PyBaseObject_Type.tp_richcompare;
}

// Called without arguments: a Python function, or a builtin class whose objects are empty then.
bool is_known_factory(PyObject* factory) {
  if (PyFunction_Check(factory)) return true;
  for (PyTypeObject* type : {&PyList_Type, &PyDict_Type, &PySet_Type, &PyTuple_Type, &PyLong_Type,
                             &PyFloat_Type, &PyBool_Type, &PyUnicode_Type}) {
    if (factory == reinterpret_cast<PyObject*>(type)) return true;
  }
  return false;
}

}  // namespace

bool Recorder::hashable_key(PyObject* key) const {
  if (is_primitive(key) || PyType_Check(key) || PyFunction_Check(key) || PyCFunction_Check(key) ||
      Py_IS_TYPE(key, &PyMethodDescr_Type) || Py_IS_TYPE(key, &PyWrapperDescr_Type) ||
      Py_IS_TYPE(key, &PyGetSetDescr_Type) || Py_IS_TYPE(key, &PyMemberDescr_Type) || PyModule_Check(key) ||
      rules().is_singleton_type(Py_TYPE(key)) || rules().is_value_type(Py_TYPE(key))) {
    return !PyType_Check(key) || Py_TYPE(key)->tp_hash == PyType_Type.tp_hash;
  }
  // `torch.Tensor.shape.__get__` and its like: told apart by the descriptor.
  if (Py_IS_TYPE(key, &_PyMethodWrapper_Type)) {
    return Py_IS_TYPE(reinterpret_cast<py::MethodWrapperLayout*>(key)->self, &PyGetSetDescr_Type);
  }
  if (py::is_plain_tuple(key)) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(key); ++i) {
      if (!hashable_key(PyTuple_GET_ITEM(key, i))) return false;
    }
    return true;
  }
  return false;
}

bool Recorder::lookup_key(PyObject* key) {
  if (hashable_key(key)) return true;
  if (py::is_plain_tuple(key)) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(key); ++i) {
      if (!lookup_key(PyTuple_GET_ITEM(key, i))) return false;
    }
    return true;
  }
  if (is_tensor(key) || !py::is_plain_key(key)) return false;
  if (rules().is_enum_member(key)) const_node(key);  // one found in a key that is guarded has no source yet
  if (node_of(key) == kNoNode) return false;
  pin(key);
  return true;
}

void Recorder::read_dict_key(PyObject* dict, PyObject* key) {
  const NodeId node = node_of(dict);
  if (node == kNoNode) return read_fresh_key(dict, key);
  if (shadow_.has_places() &&
      shadow_.read_place(node, CheckKind::kItemValue, dict, key, PyDict_GetItemWithError(dict, key)))
    return;
  if (overlaid_whole(dict) || overlaid(dict, key) || !once(dict, key, 1)) return;
  if (is_tensor(key) && is_plain_tensor(key) && node_of(key) != kNoNode &&
      (graph_.is_base() || tree_.node(node_of(key)).step != Step::kArg)) {
    // An optimizer's state of a parameter. Arguments are other tensors at each call.
    pin(key);
    PyObject* state = dict_get_tensor(dict, key);
    if (state == nullptr || is_primitive(state))
      return end(Break::k_unsupported_container, std::string(kNoObjectForTensor));
    observe(tree_.child(node, Step::kDictValue, key), state);
    return;
  }
  if (!PyUnicode_CheckExact(key)) {
    if (!lookup_key(key)) {
      end(Break::k_unsupported_container, std::string("dict key of type ") + Py_TYPE(key)->tp_name);
      return;
    }
    read_hash(key);
  }
  read_dict_value(node, key, py::dict_get(dict, key));
}

void Recorder::read_dict_value(NodeId node, PyObject* key, PyObject* value) {
  if (value == nullptr) {
    tree_.check(node, CheckKind::kKeyAbsent, key);
  } else if (is_primitive(value)) {
    if (shadow_.often_changes(node, CheckKind::kItemValue, key)) return end(Break::k_changing_value);
    tree_.check_place(node, CheckKind::kItemValue, key, value);
  } else {
    observe(tree_.child(node, Step::kDictValue, key), value);
  }
}

void Recorder::read_dict_present(PyObject* dict, PyObject* key) {
  const NodeId node = node_of(dict);
  if (node == kNoNode) return read_fresh_key(dict, key);
  if (overlaid_whole(dict) || overlaid(dict, key) || !once(dict, key, 2)) return;
  if (!lookup_key(key)) {
    end(Break::k_unsupported_container, std::string("dict key of type ") + Py_TYPE(key)->tp_name);
    return;
  }
  read_hash(key);
  const bool present = py::dict_get(dict, key) != nullptr;
  tree_.check(node, present ? CheckKind::kKeyPresent : CheckKind::kKeyAbsent, key);
}

void Recorder::read_length(PyObject* c) {
  const NodeId node = node_of(c);
  if (node == kNoNode) return read_object_keys(c);
  if (overlaid_whole(c)) return;
  if (touched(c)) {
    if (!settle(c)) end(Break::k_read_after_mutation, Py_TYPE(c)->tp_name);
    return;
  }
  if (!once(c, Py_None, 7)) return;
  const Py_ssize_t n = py::stored_size(c);
  if (n < 0) return PyErr_Clear();
  tree_.check(node, PyDict_Check(c) ? CheckKind::kDictLen : CheckKind::kLen, nullptr,
              static_cast<int32_t>(n));
}

void Recorder::read_keys(PyObject* dict) {
  const NodeId node = node_of(dict);
  if (node == kNoNode) return read_object_keys(dict);
  if (overlaid_whole(dict)) return;
  if (touched(dict)) {
    if (!settle(dict)) end(Break::k_read_after_mutation, "dict");
    return;
  }
  if (!once(dict, Py_True, 7)) return;
  Ref list = py::keys_in_order(dict);
  Ref keys = Ref::steal(list ? PyList_AsTuple(list.get()) : nullptr);
  if (!keys) {
    PyErr_Clear();
    return end(Break::k_unsupported_container, "an ordered dict that lost its order");
  }
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(keys.get()); ++i) {
    PyObject* key = PyTuple_GET_ITEM(keys.get(), i);
    if ((py::is_plain_tuple(key) || rules().is_enum_member(key) || is_told_apart_by_address(key)) &&
        py::is_plain_key(key)) {
      const_node(key);  // guarded below: the very object, or a tuple of the same elements
    } else if (!hashable_key(key) || PyTuple_Check(key)) {
      return end(Break::k_unsupported_container, std::string("dict key of type ") + Py_TYPE(key)->tp_name);
    }
    read_hash(key);
  }
  tree_.check(node, PyODict_Check(dict) ? CheckKind::kOrderedKeys : CheckKind::kKeys, keys.get());
  hold(keys.get());
}

void Recorder::read_elements(PyObject* c) {
  const NodeId node = node_of(c);
  if (node == kNoNode) {
    shadow_.read_inside(c);
    return read_object_keys(c);
  }
  if (overlaid_whole(c) || ended_) return;
  shadow_.reads_all();
  if (PyDict_Check(c)) {
    read_keys(c);
    if (ended_) return;
    PyObject *key, *value;
    Py_ssize_t pos = 0;
    while (!ended_ && PyDict_Next(c, &pos, &key, &value)) read_dict_key(c, key);
    return;
  }
  if (touched(c)) {
    if (!settle(c)) end(Break::k_read_after_mutation, Py_TYPE(c)->tp_name);
    return;
  }
  if (!once(c, Py_False, 7)) return;
  if (PyAnySet_Check(c)) {
    Ref order = Ref::steal(PySequence_Tuple(Ref::steal(PyObject_GetIter(c)).get()));
    if (!order) return PyErr_Clear();
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(order.get()); ++i) {
      PyObject* item = PyTuple_GET_ITEM(order.get(), i);
      if (is_told_apart_by_address(item)) {
        const_node(item);
      } else if (!hashable_key(item) || PyTuple_Check(item)) {
        return end(Break::k_unsupported_container, std::string("set of ") + Py_TYPE(item)->tp_name);
      }
      read_hash(item);
    }
    tree_.check(node, CheckKind::kSetOrder, order.get());
    return;
  }
  const bool list = PyList_Check(c), tuple = PyTuple_Check(c);
  if (!list && !tuple && !rules().is_deque(c)) {
    return end(Break::k_unsupported_container, Py_TYPE(c)->tp_name);
  }
  read_length(c);
  const Py_ssize_t n = py::stored_size(c);
  for (Py_ssize_t i = 0; i < n && !ended_; ++i) {
    Ref item = Ref::steal(list    ? Py_NewRef(PyList_GET_ITEM(c, i))
                          : tuple ? Py_NewRef(PyTuple_GET_ITEM(c, i))
                                  : PySequence_GetItem(c, i));
    if (!item) return PyErr_Clear();
    if (is_primitive(item.get()) && (list || tuple)) {
      const CheckKind kind = list ? CheckKind::kListItemValue : CheckKind::kTupleItemValue;
      if (shadow_.often_changes(node, kind, nullptr, static_cast<int32_t>(i)))
        return end(Break::k_changing_value);
      tree_.check_place(node, kind, nullptr, item.get(), static_cast<int32_t>(i));
    } else if (is_primitive(item.get())) {
      if (shadow_.often_changes(node, CheckKind::kValue, nullptr, static_cast<int32_t>(i)))
        return end(Break::k_changing_value);
      tree_.check(tree_.child(node, Step::kDequeItem, nullptr, static_cast<int32_t>(i)), CheckKind::kValue,
                  item.get());
    } else {
      observe(tree_.child(node,
                          list    ? Step::kListItem
                          : tuple ? Step::kTupleItem
                                  : Step::kDequeItem,
                          nullptr, static_cast<int32_t>(i)),
              item.get());
    }
  }
}

// One element of a list or tuple: the others are not guarded with it.
bool Recorder::read_item_apart(PyObject* c, PyObject* key) {
  const NodeId node = node_of(c);
  const bool list = PyList_CheckExact(c);
  // Of a named tuple as well: no class in between has a say in how it is indexed.
  const bool tuple = PyTuple_Check(c) && Py_TYPE(c)->tp_as_mapping != nullptr &&
                     Py_TYPE(c)->tp_as_mapping->mp_subscript == PyTuple_Type.tp_as_mapping->mp_subscript;
  if (node == kNoNode || !(list || tuple) || !PyLong_CheckExact(key)) return false;
  if (overlaid_whole(c) || (touched(c) && !written_in_items(c))) return false;
  const CheckKind kind = list ? CheckKind::kListItemValue : CheckKind::kTupleItemValue;
  const auto n = static_cast<int32_t>(Py_SIZE(c));
  int overflow = 0;
  int64_t index = PyLong_AsLongLongAndOverflow(key, &overflow);
  if (index < 0) index += n;
  if (overflow != 0 || index < 0 || index >= n) return false;
  if (!touched(c)) read_length(c);
  const auto i = static_cast<int32_t>(index);
  PyObject* item = list ? PyList_GET_ITEM(c, i) : PyTuple_GET_ITEM(c, i);
  if (touched(c) && overlay_.contains({c, index_place(i)})) {
    // What the recording has put there: a number that is followed, or one that is known.
    if (shadow_.stored_tag(c, index_place(i)) != 0) shadow_.read_place(node, kind, c, nullptr, item, i);
    return true;
  }
  if (!is_primitive(item)) {
    observe(tree_.child(node, list ? Step::kListItem : Step::kTupleItem, nullptr, i), item);
  } else if ((!shadow_.follows_places() || !shadow_.read_place(node, kind, c, nullptr, item, i)) &&
             once_at(c, static_cast<size_t>(i))) {
    if (shadow_.often_changes(node, kind, nullptr, i)) {
      end(Break::k_changing_value);
      return true;
    }
    tree_.check_place(node, kind, nullptr, item, i);
  }
  return true;
}

// Reads everything a C function could find by walking builtin containers. False: something else is in there.
bool Recorder::read_deep(PyObject* o, int depth) {
  if (is_primitive(o) || ended_) return true;
  PyTypeObject* type = Py_TYPE(o);
  if (is_tensor(o) || PyType_Check(o) || PyFunction_Check(o) || PyCFunction_Check(o) || PyModule_Check(o) ||
      rules().is_singleton_type(type) || rules().is_value_type(type) || PyRange_Check(o) ||
      rules().is_enum_member(o)) {
    return true;
  }
  if (depth > 32) return false;
  bool plain = true;
  if (PySlice_Check(o)) {
    auto* s = reinterpret_cast<PySliceObject*>(o);
    if (node_of(o) != kNoNode) return true;  // primitives only, guarded where it was first seen
    return read_deep(s->start, depth + 1) && read_deep(s->stop, depth + 1) && read_deep(s->step, depth + 1);
  }
  if (PyList_Check(o) || PyTuple_Check(o)) {
    read_elements(o);
    for (Py_ssize_t i = 0; i < Py_SIZE(o) && !ended_; ++i) {
      plain &= read_deep(PyList_Check(o) ? PyList_GET_ITEM(o, i) : PyTuple_GET_ITEM(o, i), depth + 1);
    }
    return plain;
  }
  if (PyDict_Check(o)) {
    read_elements(o);
    PyObject *key, *value;
    Py_ssize_t pos = 0;
    while (!ended_ && PyDict_Next(o, &pos, &key, &value))
      plain &= read_deep(key, depth + 1) && read_deep(value, depth + 1);
    return plain;
  }
  if (PyAnySet_Check(o) || rules().is_deque(o)) {
    read_elements(o);
    return true;
  }
  if (PyDictKeys_Check(o) || PyDictValues_Check(o) || PyDictItems_Check(o))
    return read_deep(py::view_dict(o), depth + 1);
  return false;
}

void Recorder::read_truth(PyObject* o) {
  if (is_primitive(o)) return;
  if (is_tensor(o)) {
    // Where an assertion does not hold the program ends, so it will hold again.
    PyCodeObject* code = py::frame_code(frame_->frame);
    graph_.set_asserts(is_assertion(code, py::frame_instruction(frame_->frame)) ||
                       rules().chooses_branch(reinterpret_cast<PyObject*>(code)));
    if (!may_read_value(o)) end(Break::k_tensor_data_as_python, "truth of a tensor");
    return;
  }
  PyTypeObject* type = Py_TYPE(o);
  const bool number = type->tp_as_number != nullptr && type->tp_as_number->nb_bool != nullptr;
  const bool mapping = type->tp_as_mapping != nullptr && type->tp_as_mapping->mp_length != nullptr;
  const bool sequence = type->tp_as_sequence != nullptr && type->tp_as_sequence->sq_length != nullptr;
  if (rules().is_enum_member(o)) return;  // the very member is guarded
  if (is_heap(type)) {
    PyObject* truth = type_lookup(type, "__bool__");
    PyObject* length = truth == nullptr ? type_lookup(type, "__len__") : nullptr;
    if (truth != nullptr && !PyFunction_Check(truth))
      return end(Break::k_unsupported_container, type->tp_name);
    if (truth != nullptr || length == nullptr || PyFunction_Check(length)) return;
  } else if (!number && !mapping && !sequence) {
    return;
  }
  if (node_of(o) == kNoNode) return;
  if (PyDict_Check(o) || PyList_Check(o) || PyTuple_Check(o) || PyAnySet_Check(o) || rules().is_deque(o)) {
    if (overlaid_whole(o)) return;
    if (touched(o)) {
      if (!settle(o)) end(Break::k_read_after_mutation, type->tp_name);
      return;
    }
    if (!once(o, Py_Ellipsis, 7)) return;
    const Py_ssize_t n = py::stored_size(o);
    tree_.check(node_of(o), PyDict_Check(o) ? CheckKind::kDictNonEmpty : CheckKind::kNonEmpty, nullptr,
                n > 0);
  } else if (!rules().is_value_type(type)) {
    end(Break::k_unsupported_container, std::string("truth of ") + type->tp_name);
  }
}

void Recorder::read_iterable(PyObject* o) {
  PyTypeObject* type = Py_TYPE(o);
  if (type == &PyTuple_Type || type == &PyList_Type) return read_elements(o);
  if (is_primitive(o) || PyRange_Check(o) || rules().is_value_type(type)) return;
  if (PyDictKeys_Check(o)) return read_keys(py::view_dict(o));
  if (PyDictValues_Check(o) || PyDictItems_Check(o)) return read_elements(py::view_dict(o));
  if (Py_IS_TYPE(o, &PyDictProxy_Type)) {
    PyObject* mapping = py::proxied_mapping(o);
    if (!PyDict_Check(mapping) || node_of(o) != kNoNode)
      return end(Break::k_unsupported_container, "mappingproxy");
    return read_elements(mapping);
  }
  const bool container =
      PyList_Check(o) || PyTuple_Check(o) || PyDict_Check(o) || PyAnySet_Check(o) || rules().is_deque(o);
  if (is_heap(type)) {
    PyObject* iter = type_lookup(type, "__iter__");
    if (iter != nullptr && PyFunction_Check(iter)) return;
    if (iter == nullptr) {
      type_lookup(type, "__getitem__");
      return;
    }
  }
  if (is_tensor(o)) return;
  if (PyAnySet_Check(o) && node_of(o) == kNoNode) {
    // A set made in the call: its order follows from hashes, which for some objects are addresses.
    PyObject* item;
    Py_hash_t hash;
    Py_ssize_t pos = 0;
    while (_PySet_NextEntry(o, &pos, &item, &hash)) {
      if (!hashable_key(item) || !(is_primitive(item) || PyTuple_Check(item))) {
        return end(Break::k_identity_value, "the order of a set of objects");
      }
      read_hash(item);
    }
    return;
  }
  if (container) return read_elements(o);
  if (PyIter_Check(o)) {
    if (PyGen_CheckExact(o) ? !read_generator(o) : node_of(o) != kNoNode)
      end(Break::k_iterator_argument, type->tp_name);
    return;
  }
  if (!PyType_Check(o)) end(Break::k_unsupported_container, std::string("iteration of ") + type->tp_name);
}

void Recorder::read_iterable_if_container(PyObject* o) {
  if (!is_primitive(o) && Py_TYPE(o)->tp_iter != nullptr && !is_tensor(o)) read_iterable(o);
}

void Recorder::read_subscript(PyObject* c, PyObject* key) {
  read_index(c, key);
  if (is_primitive(c)) return;
  PyTypeObject* type = Py_TYPE(c);
  if (is_tensor(c)) {
    read_special(c, "__getitem__");
    return rules().read_tensor_index(*this, c, key);
  }
  if (is_heap(type)) {
    PyObject* get = type_lookup(type, "__getitem__");
    if (get != nullptr && PyFunction_Check(get)) return;
    if (PyDict_Check(c)) {
      PyObject* missing = type_lookup(type, "__missing__");
      if (missing != nullptr && !PyFunction_Check(missing))
        return end(Break::k_unsupported_container, type->tp_name);
    }
  }
  if (PyType_Check(c)) {
    // A generic alias, or Python code of the metaclass.
    if (is_fresh_class(c)) return end(Break::k_unsupported_container, "a class made in the call");
    if (node_of(c) == kNoNode) watch(c, tree_.child(kNoNode, Step::kTypeRoot, c));
    type_lookup(Py_TYPE(c), "__getitem__");
    PyObject* get = type_lookup(reinterpret_cast<PyTypeObject*>(c), "__class_getitem__");
    if (get != nullptr) read_descriptor(get);
    return;
  }
  if (PyDict_Check(c)) {
    read_dict_key(c, key);
    if (ended_ || !rules().is_exact_defaultdict(c) || !hashable_key(key) ||
        PyDict_GetItemWithError(c, key) != nullptr)
      return;
    // C code calls the factory and inserts what it gives. A Python function comes through the hook.
    Ref name = Ref::steal(PyUnicode_InternFromString("default_factory"));
    Ref factory = Ref::steal(PyObject_GetAttr(c, name.get()));  // a member
    if (!factory) return end(Break::k_unsupported_container, "defaultdict");
    if (factory.get() == Py_None) return;
    if (!is_known_factory(factory.get()))
      return end(Break::k_unknown_c_function, std::string("the factory of a ") + type->tp_name);
    read_attr(c, name.get());
    if (!ended_) write_dict(c, key);
    return;
  }
  if (Py_IS_TYPE(c, &PyDictProxy_Type) && PyDict_Check(py::proxied_mapping(c)) && node_of(c) == kNoNode) {
    return read_dict_key(py::proxied_mapping(c), key);
  }
  if (PyList_Check(c) || PyTuple_Check(c) || rules().is_deque(c)) {
    return read_item_apart(c, key) ? void() : read_elements(c);
  }
  if (PyRange_Check(c) || rules().is_value_type(type)) return;
  end(Break::k_unsupported_container, std::string("subscript of ") + type->tp_name);
}

void Recorder::read_contains(PyObject* c, PyObject* item) {
  if (is_primitive(c)) return;
  PyTypeObject* type = Py_TYPE(c);
  if (is_tensor(c)) return;  // Tensor.__contains__ is Python code
  if (is_heap(type)) {
    PyObject* contains = type_lookup(type, "__contains__");
    if (contains != nullptr && PyFunction_Check(contains)) return;
    if (contains == nullptr) return read_iterable(c);
  }
  if (PyDictKeys_Check(c)) c = py::view_dict(c);
  if (Py_IS_TYPE(c, &PyDictProxy_Type) && node_of(c) == kNoNode) c = py::proxied_mapping(c);
  if (PyDict_Check(c)) {
    return read_dict_present(c, item);
  }
  if (PyAnySet_Check(c)) {
    const NodeId node = node_of(c);
    if (node == kNoNode) return read_fresh_key(c, item);
    if (!hashable_key(item) && !(is_told_apart_by_address(item) && lookup_key(item)))
      return end(Break::k_unsupported_container, "set membership");
    read_hash(item);
    if (overlaid_whole(c) || !once(c, item, 2)) return;
    if (touched(c)) return end(Break::k_read_after_mutation, type->tp_name);
    hold(item);
    const int in = PySet_Contains(c, item);
    if (in < 0) return PyErr_Clear();
    tree_.check_place(node, CheckKind::kSetContains, item, in ? Py_True : Py_False);
    return;
  }
  if (PyList_Check(c) || PyTuple_Check(c) || rules().is_deque(c) || PyDictValues_Check(c) ||
      PyDictItems_Check(c)) {
    read_element_identity(c, item);
    if (!read_deep(c)) {
      // Elements with identity equality or Python equality: guard the way to it.
      for (Py_ssize_t i = 0; (PyList_Check(c) || PyTuple_Check(c)) && i < Py_SIZE(c) && !ended_; ++i) {
        read_compare(Py_EQ, PyList_Check(c) ? PyList_GET_ITEM(c, i) : PyTuple_GET_ITEM(c, i), item);
      }
      if (!PyList_Check(c) && !PyTuple_Check(c)) end(Break::k_unsupported_container, type->tp_name);
      return;
    }
    if (is_tensor(item)) return end(Break::k_tensor_data_as_python, "tensor in a container");
    if (!read_deep(item)) read_compare(Py_EQ, item, Py_None);
    for (Py_ssize_t i = 0; (PyList_Check(c) || PyTuple_Check(c)) && i < Py_SIZE(c); ++i) {
      if (is_tensor(PyList_Check(c) ? PyList_GET_ITEM(c, i) : PyTuple_GET_ITEM(c, i))) {
        return end(Break::k_tensor_data_as_python, "membership in a container of tensors");
      }
    }
    return;
  }
  if (PyRange_Check(c) || rules().is_value_type(type)) return;
  if (PyIter_Check(c) && !is_heap(type) && node_of(c) == kNoNode && is_primitive(item) &&
      !PyFloat_Check(item) && !PyComplex_Check(item)) {
    // C code takes elements out and compares them, until one is equal.
    read_iterable(c);
    if (PyGen_CheckExact(c)) return read_results(1, true);
    if (type == &PyRangeIter_Type) return;
    PyObject* source = py::is_known_iterator(type) ? py::iterator_source(c, 0) : nullptr;
    if (source != nullptr && (PyList_CheckExact(source) || PyTuple_CheckExact(source))) {
      shadow_.read_inside(source);
      bool plain = true;
      for (Py_ssize_t i = 0; plain && i < Py_SIZE(source); ++i)
        plain = is_primitive(PyList_CheckExact(source) ? PyList_GET_ITEM(source, i)
                                                       : PyTuple_GET_ITEM(source, i));
      if (plain) return read_elements(source);
    }
  }
  end(Break::k_unsupported_container, std::string("membership in ") + type->tp_name);
}

// One object for each value.
static bool is_small_int(PyObject* o) {
  if (!PyLong_CheckExact(o)) return false;
  int overflow = 0;
  const long value = PyLong_AsLongAndOverflow(o, &overflow);
  return overflow == 0 && value >= -5 && value <= 256;
}

void Recorder::read_identity(PyObject* a, PyObject* b) {
  if (is_primitive(a) && is_primitive(b)) {
    const bool singleton = a == Py_None || b == Py_None || PyBool_Check(a) || PyBool_Check(b) ||
                           a == Py_Ellipsis || b == Py_Ellipsis;
    const bool memo = frame_ != nullptr && rules().uses_identity_as_memo(
                                               reinterpret_cast<PyObject*>(py::frame_code(frame_->frame)));
    if (!singleton && !memo && !is_small_int(a) && !is_small_int(b) && primitives_equal(a, b))
      end(Break::k_identity_value, "'is' between equal values");
    return;
  }
  if (a == b) return;
  const NodeId na = node_of(a), nb = node_of(b);
  if (na == kNoNode || nb == kNoNode || na == nb) return;
  if (Py_TYPE(a) != Py_TYPE(b)) return;  // both types are guarded
  if (tree_.node(na).step == Step::kConst && tree_.node(nb).step == Step::kConst) return;
  tree_.check(std::max(na, nb), CheckKind::kNotSameAs, nullptr, std::min(na, nb));
}

}  // namespace flashpoint
