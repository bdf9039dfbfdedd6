// Checks a graph's invariants: what ir/graph.h promises, and that every call fits its operator's schema.
//
// Runs after each pass in debug builds and tests, and on every graph that comes from text or disk.
// Threads: pure function; no GIL needed.
#pragma once

#include <string>

#include "ir/graph.h"

namespace flashpoint::ir {

// Empty when the graph is well formed; otherwise the first violation, naming node and value.
std::string verify(const Graph& graph);

}  // namespace flashpoint::ir
