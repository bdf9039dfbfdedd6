// Numbers that live outside the call: step counters, learning rates, factors on modules.
//
// At first they are guarded by value where they are read, which costs nothing while they stay. Once a call
// has found another one at a place, the recordings to come follow what is read there, and what the program
// writes back. Where it changes all the same often, they end before an instruction that would have to guard
// it.
#include "record/recorder.h"
#include "record/shadow.h"

namespace flashpoint {

namespace {

bool is_number(PyObject* o) { return PyFloat_CheckExact(o) || PyLong_CheckExact(o); }

// So many recordings were made because a number had changed.
constexpr int kOften = 3;

bool is_item(CheckKind kind) {
  return kind == CheckKind::kListItemValue || kind == CheckKind::kTupleItemValue;
}

}  // namespace

bool Shadow::is_open_place(NodeId owner, CheckKind kind, PyObject* key, int32_t index) const {
  return follows_places() && open_places->contains(recorder_.tree().place(owner, kind, key, index));
}

bool Shadow::often_changes(NodeId owner, CheckKind kind, PyObject* key, int32_t index) const {
  if (!breaks_at_places || !follows_places()) return false;
  const auto found = open_places->find(recorder_.tree().place(owner, kind, key, index));
  return found != open_places->end() && found->second >= kOften;
}

bool Shadow::read_place(NodeId owner, CheckKind kind, PyObject* storage, PyObject* key, PyObject* value,
                        int32_t index) {
  if (value == nullptr || !is_number(value)) return false;
  drop_read();  // the last number that an event reads is what it pushes
  if (kind == CheckKind::kItemValue && (!PyUnicode_CheckExact(key) || !PyUnicode_CHECK_INTERNED(key))) {
    pin_stores(storage);
    return false;
  }
  PyObject* const name = is_item(kind) ? index_place(index) : key;
  if (const Tag* stored = stores_.find({storage, name})) {
    if (*stored == 0 || table_.value(table_.resolve(*stored)) != value) return false;
    take_read(*stored);
    return true;
  }
  if (!follows_places() || recorder_.is_written(storage, key)) return false;
  if (const Tag* known = places_.find({storage, name})) {
    if (table_.value(*known) != value) return false;
    take_read(*known);
    return true;
  }
  if (!is_open_place(owner, kind, key, index)) return false;
  GuardTree& tree = recorder_.tree();
  const Tag tag = table_.add_source(tree.child(owner, step_to_place(kind), key, index), value);
  places_.try_emplace({storage, name}, tag);
  table_.set_changed(tag);
  if (breaks_at_places && open_places->at(tree.place(owner, kind, key, index)) >= kOften)
    table_.set_varies(tag);
  take_read(tag);
  return true;
}

void Shadow::take_read(Tag tag) {
  drop_read();
  if (pushes_) {
    read_ = {recorder_.innermost(), tag};
  } else {
    guard(tag);
  }
}

bool Shadow::store(Tag tag, PyObject* value) {
  tag = table_.resolve(tag);
  if (tag == 0 || table_.value(tag) != value || !is_number(value) || !table_.is_open(tag)) return false;
  storing_ = tag;
  return true;
}

void Shadow::stored(PyObject* storage, PyObject* key) {
  if (storing_ == 0 && stores_.empty()) return;
  *stores_.try_emplace({storage, key}, 0).first = std::exchange(storing_, 0);
}

Tag Shadow::stored_tag(PyObject* storage, PyObject* key) const {
  const Tag* known = stores_.find({storage, key});
  return known == nullptr ? 0 : *known;
}

void Shadow::pin_stores(PyObject* storage) {
  for (const auto& [place, tag] : stores_) {
    if (place.first == storage) guard(tag);
  }
}

}  // namespace flashpoint
