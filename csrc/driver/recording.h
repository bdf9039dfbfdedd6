// What a Session keeps of one recording. Private to the session's own files.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/flat_map.h"
#include "driver/session.h"
#include "py/generators.h"
#include "record/call_trace.h"
#include "record/graph_recorder.h"
#include "record/tracer_mode.h"

namespace flashpoint {

// What the frame belongs to: the object under construction, or its generator. Null for most.
inline PyObject* receiver_of(const EvalFrame& frame) {
  if (frame.link == FrameLink::kInit) return frame.link_self;
  return py::generator_of(frame.frame);
}

struct Session::Recording {
  Recording(const GraphRecorder::Options& options, std::unique_ptr<CallTrace> calls)
      : trace(std::move(calls)), graph(options) {}

  const std::chrono::steady_clock::time_point began = std::chrono::steady_clock::now();
  std::unique_ptr<CallTrace> trace;  // for a Python backend
  GraphRecorder graph;
  std::unique_ptr<Recorder> recorder;
  std::optional<TracerScope> tracer;
  GlobalState before;
  PyObject* handled_before = nullptr;  // kept by the arguments, or the call's own
  std::vector<PyObject*> running;      // frame objects at the break, outermost first
  std::vector<Ref> args;
  std::vector<PyObject*> arg_pointers;
  std::string key;  // empty: the function's start
  Chain chain;      // frames that were running when it started
  size_t positional = 0;
  Ref kwnames;
  Ref function;  // null in the middle of one
  uint64_t suspensions = 0;
  FlatSet<PyObject*> unread;  // what locals that nothing reads any more hold on to; see Session::outlives_use
  std::vector<Ref> kept;      // beside unread
};

// Stands for a local that nothing reads any more.
PyObject* dead_slot();

}  // namespace flashpoint
