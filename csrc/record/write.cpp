// Writes to objects that existed before the call: the effect log and its overlay.
//
// All handlers run before the instruction does, while containers still have their earlier contents. What
// an effect stores in the end is read from the live object when the recording finishes (replay/recipe).
#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/graph_recorder.h"
#include "record/recorder.h"
#include "record/rules/rules.h"
#include "record/visible_death.h"

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

// A recording keeps what it has seen alive, and a replay drops it in another order: where the program would
// notice, the instruction is not recorded.
constexpr const char* kNoticed = "what it held would be seen to die";
constexpr const char* kKept = "what it is given would be seen to die";

bool is_noticed_to_go(const Recorder& r, PyObject* old) {
  return old != nullptr && is_visibly_dropped(old, r.node_of(old) != kNoNode);
}

bool holds_noticed(const Recorder& r, PyObject* container) {
  struct Visit {
    const Recorder& recorder;
    static int part(PyObject* o, void* visit) {
      return is_noticed_to_go(static_cast<Visit*>(visit)->recorder, o) ? 1 : 0;
    }
  } visit{r};
  return Py_TYPE(container)->tp_traverse(container, Visit::part, &visit) != 0;
}

}  // namespace

bool Recorder::is_overlaid(PyObject* storage, PyObject* key) const {
  return overlay_.contains({storage, canonical(key)});
}

bool Recorder::touched(PyObject* storage) const { return touched_.contains(storage); }

void Recorder::add_effect(Effect effect, PyObject* key) {
  hold(effect.object.get());
  forget_reads();
  ++writes_;
  overlay_.try_emplace({effect.object.get(), key}, effects_.size());
  touched_.insert(effect.object.get());
  effects_.push_back(std::move(effect));
}

bool Recorder::settle(PyObject* c) {
  const NodeId node = node_of(c);
  if (node == kNoNode || overlaid_whole(c) || settled_.contains(c)) return true;
  if (PyList_Check(c)) {
    if (written_in_items(c)) {
      shadow_.pin_stores(c);
      const auto n = static_cast<int32_t>(PyList_GET_SIZE(c));
      for (int32_t i = 0; i < n && !ended_; ++i) {
        if (overlay_.contains({c, index_place(i)})) continue;
        PyObject* item = PyList_GET_ITEM(c, i);
        if (is_primitive(item)) {
          tree_.check_place(node, CheckKind::kListItemValue, nullptr, item, i);
        } else {
          observe(tree_.child(node, Step::kListItem, nullptr, i), item);
        }
      }
      if (ended_) return true;  // with what was written so far
      for (Effect& e : effects_) e.superseded = e.superseded || e.object.get() == c;
      add_effect(Effect{EffectKind::kListContents, node, Ref::share(c), Ref(), {}}, c);
      return true;
    }
    // Written in parts means appended to: what was there at entry is the beginning of it.
    const size_t* known = overlay_.find({c, nullptr});
    if (known == nullptr || effects_[*known].kind != EffectKind::kListAppend) return false;
    Effect& append = effects_[*known];
    const Py_ssize_t n = PyList_GET_SIZE(c) - static_cast<Py_ssize_t>(append.items.size());
    if (n < 0) return false;
    for (size_t i = 0; i < append.items.size(); ++i) {
      if (PyList_GET_ITEM(c, n + static_cast<Py_ssize_t>(i)) != append.items[i].get()) return false;
    }
    tree_.check(node, CheckKind::kLen, nullptr, static_cast<int32_t>(n));
    for (Py_ssize_t i = 0; i < n && !ended_; ++i) {
      PyObject* item = PyList_GET_ITEM(c, i);
      if (is_primitive(item)) {
        tree_.check_place(node, CheckKind::kListItemValue, nullptr, item, static_cast<int32_t>(i));
      } else {
        observe(tree_.child(node, Step::kListItem, nullptr, static_cast<int32_t>(i)), item);
      }
    }
    if (ended_) return true;  // with what was written so far
    append.superseded = true;
    add_effect(Effect{EffectKind::kListContents, node, Ref::share(c), Ref(), {}}, c);
    return true;
  }
  if (!PyDict_Check(c) || PyODict_Check(c)) return false;
  // Keys that were there at entry keep their places, new ones follow them.
  FlatSet<PyObject*> inserted;
  for (const Effect& e : effects_) {
    if (e.object.get() != c) continue;
    if (e.kind != EffectKind::kDictItem) return false;
    if (e.inserted) inserted.insert(e.key.get());
  }
  // Where a removed key was is not seen any more.
  const auto whole = keys_before_removal_.find(c);
  Ref present = Ref::steal(whole == keys_before_removal_.end() ? PyDict_Keys(c) : nullptr);
  PyObject* all = present ? present.get() : whole->second.get();
  Ref keys = Ref::steal(PyList_New(0));
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(all); ++i) {
    PyObject* key = PyList_GET_ITEM(all, i);
    if (inserted.contains(canonical(key))) continue;
    if (!hashable_key(key) || PyTuple_Check(key)) return false;
    read_hash(key);
    PyList_Append(keys.get(), key);
  }
  Ref tuple = Ref::steal(PyList_AsTuple(keys.get()));
  hold(tuple.get());
  tree_.check(node, CheckKind::kKeys, tuple.get());
  settled_.insert(c);
  return true;
}

