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
// The native backend runs its scheduled graphs here too: `flashpoint.kernel` nodes call generated code
// straight from the registers.
//
// Threads and GIL: as for every GraphProgram.
#pragma once

#include <ATen/core/ivalue.h>

#include <memory>
#include <optional>
#include <vector>

#include "backend/program.h"
#include "ir/graph.h"

namespace flashpoint::eager {

struct Options {
  bool poison_empty = false;  // tests: fill what empty and its family return with NaN, -1, true
  std::vector<std::shared_ptr<const HostFunction>> functions;  // what `flashpoint.host_call` nodes name
  std::vector<std::shared_ptr<const KernelCode>> kernels;      // what kernel nodes name by index
};

class Program final : public GraphProgram {
 public:
  Program(Program&&) noexcept;
  Program& operator=(Program&&) noexcept;
  ~Program() override;

  std::vector<at::Tensor> run(c10::ArrayRef<at::Tensor> inputs, RunStatus* status = nullptr) const override;

  size_t node_count() const override;

 private:
  friend Program compile(const ir::Graph& graph, const Options& options);
  struct Code;
  explicit Program(std::unique_ptr<Code> code);
  std::unique_ptr<Code> code_;
};

// The graph must be verified. Throws std::invalid_argument for an operator that is not registered.
Program compile(const ir::Graph& graph, const Options& options = {});

// Compiles when it is first run, so that a recording does not wait for it. The graph must outlive the
// program.
std::unique_ptr<GraphProgram> compile_later(const ir::Graph& graph, const Options& options = {});

// The 0-dim tensor of weak dtype a number becomes in a tensor's place, as torch's argument parser makes it.
// With `dtype`, its value is converted already; it stays weak. It is also what a number input is given as.
at::Tensor make_wrapped(const c10::IValue& number, std::optional<c10::ScalarType> dtype = std::nullopt);

// No dispatch mode, functorch layer or the like is active on this thread.
bool dispatch_is_plain();

}  // namespace flashpoint::eager
