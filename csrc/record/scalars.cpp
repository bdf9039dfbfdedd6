#include "record/scalars.h"

#include <algorithm>

#include "base/check.h"

namespace flashpoint {

bool is_scalar(PyObject* o) {
  return PyLong_CheckExact(o) || PyFloat_CheckExact(o) || PyUnicode_CheckExact(o) || PyBytes_CheckExact(o) ||
         PyComplex_CheckExact(o);
}

Tag ScalarTable::add_source(NodeId node, PyObject* value) {
  rows_.push_back({.kind = Kind::kSource, .node = node, .value = Ref::share(value), .sources = {}});
  return static_cast<Tag>(rows_.size());
}

Tag ScalarTable::add_opaque(NodeId node, PyObject* object) {
  const Tag tag = add_source(node, object);
  rows_.back().varies = rows_.back().opaque = true;
  return tag;
}

// Chains of rows can be long: each knows its arguments, so that no question walks one.
void ScalarTable::add_sources(std::vector<Tag>& sources, Tag tag, const Row& row) {
  const auto add = [&](Tag source) {
    if (std::find(sources.begin(), sources.end(), source) == sources.end()) sources.push_back(source);
  };
  if (row.kind == Kind::kSource || row.kind == Kind::kLate || row.kind == Kind::kCarrier) return add(tag);
  for (const Tag source : row.sources) add(source);
}

void ScalarTable::add_operands(ScalarStep& step, const std::vector<Tag>& tags,
                               const std::vector<PyObject*>& values, std::vector<Tag>* sources) const {
  for (size_t i = 0; i < tags.size(); ++i) {
    const Tag tag = resolve(tags[i]);
    if (tag != 0 && is_open(tag)) {
      step.operands.push_back(operand(tag));
      if (sources != nullptr) add_sources(*sources, tag, rows_[tag - 1]);
    } else {
      step.operands.push_back({ScalarOperand::Kind::kConstant, 0, Ref::share(values[i])});
    }
  }
}

void ScalarTable::add_decision(ScalarStep step, const std::vector<Tag>& tags,
                               const std::vector<PyObject*>& values, bool outcome) {
  add_operands(step, tags, values, nullptr);
  step.type = &PyBool_Type;
  step.expected = outcome;
  steps_.push_back(std::move(step));
}

Tag ScalarTable::add_computed(ScalarStep step, const std::vector<Tag>& tags,
                              const std::vector<PyObject*>& values, PyObject* result) {
  Row row{.kind = Kind::kComputed, .value = Ref::share(result), .sources = {}};
  add_operands(step, tags, values, &row.sources);
  step.type = Py_TYPE(result);
  row.step = static_cast<int32_t>(steps_.size());
  steps_.push_back(std::move(step));
  rows_.push_back(std::move(row));
  return static_cast<Tag>(rows_.size());
}

Tag ScalarTable::add_tuple(PyObject* tuple, const std::vector<Tag>& elements) {
  Row row{.kind = Kind::kTuple, .value = Ref::share(tuple), .sources = {}};
  for (const Tag element : elements) {
    if (const Tag of = resolve(element); of != 0) add_sources(row.sources, of, rows_[of - 1]);
  }
  rows_.push_back(std::move(row));
  const auto tag = static_cast<Tag>(rows_.size());
  for (const Tag element : elements) {
    rows_.push_back({.kind = Kind::kAlias, .of = resolve(element), .value = {}, .sources = {}});
  }
  return tag;
}

Tag ScalarTable::add_late(int32_t value, PyObject* number) {
  rows_.push_back(
      {.kind = Kind::kLate, .varies = true, .step = value, .value = Ref::share(number), .sources = {}});
  const auto tag = static_cast<Tag>(rows_.size());
  if (PyFloat_CheckExact(number))
    FP_CHECK(late_.try_emplace(number, tag).second, "an operation that gives back its operand");
  return tag;
}

Tag ScalarTable::add_carrier(PyObject* object) {
  rows_.push_back({.kind = Kind::kCarrier, .varies = true, .value = Ref::share(object), .sources = {}});
  const auto tag = static_cast<Tag>(rows_.size());
  late_.try_emplace(object, tag);
  return tag;
}

Tag ScalarTable::late_of(PyObject* object) const {
  const Tag* found = late_.find(object);
  return found == nullptr ? 0 : *found;
}

Tag ScalarTable::resolve(Tag tag) const {
  while (tag != 0 && rows_[tag - 1].kind == Kind::kAlias) tag = rows_[tag - 1].of;
  return tag;
}

bool ScalarTable::is_open(Tag tag) const {
  tag = resolve(tag);
  if (tag == 0) return false;
  const Row& row = rows_[tag - 1];
  if (row.kind == Kind::kSource || row.kind == Kind::kLate || row.kind == Kind::kCarrier) return !row.pinned;
  return std::any_of(row.sources.begin(), row.sources.end(),
                     [&](Tag source) { return !rows_[source - 1].pinned; });
}

bool ScalarTable::changed(Tag tag) const {
  tag = resolve(tag);
  if (tag == 0) return false;
  const Row& row = rows_[tag - 1];
  return row.changed || std::any_of(row.sources.begin(), row.sources.end(),
                                    [&](Tag source) { return rows_[source - 1].changed; });
}

bool ScalarTable::varies(Tag tag) const {
  tag = resolve(tag);
  if (tag == 0) return false;
  const Row& row = rows_[tag - 1];
  if (row.kind == Kind::kSource || row.kind == Kind::kLate || row.kind == Kind::kCarrier)
    return row.varies && !row.pinned;
  return std::any_of(row.sources.begin(), row.sources.end(),
                     [&](Tag source) { return rows_[source - 1].varies && !rows_[source - 1].pinned; });
}

ScalarOperand ScalarTable::operand(Tag tag) const {
  tag = resolve(tag);
  const Row& row = rows_[tag - 1];
  // A pinned argument is still the caller's object.
  if (row.kind == Kind::kSource) return {ScalarOperand::Kind::kNode, row.node};
  if (row.kind == Kind::kLate) return {ScalarOperand::Kind::kLate, row.step};
  if (!is_open(tag)) return {ScalarOperand::Kind::kConstant, 0, row.value};
  return {ScalarOperand::Kind::kStep, row.step};
}

void ScalarTable::pin(Tag tag, const std::function<void(NodeId, PyObject*, int32_t)>& guard) {
  tag = resolve(tag);
  if (tag == 0) return;
  Row& row = rows_[tag - 1];
  if (row.pinned) return;
  row.pinned = true;
  if (row.kind == Kind::kSource) return guard(row.node, row.value.get(), -1);
  if (row.kind == Kind::kLate) return guard(kNoNode, row.value.get(), row.step);
  if (row.kind == Kind::kCarrier) return guard(kNoNode, row.value.get(), -1);
  for (const Tag source : row.sources) pin(source, guard);
}

}  // namespace flashpoint
