// Arithmetic on numbers that a graph reads from tensors may raise; a run can be taken back only before its
// first visible write.
//
// This pass moves such arithmetic before the first node that writes to a graph input. What it needs from
// behind that point (an optimizer's step counter is incremented before it is read) is computed there a second
// time on clones of the inputs, when that is a handful of operators on tensors of a few elements. The graph
// stays what it was when no arithmetic follows a write, or when one cannot be moved: whoever keeps the graph
// checks.
//
// Callers: GraphRecorder::finish. Threads: any; no GIL needed.
#pragma once

#include "ir/graph.h"

namespace flashpoint::ir {

// Elements of a tensor, and operators behind one, up to which computing it twice is no matter.
inline constexpr int64_t kFewElements = 64;
inline constexpr int kFewNodes = 16;

Graph with_early_numbers(Graph graph);

}  // namespace flashpoint::ir
