// How the eager backend runs pseudo-operators: one function over the boxed stack, a case per row of
// ir/pseudo_ops.def. Same contract as a boxed kernel: takes its arguments off the end of the stack and
// leaves its results there. Threads: any; no GIL needed.
#pragma once

#include <vector>

#include "ir/schema.h"

namespace flashpoint::eager {

void run_pseudo_op(ir::PseudoOp op, std::vector<c10::IValue>& stack);

}  // namespace flashpoint::eager