void Recorder::write_dict(PyObject* dict, PyObject* key, bool removing) {
  if (read_lazily(dict)) return end(Break::k_read_after_mutation, "a dict that is being iterated");
  const NodeId node = node_of(dict);
  if (node == kNoNode) return;
  forget_reads();
  if (overlaid_whole(dict)) return;
  if (!PyUnicode_CheckExact(key)) return write_contents(dict);
  Py_INCREF(key);
  PyUnicode_InternInPlace(&key);
  Ref owned = Ref::steal(key);
  hold(key);
  PyObject* const old = PyDict_GetItemWithError(dict, key);
  const bool present = old != nullptr;
  PyErr_Clear();
  if (is_noticed_to_go(*this, old)) return end(Break::k_unsupported_mutation, kNoticed);
  if (removing && !keys_before_removal_.contains(dict))
    keys_before_removal_.emplace(dict, Ref::steal(PyDict_Keys(dict)));
  size_t* known = overlay_.find({dict, key});
  if (known == nullptr) {
    Effect effect{EffectKind::kDictItem, node, Ref::share(dict), owned, {}};
    effect.inserted = !present;
    effect.removed = removing;
    add_effect(std::move(effect), key);
    return shadow_.stored(dict, key);
  }
  shadow_.stored(dict, key);
  Effect& earlier = effects_[*known];
  if (removing) {
    earlier.removed = true;
  } else if (earlier.removed && !present) {
    // Deleted and set again: it goes to the end of the dict's order.
    earlier.superseded = true;
    Effect effect{EffectKind::kDictItem, node, Ref::share(dict), owned, {}};
    effect.inserted = earlier.inserted;
    effect.removed = effect.moved = true;
    *known = effects_.size();
    add_effect(std::move(effect), key);
  }
}

void Recorder::write_contents(PyObject* c) {
  if (read_lazily(c)) return end(Break::k_read_after_mutation, "a container that is being iterated");
  const NodeId node = node_of(c);
  if (node == kNoNode || ended_) return;
  forget_reads();
  if (overlaid_whole(c)) return;
  shadow_.pin_stores(c);
  if (touched(c) && !settle(c)) return end(Break::k_read_after_mutation, Py_TYPE(c)->tp_name);
  if (overlaid_whole(c)) return;
  EffectKind kind;
  if (PyList_Check(c)) {
    kind = EffectKind::kListContents;
  } else if (PyDict_Check(c)) {
    kind = EffectKind::kDictContents;
  } else if (PySet_Check(c)) {
    kind = EffectKind::kSetContents;
  } else if (rules().is_exact_deque(c)) {
    kind = EffectKind::kDequeContents;
  } else {
    return end(Break::k_unsupported_mutation, Py_TYPE(c)->tp_name);
  }
  if (holds_noticed(*this, c)) return end(Break::k_unsupported_mutation, kNoticed);
  read_elements(c);
  if (ended_) return;
  add_effect(Effect{kind, node, Ref::share(c), Ref(), {}}, c);
}

