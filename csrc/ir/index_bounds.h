// Which values a call takes as indices, and within which bounds it takes them without raising.
//
// Threads: any; no GIL needed.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "ir/graph.h"

namespace flashpoint::ir {

struct IndexBounds {
  int32_t node;
  ValueId value;
  int64_t low, high;               // low <= each element < high
  std::optional<int64_t> ignored;  // or this
};

// Appends those of the node. False when it may raise because of other values, or nobody knows.
bool index_bounds(const Graph& graph, int32_t node, std::vector<IndexBounds>& bounds);

}  // namespace flashpoint::ir
