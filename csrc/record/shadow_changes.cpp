// What methods and operators do to lists and dicts whose numbers are followed (shadow_containers.cpp): where
// each number is afterwards. They act on exact lists, tuples and dicts, so nothing of the program runs
// between. Also the functions that make one number of a list: sum, min, max and their like.
#include <opcode.h>

#include <algorithm>
#include <string_view>

#include "py/layout.h"
#include "record/recorder.h"
#include "record/rules/rules.h"
#include "record/shadow.h"

namespace flashpoint {

namespace {

bool is_sequence(PyObject* o) { return PyList_CheckExact(o) || PyTuple_CheckExact(o); }

PyObject* item_at(PyObject* sequence, Py_ssize_t i) {
  return PyList_CheckExact(sequence) ? PyList_GET_ITEM(sequence, i) : PyTuple_GET_ITEM(sequence, i);
}

// False for what is no index of a sequence of this size; insert takes any, and moves it into bounds.
bool index_of(PyObject* number, Py_ssize_t size, bool moves, Py_ssize_t* index) {
  if (!PyLong_CheckExact(number)) return false;
  *index = PyLong_AsSsize_t(number);
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    return false;
  }
  if (*index < 0) *index += size;
  if (moves) *index = std::clamp<Py_ssize_t>(*index, 0, size);
  return moves || (*index >= 0 && *index < size);
}

}  // namespace

std::vector<Tag> Shadow::tags_of(PyObject* sequence) const {
  std::vector<Tag> tags(static_cast<size_t>(Py_SIZE(sequence)));
  for (size_t i = 0; i < tags.size(); ++i) {
    const auto at = static_cast<Py_ssize_t>(i);
    tags[i] = item_tag(sequence, at, item_at(sequence, at));
  }
  return tags;
}

Shadow::Container Shadow::of_tags(const std::vector<Tag>& tags) {
  Container made{true, {}, {}};
  for (size_t i = 0; i < tags.size(); ++i) {
    if (tags[i] != 0) made.entries.emplace_back(index_key(static_cast<Py_ssize_t>(i)), tags[i]);
  }
  return made;
}

bool Shadow::may_put(PyObject* o, Tag tag, PyObject* value) const {
  tag = table_.resolve(tag);
  return tag == 0 || (table_.value(tag) == value && table_.is_open(tag) && !table_.is_late(tag));
}

// A list or dict of the call that nobody reads unseen.
bool Shadow::may_change(const EvalFrame& frame, PyObject* o) {
  return recorder_.node_of(o) == kNoNode && !recorder_.read_lazily(o) &&
         (container(o) != nullptr || owned_by_frame(frame, o));
}

bool Shadow::follow_list_method(EvalFrame& frame, const Operands& o, std::string_view name) {
  PyObject* const list = o.args[0];
  const Py_ssize_t size = Py_SIZE(list);
  const auto tag_of = [&](Py_ssize_t i) {
    return call_tags_.empty() ? Tag{0} : table_.resolve(call_tags_[i]);
  };
  for (Py_ssize_t i = 0; i < o.nargs; ++i) {
    if (!may_put(list, tag_of(i), o.args[i])) return false;
  }
  const auto set = [&](const std::vector<Tag>& tags) {
    follow_new(list) = of_tags(tags);
    return true;
  };
  if (name == "copy" && o.nargs == 1) {
    container_events_.push_back({&frame, ContainerEvent::Kind::kMakes, list, of_tags(tags_of(list)), {}});
    return true;
  }
  if (!may_change(frame, list)) return false;
  std::vector<Tag> tags = tags_of(list);
  if (name == "extend" && o.nargs == 2 && is_sequence(o.args[1])) {
    const std::vector<Tag> more = tags_of(o.args[1]);
    tags.insert(tags.end(), more.begin(), more.end());
    return set(tags);
  }
  if (name == "insert" && o.nargs == 3 && tag_of(1) == 0) {
    Py_ssize_t at = 0;
    if (!index_of(o.args[1], size, true, &at)) return false;
    tags.insert(tags.begin() + at, tag_of(2));
    return set(tags);
  }
  if (name == "pop" && o.nargs <= 2 && tag_of(o.nargs - 1) == 0) {
    Py_ssize_t at = size - 1;
    if (size == 0 || (o.nargs == 2 && !index_of(o.args[1], size, false, &at))) return false;
    container_events_.push_back(
        {&frame, ContainerEvent::Kind::kGives, list, {}, {tags[static_cast<size_t>(at)]}});
    tags.erase(tags.begin() + at);
    return set(tags);
  }
  if (name == "reverse" && o.nargs == 1) {
    std::reverse(tags.begin(), tags.end());
    return set(tags);
  }
  return name == "clear" && o.nargs == 1 && set({});
}

