// Hands a recorded graph to the Python side of a backend: once, at the end of its recording, and once in
// every process that finds the recording in the store.
//
// The compiler is a Python callable (flashpoint/fx/bridge.py); it gets what backend/fx/export.h describes and
//   "sources":   for each input (how the guards reach it, the tensor, whether the graph writes to it)
//   "functions": for each `flashpoint.host_call` index (callable, arguments, which of them are tensors,
//                whether it returns a tuple, the tuple's constants and None where a tensor stands)
//   "trace":     where operators were called (record/call_trace.h)
//   "function", "positional", "keywords", "first": the call that was recorded, for names: function (None in
//                the middle of one), number of arguments by position, names of the others, first argument
// It runs under the grad mode and autocast that the recording started with, unobserved.
//
// GIL: required.
#pragma once

#include <functional>
#include <vector>

#include "guard/global_state.h"
#include "guard/guard_tree.h"
#include "ir/graph.h"
#include "py/ref.h"
#include "record/call_trace.h"
#include "record/recorder.h"
#include "record/scalars.h"

namespace flashpoint {

struct RecordedCall {
  PyObject* function;  // borrowed; null in the middle of a function
  PyObject* first;     // argument, borrowed; null: there is none
  size_t positional;
  PyObject* keywords;  // borrowed; a tuple or null
};

// All of it is used before the backend runs.
struct RecordedGraph {
  const ir::Graph& graph;
  const GuardTree& tree;
  const KeptTrace& trace;
  const std::vector<HostedCall>& functions;
  const std::vector<NumberInput>& numbers;
  std::function<PyObject*(NodeId)> object;   // that the node reaches in the call; borrowed, or null
  std::function<PyObject*(int32_t)> number;  // of a source; borrowed
};

// What the compiler returned (a callable, or None: the recorded operators run instead), or null with a Python
// error set. The state before and after: of the recording, the same for both where nothing has run.
Ref compile_graph(PyObject* compiler, const RecordedGraph& recorded, const RecordedCall& call,
                  const GlobalState& before, const GlobalState& after);

}  // namespace flashpoint
