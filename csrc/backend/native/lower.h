// Stage 1: the recorded graph, with every operator that has a lowering replaced by expressions.
//
// An expression is a primitive over whole tensors (prims.def) with numpy broadcasting between operands; it
// has a shape and a dtype but no memory. Equal expressions are one. A node of the graph is then one of
//  - lowered: its outputs are expressions ("virtual" values), whose memory exists only if someone needs it;
//  - a view: its outputs lie in an operand's memory. Reading them reads that memory with other strides;
//  - a call: it runs as it was recorded, on tensors.
// Whether a node is a view, and of what, is not known here but asked: the operator runs on meta tensors.
//
// What is lowered: CPU, strided, no gradient wanted, no autocast, sizes that cannot depend on data, not
// empty. Everything else is a call, so every graph can be lowered.
//
// An in-place operator on a virtual value that nothing else shares memory with makes a new expression, and
// the value it overwrote stands for the new one from then on. Other writes are calls; a value whose memory
// may have been written is read from memory from then on, and `mutations` tells the scheduler what must stay
// in order.
//
// Arithmetic follows eager mode operator by operator: half types are computed in float and rounded after
// each.
//
// Callers: program.cpp, tests. Threads: pure functions; no GIL needed.
#pragma once

#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "backend/native/kernel.h"
#include "ir/graph.h"

namespace flashpoint::native {

using ExprId = int32_t;
inline constexpr ExprId kNoExpr = -1;

struct Expr {
  Prim prim = Prim::constant;
  c10::ScalarType dtype = c10::ScalarType::Float;
  ir::Dims shape;
  c10::SmallVector<ExprId, 3> operands;
  ir::ValueId root = ir::kNoValue;  // load: the value whose tensor is read
  int32_t epoch = -1;               // load: the last node that wrote to the root before
  int64_t offset = 0;               // load, index: from the root's first element; first number
  ir::Dims strides;                 // load, index: per dimension of the shape
  Number number;                    // constant
  int32_t reduced = 0;              // reductions: how many trailing dimensions; they stay as size 1
  int32_t born = -1;                // the node whose lowering needed it first
};

enum class NodeKind : uint8_t { kCall, kView, kLowered };

struct LoweredValue {
  ExprId expr = kNoExpr;            // what it is computed by, if it is virtual
  ir::ValueId root = ir::kNoValue;  // whose memory it lies in: itself, or what it is a view of; none: unknown
  int64_t offset = 0;               // elements from the root's first
  ir::ValueId same_as = ir::kNoValue;  // it is this very tensor, or what that is in turn
  int32_t writes = 0;                  // in-place operators that were folded into its expression
  bool in_memory = false;              // read it from memory although it has an expression
};

struct Lowered {
  std::vector<Expr> exprs;
  std::vector<NodeKind> nodes;
  std::vector<LoweredValue> values;
  // Per value: the nodes that wrote to its memory, ascending.
  std::unordered_map<ir::ValueId, std::vector<int32_t>> mutations;

  // Below reshapes: the expression that computes.
  ExprId strip(ExprId id) const {
    while (exprs[static_cast<size_t>(id)].prim == Prim::reshape)
      id = exprs[static_cast<size_t>(id)].operands[0];
    return id;
  }
  // The value whose tensor this one is.
  ir::ValueId tensor_of(ir::ValueId id) const {
    while (values[static_cast<size_t>(id)].same_as != ir::kNoValue)
      id = values[static_cast<size_t>(id)].same_as;
    return id;
  }
  std::string text(const ir::Graph& graph) const;
};

// Strides under which memory of `shape` and `strides` reads as `target`, elements in row-major order; none if
// there are no such strides.
std::optional<ir::Dims> strides_for(const ir::Dims& shape, const ir::Dims& strides, const ir::Dims& target);

// Null when the graph does something this backend leaves to the eager one altogether (changing the sizes of
// an existing tensor).
std::optional<Lowered> lower(const ir::Graph& graph);

int64_t numel(const ir::Dims& shape);

}  // namespace flashpoint::native