bool Shadow::follow_dict_method(EvalFrame& frame, const Operands& o, std::string_view name) {
  using Kind = ContainerEvent::Kind;
  PyObject* const dict = o.args[0];
  const auto tag_of = [&](Py_ssize_t i) {
    return call_tags_.empty() ? Tag{0} : table_.resolve(call_tags_[i]);
  };
  const Py_ssize_t named = o.kwnames == nullptr ? 0 : PyTuple_GET_SIZE(o.kwnames);
  for (Py_ssize_t i = 0; i < o.nargs + named; ++i) {
    if (!may_put(dict, tag_of(i), o.args[i])) return false;
  }
  if (name == "copy" && o.nargs == 1 && named == 0) {
    container_events_.push_back({&frame, Kind::kMakes, dict, *container(dict), {}});
    return true;
  }
  if (!may_change(frame, dict)) return false;
  if (name == "setdefault" && o.nargs == 3 && named == 0 && is_plain_key(o.args[1]) && tag_of(1) == 0) {
    PyObject* const known = name_in(dict, o.args[1]);
    if (known != nullptr) {
      PyObject* const value = PyDict_GetItemWithError(dict, known);
      container_events_.push_back({&frame, Kind::kGives, dict, {}, {item_tag(dict, known, value)}});
      guard(tag_of(2));
      return true;
    }
    put(follow_new(dict), o.args[1], tag_of(2));
    container_events_.push_back({&frame, Kind::kGives, dict, {}, {tag_of(2)}});
    return true;
  }
  if (name != "update" || o.nargs > 2 || (o.nargs == 2 && !PyDict_CheckExact(o.args[1]))) return false;
  std::vector<std::pair<PyObject*, Tag>> entries;
  PyObject *key, *value;
  Py_ssize_t pos = 0;
  while (o.nargs == 2 && PyDict_Next(o.args[1], &pos, &key, &value))
    entries.emplace_back(key, item_tag(o.args[1], key, value));
  for (Py_ssize_t i = 0; i < named; ++i)
    entries.emplace_back(PyTuple_GET_ITEM(o.kwnames, i), tag_of(o.nargs + i));
  for (const auto& [name_of, tag] : entries) {
    // As the dict has it, or as it will have it.
    if (!is_plain_key(name_of)) return false;
    PyObject* const known = name_in(dict, name_of);
    if (known != nullptr && known != name_of) return false;
  }
  Container& to = follow_new(dict);
  for (const auto& [name_of, tag] : entries) put(to, name_of, tag);
  return true;
}

// Calls of methods of exact lists and dicts. Nothing has changed where it says no.
bool Shadow::follow_method(EvalFrame& frame, const Operands& o) {
  if (!Py_IS_TYPE(o.a, &PyMethodDescr_Type) || o.nargs == 0 || o.args == nullptr) return false;
  const std::string_view name = reinterpret_cast<PyMethodDescrObject*>(o.a)->d_method->ml_name;
  PyTypeObject* const type = PyDescr_TYPE(o.a);
  if (type == &PyList_Type && PyList_CheckExact(o.args[0]))
    return o.kwnames == nullptr && follow_list_method(frame, o, name);
  return type == &PyDict_Type && PyDict_CheckExact(o.args[0]) &&
         (name != "copy" || container(o.args[0]) != nullptr) && follow_dict_method(frame, o, name);
}

