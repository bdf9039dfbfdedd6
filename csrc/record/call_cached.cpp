// Calls of functools.lru_cache wrappers.
//
// What a cached function did to find its answer is not repeated by the next call in eager mode, which finds
// the answer in the cache. So a miss runs unwatched, and hit and miss are recorded alike: what is guarded is
// that the cache still holds this very result under this key.
#include <string>
#include <utility>
#include <vector>

#include "py/key_hash.h"
#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/graph_recorder.h"
#include "record/recorder.h"
#include "record/rules/rules.h"

namespace flashpoint {

namespace {

struct CacheParts {
  PyObject* attributes = nullptr;
  PyObject* results = nullptr;  // the last dict that a wrapper owns besides its attributes
  PyObject* keyword_mark = nullptr;
};

CacheParts parts_of(PyObject* wrapper) {
  CacheParts found{.attributes = py::instance_dict(wrapper)};
  Py_TYPE(wrapper)->tp_traverse(
      wrapper,
      [](PyObject* referent, void* arg) {
        auto* f = static_cast<CacheParts*>(arg);
        if (PyDict_CheckExact(referent) && referent != f->attributes) f->results = referent;
        if (Py_IS_TYPE(referent, &PyBaseObject_Type)) f->keyword_mark = referent;
        return 0;
      },
      &found);
  return found;
}

// The key of a call as the wrapper makes it; null where Python code compares keys.
Ref key_of(const CacheParts& cache, const Effect& call, bool typed) {
  const Py_ssize_t total = static_cast<Py_ssize_t>(call.items.size());
  const Py_ssize_t named = call.key ? PyTuple_GET_SIZE(call.key.get()) : 0;
  for (const Ref& item : call.items) {
    if (!py::is_plain_key(item.get())) return Ref();
  }
  if (named > 0 && cache.keyword_mark == nullptr) return Ref();
  if (total == 1 && named == 0 && !typed &&
      (PyUnicode_CheckExact(call.items[0].get()) || PyLong_CheckExact(call.items[0].get())))
    return Ref::share(call.items[0].get());
  std::vector<PyObject*> parts;
  for (Py_ssize_t i = 0; i < total - named; ++i) parts.push_back(call.items[i].get());
  if (named > 0) parts.push_back(cache.keyword_mark);
  for (Py_ssize_t i = 0; i < named; ++i) {
    parts.push_back(PyTuple_GET_ITEM(call.key.get(), i));
    parts.push_back(call.items[total - named + i].get());
  }
  for (Py_ssize_t i = 0; typed && i < total; ++i)
    parts.push_back(reinterpret_cast<PyObject*>(Py_TYPE(call.items[i].get())));
  Ref key = Ref::steal(PyTuple_New(static_cast<Py_ssize_t>(parts.size())));
  for (size_t i = 0; key && i < parts.size(); ++i) PyTuple_SET_ITEM(key.get(), i, Py_NewRef(parts[i]));
  return key;
}

// Numbers, text and tuples of them, sizes too: equal by value.
bool is_value_key(PyObject* o) {
  if (is_primitive(o) || rules().is_value_type(Py_TYPE(o))) return true;
  if (!PyTuple_CheckExact(o) && !rules().is_size(o)) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(o); ++i) {
    if (!is_value_key(PyTuple_GET_ITEM(o, i))) return false;
  }
  return true;
}

std::string name_of(PyObject* wrapper) {
  Ref name = Ref::steal(PyObject_GetAttrString(wrapper, "__qualname__"));
  if (!name || !PyUnicode_Check(name.get())) {
    PyErr_Clear();
    return "functools.lru_cache";
  }
  return PyUnicode_AsUTF8(name.get());
}

}  // namespace

// Of a tuple that is made in the call: what in it is older is the very object at each replay.
void Recorder::pin_elements(PyObject* o) {
  if (!PyTuple_CheckExact(o)) return;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(o) && !ended_; ++i) {
    PyObject* element = PyTuple_GET_ITEM(o, i);
    if (is_primitive(element)) continue;
    if (node_of(element) == kNoNode) {
      pin_elements(element);
    } else {
      read_hash(element);
      pin(element);
    }
  }
}

