// A run can be taken back only before its first visible write, so what may raise behind it is found out
// early.
//
// Two kinds of nodes are looked after. Arithmetic on numbers that a graph reads from tensors is moved before
// the first node that writes to a graph input. Operators that take indices (index_copy_, gather, embedding)
// stay where they are, and a `flashpoint.check_range` node before that point says whether their indices are
// within bounds. What an assert statement expects of a tensor is looked at before that point. What each needs
// from behind the point (an optimizer's step counter is incremented before it is read, each layer of a cache
// counts its own length) is computed there a second time on clones of the inputs, when that is a handful of
// operators on small tensors. The graph stays what it was when nothing of the kind follows a write, or when
// one node cannot be looked after: whoever keeps the graph asks `raises_after_write`.
//
// Callers: GraphRecorder::finish. Threads: any; no GIL needed.
#pragma once

#include <vector>

#include "ir/graph.h"

namespace flashpoint::ir {

// Elements of a tensor, and operators behind one, up to which computing it twice is no matter.
inline constexpr int64_t kFewElements = 64;
inline constexpr int64_t kFewIndices = 1 << 14;
inline constexpr int kFewNodes = 16;

struct EarlyChecks {
  Graph graph;
  std::vector<int32_t> checked;  // nodes whose indices are known to be in bounds, ascending
};

// indices: also those of operators; else numbers alone.
EarlyChecks with_early_checks(Graph graph, bool indices);

// The first node that may raise on values, or end the run because of one, and follows a write to an input; -1
// where there is none.
int32_t raises_after_write(const Graph& graph, const std::vector<int32_t>& checked = {});

}  // namespace flashpoint::ir
