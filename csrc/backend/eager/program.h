// The eager backend: a recorded graph, prepared so that running it again costs little beside the operators.
//
// compile() resolves every operator once, lays values out in a small register file (a register is reused as
// soon as its value is dead) and turns arguments into templates; run() fills a boxed stack from them. A
// value moves out of its register at its last use, so memory is freed exactly as in eager mode. Ambient
// state (grad, inference, autocast) is switched only between nodes that differ, and put back at the end.
//
// A Python number that meets a tensor of 32 or 64 bit floats in + - * / is converted once, where the operator
// would convert it in every run. That holds for plain CPU tensors of the recorded dtypes: a run that sees
// anything else (another dtype, a subclass, an active dispatch mode) takes the numbers as they were written.
//
// Constants are shared between runs. An operator might hand a wrapped number on as its result; a run that
// notices replaces its copy, and `flashpoint.constant` clones, so no run sees another one's mutations.
//
// Threads and GIL: a Program may run on several threads at once. run() needs no GIL and never touches
// Python itself; whether to release the GIL around it is the caller's choice (large graphs: yes).
#pragma once

#include <ATen/core/TensorBase.h>
#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "ir/graph.h"

namespace at {
class Tensor;
}

namespace flashpoint::eager {

struct Options {
  bool poison_empty = false;  // tests: fill what empty and its family return with NaN, -1, true
};

// How far a run came; meaningful when it threw.
struct RunStatus {
  int32_t node = -1;              // the node that was running
  bool visible_mutation = false;  // a node that writes to a graph input has begun
};

class Program {
 public:
  Program(Program&&) noexcept;
  Program& operator=(Program&&) noexcept;
  ~Program();

  // Inputs in the order of Graph::inputs; outputs in the order of Graph::outputs. Throws what an operator
  // throws, std::invalid_argument on a wrong number of inputs; then `status` (optional) says how far it came.
  std::vector<at::Tensor> run(c10::ArrayRef<at::Tensor> inputs, RunStatus* status = nullptr) const;

  size_t node_count() const;

 private:
  friend Program compile(const ir::Graph& graph, const Options& options);
  struct Code;
  explicit Program(std::unique_ptr<Code> code);
  std::unique_ptr<Code> code_;
};

// The graph must be verified. Throws std::invalid_argument for an operator that is not registered.
Program compile(const ir::Graph& graph, const Options& options = {});

}  // namespace flashpoint::eager
