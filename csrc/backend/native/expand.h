// Operators on lists of tensors (`_foreach_add_`) taken apart into one node per tensor, which is what their
// CPU kernels do as well, so that the other stages need not know them.
//
// Left as they are: operators without a row in expand.cpp, and nodes whose results or operands have history.
// Inputs keep their values' numbers; all else may be numbered anew.
//
// Caller: program.cpp. Threads: pure functions; no GIL needed.
#pragma once

#include "ir/graph.h"

namespace flashpoint::native {

ir::Graph without_foreach(const ir::Graph& graph);

}  // namespace flashpoint::native
