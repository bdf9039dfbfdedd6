// Reads the part of a stored entry that says what replay makes and writes (driver/entry_format.h): objects to
// be made, effects, the result. Refuses whatever replay could not carry out safely.
//
// Callers: entry_reader.cpp, after the guards were followed. GIL: required.
#pragma once

#include <vector>

#include "guard/guard_tree.h"
#include "ir/graph.h"
#include "portable/table.h"
#include "replay/recipe.h"
#include "store/bytes.h"

namespace flashpoint {

class RecipeReader {
 public:
  RecipeReader(store::Reader& in, portable::Table& table, const GuardTree& tree, const ir::Graph& graph,
               size_t scalars, bool framed);

  bool read();
  // in_frame: of a slot that may be left as it is.
  bool read_value(RecipeValue& value, bool in_frame = false);
  // Whether effects or recipes take the type of a node's object for granted.
  bool needs_fixed(NodeId node) const { return fixed_[static_cast<size_t>(node)]; }

  std::vector<MadeObject> made;
  std::vector<PlannedEffect> effects;
  RecipeValue result;
  std::vector<SpentHistory> histories;

 private:
  bool read_values(std::vector<RecipeValue>& values);
  bool read_made(MadeObject& object);
  bool fits(const MadeObject& object);
  bool read_effect(PlannedEffect& effect);
  bool fits(const PlannedEffect& effect);
  bool is_acyclic() const;
  bool read_histories();
  const ir::Value* tensor_of(const RecipeValue& value) const;
  bool is_tensor_or_none(const RecipeValue& value);
  bool fits_function(const MadeObject& function);
  bool read_object(Ref& object, bool required);

  store::Reader& in_;
  portable::Table& table_;
  const std::vector<PyObject*>& nodes_;
  const ir::Graph& graph_;
  size_t scalars_;
  bool framed_;  // it starts or ends at a break
  size_t made_count_ = 0;
  std::vector<bool> fixed_;
};

}  // namespace flashpoint
