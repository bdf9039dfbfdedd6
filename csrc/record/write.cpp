// Writes to objects that existed before the call: the effect log and its overlay.
//
// All handlers run before the instruction does, while containers still have their earlier contents. What
// an effect stores in the end is read from the live object when the recording finishes (replay/recipe).
#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/graph_recorder.h"
#include "record/recorder.h"
#include "record/rules/rules.h"

namespace flashpoint {

namespace {

// One pointer per string value, so that overlays can be keyed by address.
PyObject* canonical(PyObject* key) {
  if (key != nullptr && PyUnicode_CheckExact(key) && !PyUnicode_CHECK_INTERNED(key)) {
    Py_INCREF(key);
    PyUnicode_InternInPlace(&key);
    Py_DECREF(key);  // the recording holds the dict that holds an equal key, or holds it itself
  }
  return key;
}

}  // namespace

bool Recorder::overlaid(PyObject* storage, PyObject* key) const {
  return !overlay_.empty() && overlay_.contains({storage, canonical(key)});
}

bool Recorder::overlaid_whole(PyObject* storage) const {
  return !overlay_.empty() && overlay_.contains({storage, storage});
}

bool Recorder::touched(PyObject* storage) const { return touched_.contains(storage); }

void Recorder::add_effect(Effect effect, PyObject* key) {
  hold(effect.object.get());
  overlay_.try_emplace({effect.object.get(), key}, effects_.size());
  touched_.insert(effect.object.get());
  effects_.push_back(std::move(effect));
}

void Recorder::write_dict(PyObject* dict, PyObject* key) {
  const NodeId node = node_of(dict);
  if (node == kNoNode) return;
  unsettle();
  if (overlaid_whole(dict)) return;
  if (!PyUnicode_CheckExact(key)) return write_contents(dict);
  Py_INCREF(key);
  PyUnicode_InternInPlace(&key);
  Ref owned = Ref::steal(key);
  hold(key);
  if (overlay_.contains({dict, key})) return;
  add_effect(Effect{EffectKind::kDictItem, node, Ref::share(dict), owned, {}}, key);
}

void Recorder::write_contents(PyObject* c) {
  const NodeId node = node_of(c);
  if (node == kNoNode || ended_) return;
  unsettle();
  if (overlaid_whole(c)) return;
  if (touched(c)) return end(Break::k_read_after_mutation, Py_TYPE(c)->tp_name);
  EffectKind kind;
  if (PyList_Check(c)) {
    kind = EffectKind::kListContents;
  } else if (PyDict_Check(c)) {
    kind = EffectKind::kDictContents;
  } else if (PySet_Check(c)) {
    kind = EffectKind::kSetContents;
  } else {
    return end(Break::k_unsupported_mutation, Py_TYPE(c)->tp_name);
  }
  read_elements(c);
  if (ended_) return;
  add_effect(Effect{kind, node, Ref::share(c), Ref(), {}}, c);
}

void Recorder::append_to_list(PyObject* list, PyObject* item) {
  const NodeId node = node_of(list);
  if (node == kNoNode || overlaid_whole(list)) return;
  if (const size_t* effect = overlay_.find({list, nullptr})) {
    effects_[*effect].items.push_back(Ref::share(item));
    return;
  }
  // What was learned of the list before would be wrong afterwards only for reads to come; those end the
  // recording.
  add_effect(Effect{EffectKind::kListAppend, node, Ref::share(list), Ref(), {Ref::share(item)}}, nullptr);
}

void Recorder::write_cell(PyObject* cell) {
  if (overlay_.contains({cell, nullptr})) return;
  add_effect(Effect{EffectKind::kCell, node_of(cell), Ref::share(cell), Ref(), {}}, nullptr);
}

void Recorder::write_context_var(PyObject* var) {
  const NodeId node = const_node(var);
  if (overlay_.contains({var, nullptr})) return;
  PyObject* value = nullptr;
  if (PyContextVar_Get(var, nullptr, &value) < 0) return PyErr_Clear();
  Ref owned = Ref::steal(value);
  if (value == nullptr) {
    tree_.check(node, CheckKind::kContextUnset);
  } else if (is_primitive(value)) {
    tree_.check(node, CheckKind::kContextIs, value);
  } else {
    observe(tree_.child(node, Step::kContextValue), value);
  }
  add_effect(Effect{EffectKind::kContextVar, node, Ref::share(var), owned, {}}, nullptr);
}

void Recorder::write_attr(PyObject* o, PyObject* name, PyObject* value) {
  PyTypeObject* type = Py_TYPE(o);
  if (is_tensor(o))
    return end(Break::k_unsupported_mutation, std::string("Tensor.") + PyUnicode_AsUTF8(name));
  if (PyType_Check(o)) return end(Break::k_unsupported_mutation, "a class attribute");
  if (PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) {
    PyObject* set = type_lookup(type, value == nullptr ? "__delattr__" : "__setattr__");
    if (set != nullptr && PyFunction_Check(set)) return;
    if (type->tp_setattro != PyObject_GenericSetAttr &&
        !(set != nullptr && Py_IS_TYPE(set, &PyWrapperDescr_Type) &&
          PyDescr_TYPE(set) == &PyBaseObject_Type)) {
      return end(Break::k_unsupported_mutation, type->tp_name);
    }
  } else if (PyFunction_Check(o) || PyMethod_Check(o)) {
    if (node_of(o) != kNoNode) end(Break::k_unsupported_mutation, type->tp_name);
    return;
  } else if (type->tp_setattro != PyObject_GenericSetAttr) {
    return end(Break::k_unsupported_mutation, type->tp_name);
  }
  write_generic_attr(o, name, value);
}

void Recorder::write_generic_attr(PyObject* o, PyObject* name, PyObject* value) {
  PyTypeObject* type = Py_TYPE(o);
  const NodeId node = node_of(o);
  if (node != kNoNode) unsettle();
  PyObject* d = type_lookup(type, name);
  if (d != nullptr && Py_TYPE(d)->tp_descr_set != nullptr) {
    if (Py_IS_TYPE(d, &PyProperty_Type)) {
      PyObject* setter = reinterpret_cast<py::PropertyLayout*>(d)->setter;
      if (value == nullptr) setter = reinterpret_cast<py::PropertyLayout*>(d)->deleter;
      if (setter == nullptr) return;  // raises
      if (!PyFunction_Check(setter)) return end(Break::k_unsupported_mutation, "property with a C setter");
      observe(tree_.child(kNoNode, Step::kConst, setter), setter);
      return;
    }
    if (PyType_HasFeature(Py_TYPE(d), Py_TPFLAGS_HEAPTYPE)) {
      type_lookup(Py_TYPE(d), "__set__");
      return;
    }
    if (node == kNoNode) return;
    if (py::object_slot(o, d) != nullptr) {
      if (!overlay_.contains({o, d})) {
        hold(d);
        if (value == nullptr) return end(Break::k_unsupported_mutation, "a slot deleted");
        add_effect(Effect{EffectKind::kSlot, node, Ref::share(o), Ref::share(d), {}}, d);
      }
      return;
    }
    return end(Break::k_unsupported_mutation, std::string(type->tp_name) + "." + PyUnicode_AsUTF8(name));
  }
  if (node == kNoNode) return;
  if (py::instance_dict(o) == nullptr) return end(Break::k_unsupported_mutation, type->tp_name);
  instance_dict_node(o);
  PyObject* dict = py::instance_dict(o);
  if (value == nullptr) read_dict_present(dict, name);
  write_dict(dict, name);
}

void Recorder::finish_aliases() {
  const size_t count = effects_.size();
  for (size_t e = 0; e < count && !ended_; ++e) {
    const NodeId node = effects_[e].owner;
    if (node == kNoNode || tree_.node(node).step == Step::kConst) continue;
    // Two objects of one type that share no dict: told apart by the objects, not by their dicts.
    const bool attribute = tree_.node(node).step == Step::kInstanceDict;
    const NodeId mine = attribute ? tree_.node(node).parent : node;
    PyObject* object = object_of(mine);
    if (object == nullptr || tree_.node(mine).step == Step::kConst) continue;
    for (const auto& [other, id] : table_) {
      if (id == mine || Py_TYPE(other) != Py_TYPE(object) || tree_.node(id).step == Step::kInstanceDict)
        continue;
      tree_.check(std::max(id, mine), CheckKind::kNotSameAs, nullptr, std::min(id, mine));
    }
  }
}

std::vector<bool> Recorder::audit_skips() const {
  std::vector<bool> skip(tree_.size());
  for (const Effect& e : effects_) {
    if (e.owner != kNoNode) skip[e.owner] = true;
  }
  return skip;
}

}  // namespace flashpoint
