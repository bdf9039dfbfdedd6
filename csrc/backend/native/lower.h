// Stage 1: the recorded graph, with every operator that has a lowering replaced by expressions.
//
// An expression is a primitive over whole tensors (prims.def) with numpy broadcasting between operands; it
// has a shape and a dtype but no memory. Equal expressions are one. A node of the graph is then one of
//  - lowered: its outputs are expressions ("virtual" values), whose memory exists only if someone needs it;
//  - a view: its outputs lie in an operand's memory. Reading them reads that memory with other strides;
//  - memory: its output is fresh memory, and a Write to each part of it follows. What puts tensors side by
//    side is that where a part is computed: it is computed in its place;
//  - a call: it runs as it was recorded, on tensors.
// Whether a node is a view, and of what, is not known here but asked: the operator runs on meta tensors.
//
// What is lowered: CPU, strided, no gradient wanted, no autocast, sizes that cannot depend on data, not
// empty. Everything else is a call, so every graph can be lowered.
//
// An in-place operator on a virtual value that nothing else shares memory with makes a new expression, and
// the value it overwrote stands for the new one from then on.
//
// An in-place operator on other memory (an input, the result of a call) becomes an expression and a Write of
// it. Writes to a whole tensor wait: until a node other than an operator on that very tensor may see the
// memory, later operators read the expression, and writes on top of it replace it. Writes to a part happen at
// once. What cannot be lowered is a call. A value whose memory may have been written is read from memory from
// then on, and `mutations` tells the scheduler what must stay in order, by `times`: calls and writes are
// numbered in the order in which they happen.
//
// A number that is no constant (an input, or read from a tensor) is an expression like a tensor's: the load
// of what it is given as, an element of f64 or i64.
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
#include "backend/native/layout.h"
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
  int32_t epoch = -1;               // load: the time of the last write to the root before
  int64_t offset = 0;               // load, index: from the root's first element; first number
  ir::Dims strides;                 // load, index: per dimension of the shape
  Number number;                    // constant
  int32_t reduced = 0;              // reductions: how many trailing dimensions; they stay as size 1
  int32_t born = -1;                // the node whose lowering needed it first
};

enum class NodeKind : uint8_t { kCall, kView, kLowered, kMemory };

struct LoweredValue {
  ExprId expr = kNoExpr;            // what it is computed by, if it is virtual
  ir::ValueId root = ir::kNoValue;  // whose memory it lies in: itself, or what it is a view of; none: unknown
  int64_t offset = 0;               // elements from the root's first
  ir::ValueId same_as = ir::kNoValue;  // it is this very tensor, or what that is in turn
  int32_t writes = 0;                  // in-place operators that were folded into its expression
  bool in_memory = false;              // read it from memory although it has an expression
};

// The elements of an expression, in row-major order, go to memory that exists: `sizes` elements of the root's
// tensor, `strides` apart from `offset` on.
struct Write {
  int32_t time = -1;
  ir::ValueId root = ir::kNoValue;
  int64_t offset = 0;
  ir::Dims sizes;
  ir::Dims strides;
  ExprId expr = kNoExpr;
  int32_t versions = 0;  // how many in-place operators it stands for; 0: it fills a part of new memory
  int32_t first = -1;    // the first of them
  int32_t node = -1;     // the last of them

  // Parts of new memory have no element in common.
  bool is_apart_from(const Write& other) const {
    return versions == 0 && other.versions == 0 && node == other.node;
  }
};

// A number that is an operator's Scalar: eager raises if the dtype cannot hold it.
struct ScalarUse {
  ir::ValueId value = ir::kNoValue;
  c10::ScalarType dtype = c10::ScalarType::Undefined;
  bool operator==(const ScalarUse&) const = default;
};

struct Lowered {
  std::vector<Expr> exprs;
  std::vector<NodeKind> nodes;
  std::vector<int32_t> times;  // per node
  std::vector<LoweredValue> values;
  std::vector<int32_t> alias_sets;  // per value: equal for values that may share memory
  std::vector<Write> writes;        // by time
  std::vector<Write> unseen;        // those that never happen, since nobody looks at the memory
  std::vector<bool> barriers;       // per node: writes must not move across it
  std::vector<ScalarUse> scalars;
  // Per value: the times at which its memory was written to, ascending.
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

// Null when the graph does something this backend leaves to the eager one altogether (changing the sizes of
// an existing tensor).
std::optional<Lowered> lower(const ir::Graph& graph);

}  // namespace flashpoint::native
