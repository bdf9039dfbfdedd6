// Drops what a graph does not need, and renumbers values into print order.
//
// Roots are the outputs and every node that may do more than compute its results: it writes to a tensor,
// draws random numbers, may raise because of values, returns nothing, or is not torch's own operator.
// Graph inputs that nothing uses any more go as well.
//
// Threads: pure function; no GIL needed.
#pragma once

#include "ir/graph.h"

namespace flashpoint::ir {

// The values of a graph under construction may be in any order.
Graph without_dead_code(Graph graph);

}  // namespace flashpoint::ir
