// Hands a recorded graph to the Python side of a backend, once, at the end of its recording.
//
// The compiler is a Python callable (flashpoint/fx/bridge.py); it gets what backend/fx/export.h describes and
//   "sources":   for each input (how the guards reach it, the tensor, whether the graph writes to it)
//   "functions": for each `flashpoint.host_call` index (callable, arguments, which of them are tensors,
//                whether it returns a tuple, the tuple's constants and None where a tensor stands)
//   "trace":     where operators were called (record/call_trace.h)
//   "function", "positional", "keywords", "first": the call that was recorded, for names: function (None in
//   the
//                middle of one), number of arguments by position, names of the others, first argument
// It runs under the grad mode and autocast that the recording started with, unobserved.
//
// GIL: required.
#pragma once

#include <vector>

#include "guard/global_state.h"
#include "ir/graph.h"
#include "py/ref.h"
#include "record/call_trace.h"
#include "record/recorder.h"

namespace flashpoint {

struct RecordedCall {
  PyObject* function;  // borrowed; null in the middle of a function
  const std::vector<PyObject*>& arguments;
  size_t positional;
  PyObject* keywords;  // borrowed; a tuple or null
};

// What the compiler returned (a callable, or None: the recorded operators run instead), or null with a Python
// error set.
Ref compile_graph(PyObject* compiler, const ir::Graph& graph, Recorder& recorder, const CallTrace& trace,
                  const std::vector<HostedCall>& functions, const RecordedCall& call,
                  const GlobalState& before, const GlobalState& after);

}  // namespace flashpoint
