// What is known of an operator before it runs: whether its results may lie in memory of its arguments, and in
// which.
//
// Caller: lower.cpp. Threads: pure functions; no GIL needed.
#pragma once

#include <optional>
#include <string>

#include "ir/graph.h"

namespace flashpoint::native {

// May return its argument, though the schema does not say so.
bool may_return_argument(const std::string& name);

// Whether a result may lie in an argument's memory.
bool may_alias(const ir::Op& op);

// Whether one of the arguments that it writes (a bit each) is out=.
bool names_result(const ir::Op& op, uint64_t writes);

// The operator that takes the first `count` arguments of this one, which are all but out=, and returns a new
// tensor.
std::optional<ir::Op> without_out(const ir::Op& op, size_t count);

}  // namespace flashpoint::native
