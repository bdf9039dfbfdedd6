// Cross entropy taken apart: what picks the scores of the targets (and raises if there are no such classes)
// stays an operator, and the logarithm of the sum of exponentials becomes operators that kernels compute, so
// that no tensor of probabilities exists.
//
// Taken apart are losses that need no gradient, of rows of scores of a float dtype with class numbers as
// targets, without weights and label smoothing. Inputs keep their values' numbers; all else may be numbered
// anew.
//
// Caller: program.cpp. Threads: pure functions; no GIL needed.
#pragma once

#include "ir/graph.h"

namespace flashpoint::native {

ir::Graph without_losses(const ir::Graph& graph);

}  // namespace flashpoint::native
