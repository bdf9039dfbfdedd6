// The native backend: lower, schedule, generate code, run. Each stage can be called on its own (lower.h,
// schedule.h, jit.h); `stages` prints them all.
//
// A program is compiled once its runs could have saved a share of the time that compiling takes
// (set_patience), so a graph that never runs again costs nothing. It runs the recorded operators (the eager
// backend) until then, and after it when the graph has nothing to generate code for, when a run's inputs are
// not what was recorded, and while dispatch modes are active.
//
// Threads and GIL: as for every GraphProgram.
#pragma once

#include <memory>
#include <string>

#include "backend/native/schedule.h"
#include "backend/program.h"
#include "ir/graph.h"

namespace flashpoint::native {

// The graph must be verified, and outlive the program.
std::unique_ptr<GraphProgram> compile(const ir::Graph& graph, const ScheduleOptions& options = {});

// The share of the compile time (both are estimates) that must have been possible to save; 0: the first run
// compiles. For all programs that are not compiled yet.
void set_patience(double share);

struct Stages {
  std::string lowered;
  std::string scheduled;
  std::string kernels;
  std::string llvm;
};
Stages stages(const ir::Graph& graph, const ScheduleOptions& options = {});

}  // namespace flashpoint::native