// a + b, a += b, a * n of exact sequences, a | b and a |= b of dicts.
bool Shadow::follow_sequence_operator(EvalFrame& frame, const Operands& o) {
  using Kind = ContainerEvent::Kind;
  if (o.event != Event::kBinary || !used_.empty()) return false;
  const auto makes = [&](Container made) {
    container_events_.push_back({&frame, Kind::kMakes, o.a, std::move(made), {}});
    return true;
  };
  const bool same = Py_IS_TYPE(o.a, Py_TYPE(o.b));
  const bool adds = o.detail == NB_ADD || (o.detail == NB_INPLACE_ADD && PyTuple_CheckExact(o.a));
  if (is_sequence(o.a) && is_sequence(o.b) && (adds ? same : o.detail == NB_INPLACE_ADD)) {
    std::vector<Tag> tags = tags_of(o.a);
    const std::vector<Tag> more = tags_of(o.b);
    tags.insert(tags.end(), more.begin(), more.end());
    if (adds) return makes(of_tags(tags));
    if (!may_change(frame, o.a)) return false;
    follow_new(o.a) = of_tags(tags);
    return true;
  }
  const bool times = o.detail == NB_MULTIPLY ||
                     (o.detail == NB_INPLACE_MULTIPLY && !PyList_CheckExact(o.a) && !PyList_CheckExact(o.b));
  PyObject* const sequence = is_sequence(o.a) ? o.a : o.b;
  PyObject* const count = sequence == o.a ? o.b : o.a;
  if (times && is_sequence(sequence) && PyLong_CheckExact(count)) {
    const Py_ssize_t n = PyLong_AsSsize_t(count);
    if (PyErr_Occurred() != nullptr) PyErr_Clear();
    const std::vector<Tag> once = tags_of(sequence);
    constexpr Py_ssize_t kMost = 64;
    if (n < 0 || n > kMost) return false;
    std::vector<Tag> tags;
    for (Py_ssize_t i = 0; i < n; ++i) tags.insert(tags.end(), once.begin(), once.end());
    container_events_.push_back({&frame, Kind::kMakes, nullptr, of_tags(tags), {}});
    return true;
  }
  return false;
}

// A number that goes into a list in place of another, without a tag, or one that is taken out.
bool Shadow::follow_item_change(const Operands& o) {
  if (container(o.a) == nullptr || container(o.b) != nullptr) return false;
  if (PyList_CheckExact(o.a)) {
    Py_ssize_t at = 0;
    if (!index_of(o.b, Py_SIZE(o.a), false, &at)) return false;
    if (o.c != nullptr) {
      put(*container(o.a), index_key(at), 0);
      return true;
    }
    std::vector<Tag> tags = tags_of(o.a);
    tags.erase(tags.begin() + at);
    *container(o.a) = of_tags(tags);
    return true;
  }
  if (!PyDict_CheckExact(o.a) || o.c != nullptr || !is_plain_key(o.b)) return false;
  PyObject* const known = name_in(o.a, o.b);
  if (known != nullptr) put(*container(o.a), known, 0);
  return true;
}

// sum(l) and its like: one step with the numbers of the list as operands.
bool Shadow::follow_fold(const Operands& o) {
  if (!PyCFunction_Check(o.a) || o.nargs != 1 || o.kwnames != nullptr || used_containers_.size() != 1 ||
      used_containers_[0] != o.args[0])
    return false;
  PyObject* const dict = PyDictValues_Check(o.args[0]) ? py::view_dict(o.args[0]) : nullptr;
  if (!is_sequence(o.args[0]) && (dict == nullptr || !PyDict_CheckExact(dict))) return false;
  const Rule rule = rules().function(reinterpret_cast<PyCFunctionObject*>(o.a)->m_ml).rule;
  const std::string_view name = reinterpret_cast<PyCFunctionObject*>(o.a)->m_ml->ml_name;
  PyObject* const self = PyCFunction_GET_SELF(o.a);
  if ((rule != Rule::kIterate && rule != Rule::kPure) || self == nullptr || !PyModule_Check(self))
    return false;
  if (name != "sum" && name != "min" && name != "max" && name != "any" && name != "all" && name != "prod" &&
      name != "fsum")
    return false;
  std::vector<PyObject*> values;
  std::vector<Tag> tags;
  PyObject *key, *value;
  Py_ssize_t pos = 0;
  while (dict != nullptr && PyDict_Next(dict, &pos, &key, &value)) {
    values.push_back(value);
    tags.push_back(item_tag(dict, key, value));
  }
  for (Py_ssize_t i = 0; dict == nullptr && i < Py_SIZE(o.args[0]); ++i)
    values.push_back(item_at(o.args[0], i));
  if (dict == nullptr) tags = tags_of(o.args[0]);
  const bool numbers = std::all_of(values.begin(), values.end(),
                                   [](PyObject* v) { return PyLong_CheckExact(v) || PyFloat_CheckExact(v); });
  if (!numbers || is_late(tags)) return false;
  compute({ScalarStep::Kind::kCall, 1, Ref::share(o.a)}, tags, values);
  return decides_ = computing_;
}

}  // namespace flashpoint
