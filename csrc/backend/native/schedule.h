// Stage 2: expressions are gathered into kernels, and everything is put in an order.
//
// The result is a graph again: calls as recorded, and a `flashpoint.kernel` node per kernel. The eager
// backend's executor runs it, so values are freed at their last use and ambient state is kept as ever.
//
// A kernel grows while expressions are placed in program order. Every kernel has a place in the order; a new
// expression may join the kernel of an operand if everything else it needs comes before that place, and a
// kernel that nobody outside uses yet may move later, to its user, as long as no write to what it reads lies
// between. So the order never has cycles, and calls, which include all writes and random numbers, keep
// theirs.
//
// Threads: pure functions; no GIL needed.
#pragma once

#include <memory>
#include <vector>

#include "backend/native/lower.h"
#include "backend/program.h"

namespace flashpoint::native {

struct ScheduleOptions {
  // A kernel that only does what one plain operator does is not generated: the operator is called.
  bool single_operators = false;
  size_t max_exprs = 96;                                       // per kernel
  bool poison_empty = false;                                   // tests: as eager::Options
  std::vector<std::shared_ptr<const HostFunction>> functions;  // as eager::Options
};

struct KernelSpec {
  Kernel kernel;                       // buffers: inputs, then outputs
  std::vector<ir::TensorMeta> inputs;  // what the code was made for
  std::vector<ir::TensorMeta> outputs;
  std::vector<int32_t> writes;  // per output: what its version counter has seen in eager mode
};

struct Schedule {
  ir::Graph graph;
  std::vector<KernelSpec> kernels;
  size_t operators_lowered = 0;  // recorded operators that run inside kernels
};

Schedule schedule(const ir::Graph& graph, const Lowered& lowered, const ScheduleOptions& options);

}  // namespace flashpoint::native
