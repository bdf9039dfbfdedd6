// Numbers that live outside the call: step counters, learning rates, factors on modules.
//
// At first they are guarded by value where they are read, which costs nothing while they stay. Once a call
// has found another one at a place, the recordings to come follow what is read there, and what the program
// writes back.
#include "record/recorder.h"
#include "record/shadow.h"

namespace flashpoint {

namespace {

bool is_number(PyObject* o) { return PyFloat_CheckExact(o) || PyLong_CheckExact(o); }

}  // namespace

bool Shadow::read_place(NodeId owner, PyObject* storage, PyObject* key, PyObject* value) {
  if (value == nullptr || !is_number(value)) return false;
  if (key != nullptr && (!PyUnicode_CheckExact(key) || !PyUnicode_CHECK_INTERNED(key))) return false;
  if (const Tag* stored = stores_.find({storage, key})) {
    if (*stored == 0 || table_.value(table_.resolve(*stored)) != value) return false;
    take_read(*stored);
    return true;
  }
  if (!follows_places() || recorder_.is_written(storage, key)) return false;
  GuardTree& tree = recorder_.tree();
  if (const Tag* known = places_.find({storage, key})) {
    if (table_.value(*known) != value) return false;
    take_read(*known);
    return true;
  }
  const CheckKind kind = key == nullptr ? CheckKind::kCellValue : CheckKind::kItemValue;
  if (!open_places->contains(tree.place(owner, kind, key))) return false;
  const NodeId node = tree.child(owner, key == nullptr ? Step::kCellContents : Step::kDictValue, key);
  const Tag tag = table_.add_source(node, value);
  places_.try_emplace({storage, key}, tag);
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