void Recorder::append_to_list(PyObject* list, PyObject* item) {
  if (read_lazily(list)) return end(Break::k_read_after_mutation, "a list that is being iterated");
  const NodeId node = node_of(list);
  if (node == kNoNode || overlaid_whole(list)) return;
  if (written_in_items(list)) return settle(list) ? void() : end(Break::k_read_after_mutation, "list");
  if (is_fresh_and_noticed(item) && node_of(item) == kNoNode)
    return end(Break::k_unsupported_mutation, kKept);
  ++writes_;
  if (const size_t* effect = overlay_.find({list, nullptr})) {
    effects_[*effect].items.push_back(Ref::share(item));
    return;
  }
  // What was learned of the list before would be wrong afterwards only for reads to come; those end the
  // recording.
  add_effect(Effect{EffectKind::kListAppend, node, Ref::share(list), Ref(), {Ref::share(item)}}, nullptr);
}

bool Recorder::written_in_items(PyObject* list) const {
  return PyList_CheckExact(list) && touched(list) && !overlaid_whole(list) &&
         !overlay_.contains({list, nullptr});
}

bool Recorder::write_list_item(PyObject* list, PyObject* key, PyObject* value) {
  const auto is_number = [](PyObject* o) { return PyLong_CheckExact(o) || PyFloat_CheckExact(o); };
  const NodeId node = node_of(list);
  if (node == kNoNode || ended_ || !PyList_CheckExact(list) || !PyLong_CheckExact(key) || value == nullptr ||
      !is_number(value) || overlaid_whole(list) || read_lazily(list) ||
      (touched(list) && !written_in_items(list)))
    return false;
  int overflow = 0;
  int64_t index = PyLong_AsLongLongAndOverflow(key, &overflow);
  const Py_ssize_t n = PyList_GET_SIZE(list);
  if (index < 0) index += n;
  if (overflow != 0 || index < 0 || index >= n || !is_number(PyList_GET_ITEM(list, index))) return false;
  const auto i = static_cast<int32_t>(index);
  PyObject* const place = index_place(i);
  if (!overlay_.contains({list, place})) {
    if (!shadow_.is_open_place(node, CheckKind::kListItemValue, nullptr, i)) return false;
    Ref at = Ref::steal(PyLong_FromLong(i));
    if (!at) return PyErr_Clear(), false;
    if (!touched(list)) read_length(list);
    add_effect(Effect{EffectKind::kListItem, node, Ref::share(list), std::move(at), {}}, place);
  } else {
    ++writes_;
    forget_reads();
  }
  shadow_.stored(list, place);
  return true;
}

