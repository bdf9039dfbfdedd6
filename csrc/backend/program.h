// What every backend makes of a graph: something that runs it.
//
// Threads and GIL: a program may run on several threads at once. run() needs no GIL and never touches Python;
// whether to release the GIL around it is the caller's choice.
#pragma once

#include <ATen/core/TensorBase.h>
#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <stdexcept>
#include <vector>

namespace at {
class Tensor;
}

namespace flashpoint {

// How far a run came (meaningful when it threw) and what it did.
struct RunStatus {
  int32_t node = -1;              // the node that was running
  bool visible_mutation = false;  // a node that writes to a graph input has begun
  uint32_t kernels = 0;           // generated kernels that ran
};

// A run met another value than was recorded, before anything it did could be seen from outside.
struct UnexpectedValue : std::runtime_error {
  explicit UnexpectedValue(int32_t where)
      : std::runtime_error("[flashpoint] a value differs from the recorded one"), site(where) {}
  int32_t site;  // of the `flashpoint.expect_*` node
};

class GraphProgram {
 public:
  virtual ~GraphProgram() = default;

  // Inputs in the order of Graph::inputs, a number as a 0-dim tensor (double or int64); outputs in the order
  // of Graph::outputs. Throws what an operator throws, std::invalid_argument on a wrong number of inputs;
  // then `status` (optional) says how far it came.
  virtual std::vector<at::Tensor> run(c10::ArrayRef<at::Tensor> inputs,
                                      RunStatus* status = nullptr) const = 0;

  virtual size_t node_count() const = 0;
};

// Code of the program that stands for a `flashpoint.host_call` node. Takes the GIL if it needs it; may throw.
class HostFunction {
 public:
  virtual ~HostFunction() = default;
  virtual std::vector<at::Tensor> call(c10::ArrayRef<at::Tensor> inputs) const = 0;
};

// Code that stands for a `flashpoint.kernel` node.
class KernelCode {
 public:
  virtual ~KernelCode() = default;
  // Fills the outputs with fresh tensors.
  virtual void run(c10::ArrayRef<const at::Tensor*> inputs, c10::ArrayRef<at::Tensor*> outputs) const = 0;
};

}  // namespace flashpoint
