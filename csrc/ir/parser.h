// Reads the textual form of a graph (ir/printer.h) back: parse(print(g)) == g.
//
// Value numbers may be any distinct numbers; the graph gets dense ids in order of appearance. Arguments
// left out take the schema's defaults. Lines that hold only a comment are skipped. The result is
// well-formed text, not yet a verified graph: callers run ir/verifier.h.
//
// Threads: pure function; no GIL needed.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "ir/graph.h"

namespace flashpoint::ir {

struct ParseResult {
  std::optional<Graph> graph;
  std::string error;  // "line 3: ...", when there is no graph
};

ParseResult parse(std::string_view text);

}  // namespace flashpoint::ir