void Recorder::write_cell(PyObject* cell) {
  ++writes_;
  if (node_of(cell) != kNoNode && is_noticed_to_go(*this, PyCell_GET(cell)))
    return end(Break::k_unsupported_mutation, kNoticed);
  shadow_.stored(cell, nullptr);
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
  if (is_tensor(o)) return write_tensor_attr(o, name, value);
  if (PyType_Check(o)) return write_type_attr(reinterpret_cast<PyTypeObject*>(o), name, value);
  if (rules().is_thread_local(type)) return write_thread_local(o, name, value);
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

void Recorder::write_thread_local(PyObject* local, PyObject* name, PyObject* value) {
  if (node_of(local) == kNoNode) return;
  forget_reads();
  PyObject* dict = thread_local_dict(local, name);
  if (dict == nullptr) return;
  if (value == nullptr) read_dict_present(dict, name);
  write_dict(dict, name, value == nullptr);
}

void Recorder::write_generic_attr(PyObject* o, PyObject* name, PyObject* value) {
  PyTypeObject* type = Py_TYPE(o);
  const NodeId node = node_of(o);
  if (node != kNoNode) forget_reads();
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
    if (PyObject** slot = py::object_slot(o, d)) {
      if (is_noticed_to_go(*this, *slot)) return end(Break::k_unsupported_mutation, kNoticed);
      shadow_.stored(o, d);
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
  PyObject* const dict = py::made_instance_dict(o);
  if (dict == nullptr) return end(Break::k_unsupported_mutation, type->tp_name);
  if (value != nullptr && is_fresh_and_noticed(value) && node_of(value) == kNoNode)
    return end(Break::k_unsupported_mutation, kKept);
  instance_dict_node(o);
  if (value == nullptr) read_dict_present(dict, name);
  write_dict(dict, name, value == nullptr);
}

// A class attribute, set through type's own setattr: a plain store that invalidates the class's version tag.
void Recorder::write_type_attr(PyTypeObject* type, PyObject* name, PyObject* value) {
  PyObject* object = reinterpret_cast<PyObject*>(type);
  PyTypeObject* meta = Py_TYPE(object);
  if (meta != &PyType_Type) {
    PyObject* set = type_lookup(meta, value == nullptr ? "__delattr__" : "__setattr__");
    if (set != nullptr && PyFunction_Check(set)) return;
    if (meta->tp_setattro != PyType_Type.tp_setattro)
      return end(Break::k_unsupported_mutation, "an attribute of a class with a metaclass");
    PyObject* d = type_lookup(meta, name);
    if (d != nullptr && Py_TYPE(d)->tp_descr_set != nullptr)
      return end(Break::k_unsupported_mutation, "a descriptor of a metaclass");
  }
  if (is_fresh_class(object)) return;
  // Special names change the class's slots; deletions would need to know what the bases provide.
  const char* text = PyUnicode_AsUTF8(name);
  const bool special = text == nullptr || (std::string_view(text).starts_with("__") &&
                                           std::string_view(text) != "__slotnames__");  // copyreg's memo
  if (value == nullptr || special || !PyUnicode_CheckExact(name) ||
      !PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) || PyType_HasFeature(type, Py_TPFLAGS_IMMUTABLETYPE) ||
      !PyUnicode_CHECK_INTERNED(name)) {
    PyErr_Clear();
    return end(Break::k_unsupported_mutation,
               std::string(type->tp_name) + "." + (text == nullptr ? "" : text));
  }
  if (node_of(object) == kNoNode) watch(object, tree_.child(kNoNode, Step::kTypeRoot, object));
  if (is_noticed_to_go(*this, PyDict_GetItemWithError(type->tp_dict, name)))
    return end(Break::k_unsupported_mutation, kNoticed);
  PyErr_Clear();
  shadow_.stored(object, name);
  if (overlay_.contains({object, name})) return;
  hold(name);
  written_types_.push_back(type);
  add_effect(Effect{EffectKind::kTypeAttr, node_of(object), Ref::share(object), Ref::share(name), {}}, name);
}

PyTypeObject* Recorder::written_provider(PyTypeObject* type, PyObject* name) const {
  if (written_types_.empty() || type->tp_mro == nullptr) return nullptr;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(type->tp_mro); ++i) {
    PyObject* base = PyTuple_GET_ITEM(type->tp_mro, i);
    if (overlay_.contains({base, canonical(name)})) return reinterpret_cast<PyTypeObject*>(base);
    PyObject* own = reinterpret_cast<PyTypeObject*>(base)->tp_dict;
    if (own != nullptr && PyDict_GetItemWithError(own, name) != nullptr) return nullptr;
  }
  return nullptr;
}

