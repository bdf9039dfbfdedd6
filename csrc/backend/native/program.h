// The native backend: lower, schedule, generate code, run. Each stage can be called on its own (lower.h,
// schedule.h, jit.h); `stages` prints them all.
//
// A program is compiled by its first run, so a graph that never runs again costs nothing. It falls back to
// the recorded operators (the eager backend) when the graph has nothing to generate code for, when a run's
// inputs are not what was recorded, and while dispatch modes are active.
//
// Threads and GIL: as for every GraphProgram.
#pragma once

#include <memory>
#include <string>

#include "backend/native/schedule.h"
#include "backend/program.h"
#include "ir/graph.h"

namespace flashpoint::native {

// Keeps a copy of the graph, which must be verified. Throws std::invalid_argument for an operator that is not
// registered.
std::unique_ptr<GraphProgram> compile(const ir::Graph& graph, const ScheduleOptions& options = {});

struct Stages {
  std::string lowered;
  std::string scheduled;
  std::string kernels;
  std::string llvm;
};
Stages stages(const ir::Graph& graph, const ScheduleOptions& options = {});

}  // namespace flashpoint::native
