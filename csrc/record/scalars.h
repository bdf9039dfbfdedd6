// Where the numbers and texts of a recording come from: the scalar shadow of the program.
//
// Primitives have no identity, so their provenance is by location: the evaluator carries a Tag beside each
// slot of a frame (record/observer.h), and a tag names a row of this table. A row is an argument of the
// call, or what a pure operation made of other rows. As long as every use of a row is one that replay can
// repeat (arithmetic, formatting, storing it in a frame or a result) its value is not guarded; any other use
// *pins* it: the arguments it was made of are guarded by value, and from then on it is a constant.
//
// A tuple of rows has a row too, so that `return x, n` keeps what is known of n. Rows of a tuple's elements
// follow the tuple's own row.
//
// A number that the graph made of a tensor (`t.item()`) is *late*: its row names a value of the graph. So is
// what arithmetic makes of it. A late row cannot be pinned: a use that is not followed ends the recording
// before it. Floats have an identity while the table holds them, so a fresh list of late floats, and an
// iterator of one, need no more than a row that says that they are one (a carrier).
//
// Invariant: the table never decides; the recorder pins before a value is used in any way not listed here.
// GIL: required (rows own their values).
#pragma once

#include <Python.h>

#include <functional>
#include <vector>

#include "base/flat_map.h"
#include "guard/guard_tree.h"
#include "record/observer.h"

namespace flashpoint {

struct ScalarOperand {
  enum class Kind : uint8_t { kConstant, kNode, kStep, kLate };
  Kind kind = Kind::kConstant;
  int32_t index = 0;  // guard node, step, or value of the graph
  Ref constant = {};
};

// One operation of the scalar program, on primitives only.
struct ScalarStep {
  enum class Kind : uint8_t { kBinary, kUnary, kFormat, kJoin, kCall, kCompare, kTruth };
  Kind kind;
  // NB_*, opcode of a unary operator, conversion flag of FORMAT_VALUE, Py_LT..; of a call, 1: the operands
  // are one tuple.
  int detail = 0;
  Ref callable = {};
  std::vector<ScalarOperand> operands = {};
  PyTypeObject* type = nullptr;  // of the result while recording (static); another one is a miss
  // Of a bool: what the program decided by. Another outcome is a miss.
  bool expected = false;
};

// A number of the program that the graph takes as an input.
struct NumberInput {
  ScalarOperand from;
  bool is_float = false;  // as the operators take it
};

class ScalarTable {
 public:
  enum class Kind : uint8_t { kSource, kComputed, kTuple, kAlias, kLate, kCarrier };

  bool empty() const { return rows_.empty(); }
  Tag add_source(NodeId node, PyObject* value);
  // An object of which nothing but the type can be guarded: it may be carried about, and not used.
  Tag add_opaque(NodeId node, PyObject* object);
  // The step's operands are filled in from the tags; a tag that is 0 or pinned makes a constant of its value.
  Tag add_computed(ScalarStep step, const std::vector<Tag>& tags, const std::vector<PyObject*>& values,
                   PyObject* result);
  // A question about the rows that the program decides by.
  void add_decision(ScalarStep step, const std::vector<Tag>& tags, const std::vector<PyObject*>& values,
                    bool outcome);
  Tag add_tuple(PyObject* tuple, const std::vector<Tag>& elements);
  Tag add_late(int32_t value, PyObject* number);
  Tag add_carrier(PyObject* object);
  // The row of an object that late floats and carriers are told by; 0 for any other.
  Tag late_of(PyObject* object) const;
  bool is_late(Tag tag) const { return is_kind(tag, Kind::kLate); }
  bool is_carrier(Tag tag) const { return is_kind(tag, Kind::kCarrier); }

  // The row behind aliases, 0 for none.
  Tag resolve(Tag tag) const;
  // Whether the value may differ at the next call.
  bool is_open(Tag tag) const;
  bool is_tuple(Tag tag) const { return rows_[tag - 1].kind == Kind::kTuple; }
  Tag first_element(Tag tuple) const { return tuple + 1; }
  PyObject* value(Tag tag) const { return rows_[tag - 1].value.get(); }
  // What replay makes the value from.
  ScalarOperand operand(Tag tag) const;

  // Calls guard(node, value) for every argument that is not pinned yet and that the row depends on; the node
  // of a late row is kNoNode.
  void pin(Tag tag, const std::function<void(NodeId, PyObject*, int32_t)>& guard);
  // Whether the row depends on an argument that is known to change from call to call.
  bool varies(Tag tag) const;
  void set_varies(Tag tag) { rows_[tag - 1].varies = true; }
  // It was another one at an earlier call; of a computed number, one that it was computed from.
  bool changed(Tag tag) const;
  void set_changed(Tag tag) { rows_[tag - 1].changed = true; }
  bool has_late() const { return !late_.empty(); }

  template <typename Visit>
  void for_each_source(Visit&& visit) const {
    for (const Row& row : rows_) {
      if (row.kind == Kind::kSource) visit(row.node, row.value.get(), row.pinned);
    }
  }
  size_t step_count() const { return steps_.size(); }
  std::vector<ScalarStep> take_steps() { return std::move(steps_); }

 private:
  void add_operands(ScalarStep& step, const std::vector<Tag>& tags, const std::vector<PyObject*>& values,
                    std::vector<Tag>* sources) const;

  struct Row {
    Kind kind;
    bool pinned = false;
    bool varies = false;
    bool changed = false;
    bool opaque = false;
    NodeId node = kNoNode;  // kSource
    int32_t step = -1;      // kComputed; kLate: value of the graph
    Tag of = 0;             // kAlias
    Ref value;
    std::vector<Tag> sources;  // kComputed, kTuple: the arguments it depends on, each once
  };
  static void add_sources(std::vector<Tag>& sources, Tag tag, const Row& row);
  bool is_kind(Tag tag, Kind kind) const {
    tag = resolve(tag);
    return tag != 0 && rows_[tag - 1].kind == kind;
  }
  std::vector<Row> rows_;
  std::vector<ScalarStep> steps_;
  FlatMap<PyObject*, Tag, PointerHash> late_;  // late floats and carriers; rows hold them
};

// Exact int, float, complex, str or bytes: what has a value but no identity worth guarding.
bool is_scalar(PyObject* object);

}  // namespace flashpoint