// An attribute of a tensor's own dict; a fresh tensor's is only followed, and must not leave the call.
void Recorder::write_tensor_attr(PyObject* tensor, PyObject* name, PyObject* value) {
  PyTypeObject* type = Py_TYPE(tensor);
  auto unsupported = [&] {
    end(Break::k_unsupported_mutation, std::string("Tensor.") + PyUnicode_AsUTF8(name));
  };
  if (!is_plain_tensor(tensor) || !PyUnicode_CheckExact(name)) return unsupported();
  PyObject* d = type_lookup(type, name);
  if (d != nullptr && PyUnicode_CompareWithASCIIString(name, "data") == 0) {
    if (value == nullptr || !is_plain_tensor(value) || under_function_mode_ || function_mode_answers())
      return unsupported();
    if (graph_.check_operand(unpack_tensor(tensor), ".data =") &&
        graph_.check_operand(unpack_tensor(value), ".data ="))
      sets_data_ = true;
    return;
  }
  if (d != nullptr && PyUnicode_CompareWithASCIIString(name, "grad") == 0) {
    if (value == nullptr || under_function_mode_ || function_mode_answers()) return unsupported();
    if (!graph_.is_base()) return need_base("a store to Tensor.grad");
    if (value != Py_None && !(is_plain_tensor(value) && graph_.is_known(unpack_tensor(value))))
      return unsupported();
    return write_grad(tensor);
  }
  if (d != nullptr) return unsupported();
  const NodeId node = node_of(tensor);
  if (node == kNoNode) return;
  if (value == nullptr) return unsupported();
  Ref dict = Ref::steal(PyObject_GenericGetDict(tensor, nullptr));  // made on first use, which nobody can see
  if (!dict) {
    PyErr_Clear();
    return unsupported();
  }
  PyObject* key = canonical(name);
  hold(key);
  if (overlaid(dict.get(), key)) return;
  add_effect(Effect{EffectKind::kTensorAttr, node, dict, Ref::share(key), {}}, key);
}

void Recorder::finish_aliases() {
  if (!effects_.empty() && !plain_calls_.empty()) Rules::keep_hooks_apart(*this);
  const size_t count = effects_.size();
  for (size_t e = 0; e < count && !ended_; ++e) {
    const NodeId node = effects_[e].owner;
    if (effects_[e].kind == EffectKind::kTypeAttr) continue;    // a class is guarded as the very object
    if (effects_[e].kind == EffectKind::kTensorGrad) continue;  // tensors of a base recording are distinct
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

// The filters themselves are a list of Python's. That they changed makes every module forget which warnings
// it has shown, once, however often it is said.
void Recorder::change_filters() {
  Ref module = Ref::steal(PyImport_ImportModule("_warnings"));
  Ref found = Ref::steal(module ? PyObject_GetAttrString(module.get(), "_filters_mutated") : nullptr);
  if (!found) return PyErr_Clear();
  PyObject* const function = found.get();
  const NodeId node = tree_.child(kNoNode, Step::kConst, function);
  hold(function);
  if (overlay_.contains({function, function})) return;
  add_effect(Effect{EffectKind::kCachedCall, node, Ref::share(function), {}, {}}, function);
}

std::vector<bool> Recorder::audit_skips() const {
  std::vector<bool> skip(tree_.size());
  for (const Effect& e : effects_) {
    if (e.owner == kNoNode) continue;
    skip[e.owner] = true;
    // What the object lacked is asked of the object.
    if (tree_.node(e.owner).step == Step::kInstanceDict) skip[tree_.node(e.owner).parent] = true;
  }
  // Lookups on a class see what was written to its bases.
  for (PyTypeObject* written : written_types_) {
    for (const auto& [object, node] : table_) {
      if (!PyType_Check(object) || !PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(object), written))
        continue;
      skip[node] = true;
      const NodeId root = tree_.find_child(kNoNode, Step::kTypeRoot, object, 0);
      if (root != kNoNode) skip[root] = true;
    }
  }
  return skip;
}

}  // namespace flashpoint
