// Calls of functools.lru_cache wrappers.
//
// A hit hands out what an earlier call made; a miss runs the wrapped function, whose frame is recorded.
// Either way the next call finds the result in the cache, so what is guarded is that the cache still holds
// this very result under this key. On a miss the function must have done nothing else: its effects would not
// be repeated by an eager call.
#include <string>

#include <utility>

#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/graph_recorder.h"
#include "record/recorder.h"
#include "record/rules/rules.h"

namespace flashpoint {

namespace {

// The dict in which a wrapper keeps results: the last dict it owns besides its attributes.
PyObject* cache_of(PyObject* wrapper) {
  struct Found {
    PyObject* attributes;
    PyObject* cache;
  } found{py::instance_dict(wrapper), nullptr};
  Py_TYPE(wrapper)->tp_traverse(
      wrapper,
      [](PyObject* referent, void* arg) {
        auto* f = static_cast<Found*>(arg);
        if (PyDict_CheckExact(referent) && referent != f->attributes) f->cache = referent;
        return 0;
      },
      &found);
  return found.cache;
}

// The key of a call without keywords, as an untyped wrapper makes it; another wrapper does not find it.
Ref key_of(const Operands& o) {
  if (o.kwnames != nullptr) return Ref();
  for (Py_ssize_t i = 0; i < o.nargs; ++i) {
    if (!is_primitive(o.args[i])) return Ref();
  }
  if (o.nargs == 1 && (PyUnicode_CheckExact(o.args[0]) || PyLong_CheckExact(o.args[0])))
    return Ref::share(o.args[0]);
  Ref key = Ref::steal(PyTuple_New(o.nargs));
  for (Py_ssize_t i = 0; key && i < o.nargs; ++i) PyTuple_SET_ITEM(key.get(), i, Py_NewRef(o.args[i]));
  return key;
}

// Numbers, text and tuples of them: equal by value.
bool is_value_key(PyObject* o) {
  if (is_primitive(o)) return true;
  if (!PyTuple_CheckExact(o)) return false;
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

void Recorder::call_cached(PyObject* f, PyObject* const* args, Py_ssize_t n, PyObject* kwnames,
                           Pending& pending) {
  Ref wrapped = Ref::steal(PyObject_GetAttrString(f, "__wrapped__"));
  if (!wrapped || !PyFunction_Check(wrapped.get())) {
    PyErr_Clear();
    return end(Break::k_cached_call, name_of(f));
  }
  PyObject* module = PyFunction_GET_GLOBALS(wrapped.get());
  PyObject* name = PyDict_GetItemString(module, "__name__");
  // Generic types made of types: values, whoever made them.
  const bool typing =
      name != nullptr && PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, "typing") == 0;
  const Py_ssize_t total = n + (kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames));
  for (Py_ssize_t i = 0; i < total && !ended_; ++i) {
    if (is_value_key(args[i])) {
      read_deep(args[i]);
      read_hash(args[i]);
      continue;
    }
    // Found in the cache by its address, or by code of its own: the very object.
    if (typing && node_of(args[i]) == kNoNode && !is_tensor(args[i])) continue;
    if (is_tensor(args[i]) || node_of(args[i]) == kNoNode) return end(Break::k_cached_call, name_of(f));
    read_hash(args[i]);
    pin(args[i]);
  }
  observe(tree_.child(kNoNode, Step::kConst, wrapped.get()), wrapped.get());
  if (typing) {
    // What it does to find the answer is its own affair.
    bool* observing = graph_.observing();
    const bool saved = observing != nullptr && std::exchange(*observing, false);
    pending.answer = PyObject_Vectorcall(f, args, static_cast<size_t>(n), kwnames);
    if (observing != nullptr) *observing = saved;
    if (pending.answer == nullptr) PyErr_Clear();  // it raises again, watched
  }
  pending.word = typing ? kPendingTyping : kPendingCached;
  pending.data = reinterpret_cast<void*>(cached_calls_.size());
  cached_calls_.push_back({frames_entered_, writes_, graph_.node_count()});
}

void Recorder::after_cached(const Operands& o, const Pending& pending, PyObject* result) {
  if (result == nullptr) return;
  if (pending.word == kPendingTyping) {
    if (!is_primitive(result)) const_node(result);
    return;
  }
  // A chain of callables ends in the wrapper; its arguments are the event's only for a direct call.
  PyObject* wrapper = o.a;
  const CachedCall before = cached_calls_[reinterpret_cast<size_t>(pending.data)];
  const bool missed = frames_entered_ != before.frames;
  if (!rules().is_lru_cache(wrapper))
    return end(Break::k_cached_call, "a cached function called through another object");
  PyObject* cache = cache_of(wrapper);
  // Without a place in the cache (maxsize=0) every call runs the function.
  if (cache == nullptr || PyDict_GET_SIZE(cache) == 0 ||
      (missed &&
       (!is_primitive(result) || writes_ != before.writes || graph_.node_count() != before.nodes))) {
    return end(Break::k_cached_call, name_of(wrapper));
  }
  const NodeId node = tree_.child(kNoNode, Step::kConst, cache);
  Ref key = key_of(o);
  PyObject* found = key ? PyDict_GetItemWithError(cache, key.get()) : nullptr;
  PyErr_Clear();
  if (found != nullptr) {
    hold(key.get());
    tree_.check(tree_.child(node, Step::kDictValue, key.get()), CheckKind::kIs, found);
  } else {
    Ref tag = Ref::steal(PyLong_FromUnsignedLongLong(py::dict_tag(cache)));
    tree_.check(node, CheckKind::kCacheTag, tag.get());
  }
  // Asked again by every replay: the hit counts, and a bounded cache keeps what was used last.
  Effect again{EffectKind::kCachedCall,
               tree_.child(kNoNode, Step::kConst, wrapper),
               Ref::share(wrapper),
               Ref::share(o.kwnames),
               {}};
  const Py_ssize_t total = o.nargs + (o.kwnames == nullptr ? 0 : PyTuple_GET_SIZE(o.kwnames));
  for (Py_ssize_t i = 0; i < total; ++i) again.items.push_back(Ref::share(o.args[i]));
  ++writes_;
  effects_.push_back(std::move(again));
  if (!is_primitive(result)) observe(tree_.child(kNoNode, Step::kConst, result), result);
}

}  // namespace flashpoint
