// Stage 2: expressions are gathered into kernels, and everything is put in an order.
//
// The result is a graph again: calls as recorded, and a `flashpoint.kernel` node per kernel, or a
// `flashpoint.update` node where it also writes to memory that exists. The eager backend's executor runs it,
// so values are freed at their last use and ambient state is kept as ever.
//
// A kernel grows while expressions are placed in program order. Every kernel has a place in the order; a new
// expression may join the kernel of an operand if everything else it needs comes before that place, and a
// kernel that nobody outside uses yet may move later, to its user, as long as no write to what it reads lies
// between. So the order never has cycles, and calls, which include random numbers and all writes that are not
// lowered, keep theirs. A lowered write happens in the kernel that computes it, if that can be placed behind
// everything that has to do with the memory so far and reads nothing of it but the element that it writes;
// otherwise a kernel of its own copies what was computed. Kernels that write stay where they are.
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

// An input that the kernel writes to.
struct Update {
  size_t input = 0;
  int32_t versions = 0;  // what its version counter sees in eager mode
};

// A number among the inputs that this dtype must be able to hold.
struct NumberUse {
  size_t input = 0;
  c10::ScalarType dtype = c10::ScalarType::Undefined;
};

struct KernelSpec {
  Kernel kernel;                       // buffers: inputs, then outputs
  std::vector<ir::TensorMeta> inputs;  // what the code was made for
  std::vector<ir::TensorMeta> outputs;
  std::vector<int32_t> writes;  // per output: what its version counter has seen in eager mode
  std::vector<Update> updates;
  std::vector<NumberUse> numbers;
  int operators = 0;  // recorded operators that run inside
};

struct Schedule {
  ir::Graph graph;
  std::vector<KernelSpec> kernels;
  std::vector<NumberUse> numbers;  // by position among the recorded graph's inputs
  size_t operators_lowered = 0;    // recorded operators that run inside kernels
};

Schedule schedule(const ir::Graph& graph, const Lowered& lowered, const ScheduleOptions& options);

}  // namespace flashpoint::native
