// Numbers in tuples, lists and dicts that the call makes: learning rates on their way from one list to
// another, what *args and **kwargs take.
//
// A container of the call is told by its address, so nothing needs to follow where the program puts it. It is
// known from the moment a number with a tag goes in, and only where nothing but the frame's slots refers to
// it then, so that no iterator and no other container had it before. From then on every event it is an
// operand of either keeps the numbers followed (it is iterated, indexed, unpacked, stored, handed to Python
// code), or uses all of them. C code that finds it inside another container reads it through the recorder,
// which says so (Shadow::read_inside).
#include <algorithm>

#include "py/frame.h"
#include "py/iterators.h"
#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/recorder.h"
#include "record/rules/rules.h"
#include "record/shadow.h"

namespace flashpoint {

bool runs_as_itself(PyObject* function) {
  const Rules& known = rules();
  PyObject* code = PyFunction_GET_CODE(function);
  return !known.is_graph_break(code) && !known.is_hash_by_address(code) && !known.is_pure_python(code) &&
         disabling_mark(function) == nullptr && !known.is_unwatched(code) &&
         known.tracing_query(code) == nullptr;
}

namespace {

constexpr int kDeepest = 16;

bool is_sequence(PyObject* o) { return PyList_CheckExact(o) || PyTuple_CheckExact(o); }

PyMethodDef* builtin_method(PyTypeObject& type, const char* name) {
  return reinterpret_cast<PyMethodDescrObject*>(PyDict_GetItemString(type.tp_dict, name))->d_method;
}

PyMethodDef* called_method(PyObject* callable) {
  return Py_IS_TYPE(callable, &PyMethodDescr_Type)
             ? reinterpret_cast<PyMethodDescrObject*>(callable)->d_method
             : nullptr;
}

}  // namespace

PyObject* name_in(PyObject* dict, PyObject* key) {
  PyObject *name, *value;
  Py_ssize_t pos = 0;
  while (PyDict_Next(dict, &pos, &name, &value)) {
    if (name == key) return key;
    if (PyUnicode_CheckExact(name) && PyUnicode_CheckExact(key) && PyUnicode_Compare(name, key) == 0)
      return name;
    if (PyLong_CheckExact(name) && PyLong_CheckExact(key) && PyObject_RichCompareBool(name, key, Py_EQ) == 1)
      return name;
  }
  return nullptr;
}

bool is_plain_key(PyObject* o) { return PyUnicode_CheckExact(o) || PyLong_CheckExact(o); }

bool is_list_append(PyObject* callable) {
  static PyMethodDef* const append = builtin_method(PyList_Type, "append");
  return called_method(callable) == append;
}

bool runs_as_python(PyObject* callable) {
  if (PyMethod_Check(callable)) callable = PyMethod_GET_FUNCTION(callable);
  if (!PyFunction_Check(callable)) {
    static PyObject* const name = PyUnicode_InternFromString("__call__");
    PyTypeObject* type = Py_TYPE(callable);
    if (PyType_Check(callable) || !PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) return false;
    callable = _PyType_Lookup(type, name);
    if (callable == nullptr || !PyFunction_Check(callable)) return false;
  }
  return runs_as_itself(callable);
}

Shadow::Container* Shadow::container(PyObject* o) {
  if (o == nullptr || containers_.empty()) return nullptr;
  Container* found = containers_.find(o);
  return found != nullptr && found->live ? found : nullptr;
}

bool Shadow::follows(PyObject* o) const { return const_cast<Shadow*>(this)->container(o) != nullptr; }

Shadow::Container& Shadow::follow_new(PyObject* o) {
  const auto [found, added] = containers_.try_emplace(o);
  if (added) kept_.push_back(Ref::share(o));
  if (!found->live) *found = Container{};
  found->live = true;
  return *found;
}

void Shadow::put(Container& container, PyObject* key, Tag tag) {
  for (auto& [known, held] : container.entries) {
    if (known != key) continue;
    held = tag;
    return;
  }
  container.entries.emplace_back(key, tag);
}

Tag Shadow::kept_item(PyObject* o, PyObject* key, PyObject* value) const {
  const Container* found = const_cast<Shadow*>(this)->container(o);
  if (found == nullptr || key == nullptr) return 0;
  for (const auto& [known, held] : found->entries) {
    if (known != key) continue;
    const Tag tag = table_.resolve(held);
    return tag != 0 && table_.value(tag) == value ? tag : 0;
  }
  return 0;
}

Tag Shadow::item_tag(PyObject* o, Py_ssize_t index, PyObject* value) const {
  return containers_.empty() ? 0 : kept_item(o, index_key(index), value);
}

Tag Shadow::item_tag(PyObject* o, PyObject* key, PyObject* value) const {
  return containers_.empty() ? 0 : kept_item(o, key, value);
}

// What is made of slots of a frame is nobody else's yet.
Tag Shadow::built(PyObject* made, PyObject* const* slots, const Tag* tags, int count) {
  Container& container = follow_new(made);
  if (!PyDict_CheckExact(made)) {
    for (int i = 0; i < count; ++i) {
      if (table_.resolve(tags[i]) != 0) put(container, index_key(i), tags[i]);
    }
    return 0;
  }
  const bool pairs = count > 0;
  count = pairs ? count : -count;
  for (int i = pairs ? 1 : 0; i < count; i += pairs ? 2 : 1) {
    if (table_.resolve(tags[i]) == 0) continue;
    PyObject* const key = pairs ? slots[i - 1] : PyTuple_GET_ITEM(slots[count], i);
    PyObject* const name = is_plain_key(key) ? name_in(made, key) : nullptr;
    if (name != nullptr) {
      put(container, name, tags[i]);
    } else {
      guard(tags[i], true);
    }
  }
  return 0;
}

void Shadow::collect_inside(PyObject* o, std::vector<Tag>& tags, int depth) const {
  const Container* found = const_cast<Shadow*>(this)->container(o);
  if (found == nullptr || depth > kDeepest) return;
  for (const auto& [key, tag] : found->entries) {
    if (table_.resolve(tag) != 0) tags.push_back(tag);
  }
  for (PyObject* source : found->sources) collect_inside(source, tags, depth + 1);
  for (Py_ssize_t i = 0; is_sequence(o) && i < Py_SIZE(o); ++i)
    collect_inside(PyList_CheckExact(o) ? PyList_GET_ITEM(o, i) : PyTuple_GET_ITEM(o, i), tags, depth + 1);
  PyObject *key, *value;
  Py_ssize_t pos = 0;
  PyObject* const dict = PyDict_CheckExact(o) || Py_TYPE(o)->tp_dictoffset == 0 ? o : py::instance_dict(o);
  while (dict != nullptr && PyDict_CheckExact(dict) && PyDict_Next(dict, &pos, &key, &value))
    collect_inside(value, tags, depth + 1);
}

void Shadow::pin_inside(PyObject* o) {
  if (container(o) == nullptr) return;
  std::vector<Tag> inside;
  collect_inside(o, inside);
  for (const Tag tag : inside) {
    guard(tag, true);
    if (recorder_.ended()) return;
  }
}

void Shadow::collect_containers(const EvalFrame&, const Operands& o) {
  used_containers_.clear();
  if (containers_.empty()) return;
  const auto add = [&](PyObject* operand) {
    if (operand == nullptr) return;
    // What a bound method of C code is bound to is an operand as well.
    if (PyCFunction_Check(operand))
      operand = PyCFunction_GET_SELF(operand);
    else if (Py_IS_TYPE(operand, &_PyMethodWrapper_Type))
      operand = reinterpret_cast<py::MethodWrapperLayout*>(operand)->self;
    const bool known =
        std::find(used_containers_.begin(), used_containers_.end(), operand) != used_containers_.end();
    if (!known && container(operand) != nullptr) used_containers_.push_back(operand);
  };
  for (PyObject* operand : {o.a, o.b, o.c}) add(operand);
  const Py_ssize_t total = o.nargs + (o.kwnames == nullptr ? 0 : PyTuple_GET_SIZE(o.kwnames));
  for (Py_ssize_t i = 0; i < total; ++i) add(o.args[i]);
}

// f(*args, **kwargs): the tags of what the tuple and the dict on the stack hold.
void Shadow::spread(const EvalFrame& frame, const Operands& o) {
  PyObject* const* const top = frame.stack_pointer;
  PyObject* mapping = nullptr;
  PyObject* positional = nullptr;
  if (top[-2] == o.a) {
    positional = top[-1];
  } else if (top[-3] == o.a && PyDict_CheckExact(top[-1])) {
    positional = top[-2];
    mapping = top[-1];
  } else {
    return;
  }
  const Py_ssize_t named = o.kwnames == nullptr ? 0 : PyTuple_GET_SIZE(o.kwnames);
  call_tags_.resize(static_cast<size_t>(o.nargs + named));
  for (Py_ssize_t i = 0; i < o.nargs; ++i) call_tags_[i] = item_tag(positional, i, o.args[i]);
  for (Py_ssize_t i = 0; mapping != nullptr && i < named; ++i)
    call_tags_[o.nargs + i] = item_tag(mapping, PyTuple_GET_ITEM(o.kwnames, i), o.args[o.nargs + i]);
  for (const Tag tag : call_tags_) {
    if (tag != 0) used_.push_back(tag);
  }
  if (std::all_of(call_tags_.begin(), call_tags_.end(), [](Tag tag) { return tag == 0; })) call_tags_.clear();
}

// Every reference to it is one from a slot of the frame.
bool Shadow::owned_by_frame(const EvalFrame& frame, PyObject* o) const {
  Py_ssize_t slots = 0;
  for (PyObject** slot = py::frame_slots(frame.frame); slot < frame.stack_pointer; ++slot)
    slots += *slot == o;
  return Py_REFCNT(o) == slots;
}

// A number with a tag goes into a list or dict of the call. key: null for the end of a list.
bool Shadow::put_item(EvalFrame& frame, PyObject* o, PyObject* key, Tag tag, PyObject* value) {
  tag = table_.resolve(tag);
  const bool list = PyList_CheckExact(o);
  if (tag == 0 || table_.value(tag) != value || !table_.is_open(tag) || table_.is_late(tag)) return false;
  if (!(list || PyDict_CheckExact(o)) || recorder_.node_of(o) != kNoNode || recorder_.read_lazily(o))
    return false;
  if (list) {
    Py_ssize_t index = Py_SIZE(o);
    if (key != nullptr) {
      if (!PyLong_CheckExact(key)) return false;
      index = PyLong_AsSsize_t(key);
      if (index < 0) index += Py_SIZE(o);
      if (PyErr_Occurred() != nullptr) PyErr_Clear();
      if (index < 0 || index >= Py_SIZE(o)) return false;
    }
    key = index_key(index);
  } else {
    if (!is_plain_key(key)) return false;
    PyObject* const known = name_in(o, key);
    if (known != nullptr && known != key) return false;
  }
  if (container(o) == nullptr && !owned_by_frame(frame, o)) return false;
  put(follow_new(o), key, tag);
  return follows_event_ = true;
}

// Which element comes next, of an iterator that is known.
bool Shadow::follow_next(EvalFrame& frame, PyObject* iterator) {
  const auto next_of = [&](PyObject* source) -> Tag {
    PyObject* const of = py::is_known_iterator(Py_TYPE(source)) ? py::iterator_source(source, 0) : nullptr;
    if (of == nullptr || container(of) == nullptr) return 0;
    const Py_ssize_t at = py::next_index(source);
    if (at < 0 || !is_sequence(of) || at >= Py_SIZE(of)) return 0;
    return item_tag(of, at, PyList_CheckExact(of) ? PyList_GET_ITEM(of, at) : PyTuple_GET_ITEM(of, at));
  };
  ContainerEvent event{&frame, ContainerEvent::Kind::kGives, iterator, {}, {}};
  PyTypeObject* const type = Py_TYPE(iterator);
  if (type == &PyListIter_Type || type == &PyTupleIter_Type) {
    event.gives = {next_of(iterator)};
  } else if (type == &PyZip_Type) {
    event.tuple = true;
    for (int i = 0; PyObject* source = py::iterator_source(iterator, i); ++i)
      event.gives.push_back(next_of(source));
  } else if (type == &PyEnum_Type) {
    event.tuple = true;
    event.gives = {0, next_of(py::iterator_source(iterator, 0))};
  } else {
    PyObject* const dict = py::iterator_source(iterator, 0);
    if (dict == nullptr) return true;  // at its end
    if (!PyDict_CheckExact(dict)) return false;
    PyObject *key, *value;
    Py_ssize_t pos = py::next_index(iterator);
    if (pos < 0 || !PyDict_Next(dict, &pos, &key, &value)) return true;
    const Tag tag = item_tag(dict, key, value);
    event.tuple = type == &PyDictIterItem_Type;
    event.gives = {type == &PyDictIterKey_Type ? 0 : tag};
    if (event.tuple) event.gives = {0, tag};
  }
  container_events_.push_back(std::move(event));
  return true;
}

bool Shadow::follow_container_call(EvalFrame& frame, const Operands& o) {
  using Kind = ContainerEvent::Kind;
  if (container(o.a) != nullptr) return false;
  if (runs_as_python(o.a) || constructor_of(o.a) != nullptr) {
    // Iterators go on being told by what they iterate.
    return true;
  }
  PyObject* const first = o.nargs > 0 ? o.args[0] : nullptr;
  if (first == nullptr) return false;
  const auto of_containers = [&](bool only_sequences) {
    return std::all_of(used_containers_.begin(), used_containers_.end(), [&](PyObject* c) {
      return is_sequence(c) || (!only_sequences && PyDict_CheckExact(c));
    });
  };
  const auto makes = [&](Kind kind, Container made) {
    container_events_.push_back({&frame, kind, first, std::move(made), {}});
    return true;
  };
  if (PyMethodDef* const method = called_method(o.a)) {
    static PyMethodDef* const append = builtin_method(PyList_Type, "append");
    static PyMethodDef* const get = builtin_method(PyDict_Type, "get");
    static PyMethodDef* const pop = builtin_method(PyDict_Type, "pop");
    static PyMethodDef* const items = builtin_method(PyDict_Type, "items");
    static PyMethodDef* const values = builtin_method(PyDict_Type, "values");
    static PyMethodDef* const keys = builtin_method(PyDict_Type, "keys");
    if (used_containers_.size() != 1 || used_containers_[0] != first || o.kwnames != nullptr) {
      // A container that goes into a list is read through that one.
      return method == append && o.nargs == 2 && of_containers(false);
    }
    if (method == append && o.nargs == 2) return true;  // of a number without a tag
    if (method == keys && PyDict_CheckExact(first)) return true;
    if (method == items || method == values)
      return PyDict_CheckExact(first) && makes(Kind::kDerives, {true, {first}, {}});
    if ((method == get || method == pop) && PyDict_CheckExact(first) && o.nargs >= 2 &&
        is_plain_key(o.args[1])) {
      PyObject* const value = PyDict_GetItemWithError(first, o.args[1]);
      PyObject* const name = name_in(first, o.args[1]);
      container_events_.push_back(
          {&frame, Kind::kGives, first, {}, {value == nullptr ? 0 : item_tag(first, name, value)}});
      if (method == pop && name != nullptr) put(*container(first), name, 0);
      return true;
    }
    return false;
  }
  if (follow_fold(o)) return true;
  if (PyCFunction_Check(o.a)) {
    const Rule rule = rules().function(reinterpret_cast<PyCFunctionObject*>(o.a)->m_ml).rule;
    return (rule == Rule::kLen || rule == Rule::kIsInstance) && of_containers(false);
  }
  const bool enumerates =
      o.a == reinterpret_cast<PyObject*>(&PyEnum_Type) && o.nargs == 1 && o.kwnames == nullptr;
  if ((o.a == reinterpret_cast<PyObject*>(&PyZip_Type) || enumerates) && of_containers(true))
    return makes(Kind::kDerives, {true, used_containers_, {}});
  const bool copies =
      o.a == reinterpret_cast<PyObject*>(&PyList_Type) || o.a == reinterpret_cast<PyObject*>(&PyTuple_Type);
  if (copies && o.nargs == 1 && o.kwnames == nullptr && is_sequence(first))
    return makes(Kind::kMakes, *container(first));
  if (o.a == reinterpret_cast<PyObject*>(&PyDict_Type) && o.nargs == 1 && o.kwnames == nullptr &&
      PyDict_CheckExact(first))
    return makes(Kind::kMakes, *container(first));
  return o.a == reinterpret_cast<PyObject*>(&PyType_Type) && o.nargs == 1;
}

// True where the event leaves the numbers in its containers followed.
bool Shadow::follow_containers(EvalFrame& frame, const Operands& o) {
  using Kind = ContainerEvent::Kind;
  Container* const a = container(o.a);
  const bool is_container = a != nullptr && (is_sequence(o.a) || PyDict_CheckExact(o.a));
  const bool stored =
      a == nullptr && (is_sequence(used_containers_[0]) || PyDict_CheckExact(used_containers_[0]));
  const auto makes = [&](Kind kind, Container made) {
    container_events_.push_back({&frame, kind, o.a, std::move(made), {}});
    return true;
  };
  switch (o.event) {
    case Event::kIter:
      return makes(Kind::kDerives, {true, {o.a}, {}});
    case Event::kNext:
      return o.b == nullptr && a != nullptr && follow_next(frame, o.a);
    case Event::kMethod:
    case Event::kTruth:
      return is_container;
    case Event::kIs:
    case Event::kYield:
      return true;
    case Event::kContains:
      return is_container && PyDict_CheckExact(o.a) && container(o.b) == nullptr;
    case Event::kUnpack: {
      if (a == nullptr) return is_sequence(o.a);  // added to a list that is followed
      if (!is_container || !is_sequence(o.a) || o.detail == 1) return false;
      if (o.detail == 2) return true;
      if (o.b == nullptr) return makes(Kind::kUnpacks, {});
      if (!PyList_CheckExact(o.b)) return false;
      const auto entries = a->entries;
      Container& to = follow_new(o.b);
      for (const auto& [key, tag] : entries)
        put(to, index_key(Py_SIZE(o.b) + static_cast<Py_ssize_t>(reinterpret_cast<uintptr_t>(key) / 2)), tag);
      return true;
    }
    case Event::kUnpackMapping: {
      if (!PyDict_CheckExact(o.a)) return false;
      if (o.b == nullptr) return true;
      if (a == nullptr) {  // added to a dict that is followed
        PyObject *key, *value;
        Py_ssize_t pos = 0;
        while (PyDict_Next(o.a, &pos, &key, &value)) {
          PyObject* const known = is_plain_key(key) ? name_in(o.b, key) : nullptr;
          if (known != nullptr) put(*container(o.b), known, 0);
        }
        return true;
      }
      const auto entries = a->entries;
      Container& to = follow_new(o.b);
      for (const auto& [key, tag] : entries) {
        PyObject* const known = name_in(o.b, key);
        if (known != nullptr && known != key) return false;
        put(to, key, tag);
      }
      return true;
    }
    case Event::kSubscr: {
      if (!is_container || container(o.b) != nullptr || used_containers_.size() != 1) return false;
      if (PyDict_CheckExact(o.a)) {
        PyObject* const value = is_plain_key(o.b) ? PyDict_GetItemWithError(o.a, o.b) : nullptr;
        if (value == nullptr) return false;
        container_events_.push_back(
            {&frame, Kind::kGives, o.a, {}, {item_tag(o.a, name_in(o.a, o.b), value)}});
        return true;
      }
      if (PyLong_CheckExact(o.b)) {
        Py_ssize_t i = PyLong_AsSsize_t(o.b);
        if (i < 0) i += Py_SIZE(o.a);
        if (PyErr_Occurred() != nullptr) PyErr_Clear();
        if (i < 0 || i >= Py_SIZE(o.a)) return false;
        PyObject* const value = PyList_CheckExact(o.a) ? PyList_GET_ITEM(o.a, i) : PyTuple_GET_ITEM(o.a, i);
        container_events_.push_back({&frame, Kind::kGives, o.a, {}, {item_tag(o.a, i, value)}});
        return true;
      }
      if (!PySlice_Check(o.b)) return false;
      auto* slice = reinterpret_cast<PySliceObject*>(o.b);
      Py_ssize_t start, stop, step;
      for (PyObject* part : {slice->start, slice->stop, slice->step}) {
        if (part != Py_None && !PyLong_CheckExact(part)) return false;
      }
      if (PySlice_Unpack(o.b, &start, &stop, &step) < 0) {
        PyErr_Clear();
        return false;
      }
      const Py_ssize_t n = PySlice_AdjustIndices(Py_SIZE(o.a), &start, &stop, step);
      Container made{true, {}, {}};
      for (Py_ssize_t i = 0; i < n; ++i) {
        PyObject* const wanted = index_key(start + i * step);
        for (const auto& [key, tag] : a->entries) {
          if (key == wanted) made.entries.emplace_back(index_key(i), tag);
        }
      }
      return makes(Kind::kMakes, std::move(made));
    }
    case Event::kStoreSubscr:
      // Of a number without a tag, or of a container.
      if (follow_item_change(o)) return true;
      if (o.c == nullptr || container(o.b) != nullptr) return false;
      if (is_container) {
        if (PyDict_CheckExact(o.a)) {
          PyObject* const known = is_plain_key(o.b) ? name_in(o.a, o.b) : nullptr;
          if (!is_plain_key(o.b) || (known != nullptr && known != o.b)) return false;
          put(*a, o.b, 0);
          return true;
        }
        return false;
      }
      return stored && PyDict_CheckExact(o.a);
    case Event::kStoreAttr: {
      static PyObject* const dict = PyUnicode_InternFromString("__dict__");
      return stored && o.name != dict && !PyType_Check(o.a) && !is_tensor(o.a) &&
             PyType_HasFeature(Py_TYPE(o.a), Py_TPFLAGS_HEAPTYPE);
    }
    case Event::kStoreCell:
    case Event::kStoreGlobal:
      return stored;
    case Event::kAppend:
      // Of a number without a tag, or of a container into a comprehension's list.
      return PyList_CheckExact(o.a);
    case Event::kCall:
      return follow_container_call(frame, o);
    case Event::kBinary:
      return follow_sequence_operator(frame, o);
    default:
      return false;
  }
}

Tag Shadow::after_container(PyObject* result) {
  ContainerEvent event = std::move(container_events_.back());
  container_events_.pop_back();
  if (result == nullptr) return 0;
  switch (event.kind) {
    case ContainerEvent::Kind::kGives: {
      if (!event.tuple) {
        const Tag tag = table_.resolve(event.gives[0]);
        return tag != 0 && table_.value(tag) == result ? tag : 0;
      }
      if (!PyTuple_CheckExact(result)) return 0;
      Container made{true, {}, {}};
      for (size_t i = 0; i < event.gives.size(); ++i) {
        if (event.gives[i] != 0)
          made.entries.emplace_back(index_key(static_cast<Py_ssize_t>(i)), event.gives[i]);
      }
      if (!made.entries.empty()) follow_new(result) = std::move(made);
      return 0;
    }
    case ContainerEvent::Kind::kUnpacks: {
      PyObject* const from = event.operand;
      const bool whole = result != from;  // a list that becomes a tuple
      if (whole) {
        Container made = *container(from);
        follow_new(result) = std::move(made);
        return 0;
      }
      std::vector<Tag> tags;
      for (Py_ssize_t i = 0; i < Py_SIZE(from); ++i)
        tags.push_back(item_tag(
            from, i, PyList_CheckExact(from) ? PyList_GET_ITEM(from, i) : PyTuple_GET_ITEM(from, i)));
      return table_.first_element(table_.add_tuple(from, tags));
    }
    case ContainerEvent::Kind::kMakes:
    case ContainerEvent::Kind::kDerives:
      if (result != event.operand) follow_new(result) = std::move(event.made);
      return 0;
  }
  return 0;
}

}  // namespace flashpoint
