// What autograd's history means to a recording below it.
//
// Below autograd a graph holds what the engine computed, not how it knew what to compute. Two questions are
// left. Before a run: does it stay inside the region (no node that was there before, no hook of a tensor
// that was there before), and which leaves will it write gradients to? And of a tensor that leaves the
// region with history: has that been used up, so that all anybody can learn from it is an error?
//
// Callers: the recorder's engine rule, the recipe writer. GIL: required (hooks belong to Python), except for
// history_is_spent, which must be called without it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <unordered_set>
#include <vector>

namespace flashpoint {

// What counts as made in the region.
struct Region {
  uint64_t first_node = 0;                  // autograd's sequence number when the recording began
  std::unordered_set<const void*> foreign;  // nodes that made the tensors which came from outside
  struct Input {
    const at::TensorBase* tensor;  // kept alive by the recording
    bool requires_grad;
    const void* node;
  };
  std::vector<Input> inputs;

  static Region begin();
  void add_input(const at::Tensor& tensor);
  bool is_input(const at::Tensor& tensor) const;
  bool holds() const;  // what came from outside has the history it had
};

struct EngineRun {
  std::vector<at::Tensor> leaves;  // whose gradients it accumulates
  std::string refusal;             // why it cannot be recorded; empty when it can
};

// A run from `roots`; with `inputs` only what leads to them is run. `accumulate`: as backward() does.
EngineRun explore_run(const std::vector<at::Tensor>& roots, const std::vector<at::Tensor>& inputs,
                      bool accumulate, const Region& region);

// A hook that would be called when a gradient reaches this leaf.
bool leaf_has_hooks(const at::Tensor& leaf);

// Runs a part of the history, without a trace: true when that raises the error of a graph that was freed.
bool history_is_spent(const at::Tensor& tensor, const Region& region);

// What a tensor that was returned with spent history is given at replay: the name shows in its repr, and a
// backward through it raises what torch raises.
struct SpentHistory {
  int32_t output = -1;  // of the graph
  std::string name;     // of the node that made it; empty: a leaf that requires grad
};
SpentHistory describe_history(const at::Tensor& tensor, int32_t output);
at::Tensor with_history(const at::Tensor& tensor, const SpentHistory& history);

}  // namespace flashpoint