void Recorder::call_cached(PyObject* f, PyObject* const* args, Py_ssize_t n, PyObject* kwnames,
                           Pending& pending) {
  Ref wrapped = Ref::steal(PyObject_GetAttrString(f, "__wrapped__"));
  if (!wrapped) {
    PyErr_Clear();
    return end(Break::k_cached_call, name_of(f));
  }
  // Its cache is a constant of the recording, so it has to be this very wrapper.
  if (node_of(f) == kNoNode) return end(Break::k_cached_call, name_of(f));
  pin(f);
  // Generic types made of types: values, whoever made them.
  PyObject* module = PyFunction_Check(wrapped.get())
                         ? PyDict_GetItemString(PyFunction_GET_GLOBALS(wrapped.get()), "__name__")
                         : nullptr;
  const bool typing =
      module != nullptr && PyUnicode_Check(module) && PyUnicode_CompareWithASCIIString(module, "typing") == 0;
  const Py_ssize_t total = n + (kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames));
  CachedCall call{{EffectKind::kCachedCall, kNoNode, Ref::share(f), Ref::share(kwnames), {}}};
  for (Py_ssize_t i = 0; i < total && !ended_; ++i) {
    call.again.items.push_back(Ref::share(args[i]));
    if (is_value_key(args[i])) {
      read_deep(args[i]);
      read_hash(args[i]);
      continue;
    }
    // Found in the cache by its address, or by code of its own: the very object.
    if (typing && node_of(args[i]) == kNoNode && !is_tensor(args[i])) {
      pin_elements(args[i]);
      continue;
    }
    if (is_tensor(args[i]) || node_of(args[i]) == kNoNode) return end(Break::k_cached_call, name_of(f));
    read_hash(args[i]);
    pin(args[i]);
  }
  if (ended_) return;
  observe(tree_.child(kNoNode, Step::kConst, wrapped.get()), wrapped.get());
  PyObject* results = parts_of(f).results;
  // Without a place in the cache (maxsize=0) every call runs the function.
  if (!typing && results == nullptr) return end(Break::k_cached_call, name_of(f));
  call.tag = results == nullptr ? 0 : py::dict_tag(results);
  bool* observing = graph_.observing();
  const bool saved = observing != nullptr && std::exchange(*observing, false);
  {
    const NoTracerDispatchMode hidden;
    pending.answer = PyObject_Vectorcall(f, args, static_cast<size_t>(n), kwnames);
  }
  if (observing != nullptr) *observing = saved;
  if (pending.answer == nullptr) {  // not cached: it runs at every call
    pending.raise = true;
    return graph_.break_off(GraphBreak::stopped, "a cached function raised an exception");
  }
  pending.word = typing ? kPendingTyping : kPendingCached;
  pending.data = reinterpret_cast<void*>(cached_calls_.size());
  cached_calls_.push_back(std::move(call));
}

void Recorder::after_cached(const Pending& pending, PyObject* result) {
  if (result == nullptr) return;
  CachedCall& call = cached_calls_[reinterpret_cast<size_t>(pending.data)];
  PyObject* wrapper = call.again.object.get();
  if (pending.word == kPendingTyping) {
    if (!is_primitive(result)) const_node(result);
    return;
  }
  const CacheParts cache = parts_of(wrapper);
  if (cache.results == nullptr || PyDict_GET_SIZE(cache.results) == 0)
    return end(Break::k_cached_call, name_of(wrapper));
  if (py::dict_tag(cache.results) != call.tag) {
    // It ran. It may have handed out what this recording made and stored somewhere.
    for (const Effect& e : effects_) {
      if (e.kind != EffectKind::kCachedCall) return end(Break::k_cached_call, name_of(wrapper));
    }
  }
  if (is_tensor(result) && graph_.is_known(unpack_tensor(result)) && node_of(result) == kNoNode)
    return end(Break::k_cached_call, name_of(wrapper));
  const NodeId node = tree_.child(kNoNode, Step::kConst, cache.results);
  bool found = false;
  for (const bool typed : {false, true}) {
    Ref key = key_of(cache, call.again, typed);
    PyObject* held = key ? py::dict_get(cache.results, key.get()) : nullptr;
    if (held == nullptr || py::cached_result(held) != result) continue;
    found = true;
    Ref asked = Ref::steal(PyTuple_Pack(2, wrapper, key.get()));
    if (!cached_keys_) cached_keys_ = Ref::steal(PySet_New(nullptr));
    if (PySet_Contains(cached_keys_.get(), asked.get()) == 0 &&
        PySet_Add(cached_keys_.get(), asked.get()) == 0)
      tree_.check_place(node, CheckKind::kCachedResult, key.get(), result);
    break;
  }
  if (!found) {
    Ref tag = Ref::steal(PyLong_FromUnsignedLongLong(py::dict_tag(cache.results)));
    tree_.check(node, CheckKind::kCacheTag, tag.get());
  }
  // Asked again by every replay: the hit counts, and a bounded cache keeps what was used last.
  call.again.owner = tree_.child(kNoNode, Step::kConst, wrapper);
  ++writes_;
  effects_.push_back(std::move(call.again));
  if (!is_primitive(result)) observe(tree_.child(kNoNode, Step::kConst, result), result);
}

}  // namespace flashpoint
