#include "record/history.h"

#include <ATen/SequenceNumber.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/csrc/autograd/node.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <stdexcept>
#include <string_view>
#include <unordered_map>

#include "record/tracer_mode.h"

namespace flashpoint {
namespace {

namespace autograd = torch::autograd;

bool has_hooks(autograd::Node& node) {
  return !node.pre_hooks().empty() || !node.post_hooks().empty() || !node.tensor_pre_hooks().empty() ||
         !node.retains_grad_hooks().empty();
}

// Nodes with a backward written in Python; their class is torch's own and has no header of C++ alone.
bool is_python_node(const autograd::Node& node) {
  return std::string_view(typeid(node).name()).find("PyNode") != std::string_view::npos;
}

constexpr const char* kSpent = "Trying to backward through the graph a second time";

// Stands where the history of a replayed tensor has been used up.
struct SpentNode final : autograd::Node {
  explicit SpentNode(std::string name) : autograd::Node(/*sequence_nr=*/UINT64_MAX), label(std::move(name)) {}
  autograd::variable_list apply(autograd::variable_list&&) override {
    throw std::runtime_error(autograd::ERR_BACKWARD_TWICE);
  }
  std::string name() const override { return label; }
  std::string label;
};

// Depth first without recursion: `enter` once per node; true ends the walk there.
template <typename Enter>
void walk(const std::vector<at::Tensor>& roots, std::vector<autograd::Node*>& order, Enter&& enter) {
  std::unordered_set<autograd::Node*> seen;
  struct Step {
    autograd::Node* node;
    size_t next;
  };
  std::vector<Step> path;
  const auto visit = [&](autograd::Node* node) {
    if (node == nullptr || !seen.insert(node).second) return;
    if (enter(*node)) {
      order.push_back(node);
      return;
    }
    path.push_back({node, 0});
  };
  for (const at::Tensor& root : roots) {
    if (!root.requires_grad()) continue;
    visit(autograd::impl::gradient_edge(root).function.get());
    while (!path.empty()) {
      Step& step = path.back();
      const auto& edges = step.node->next_edges();
      if (step.next < edges.size()) {
        autograd::Node* next = edges[step.next++].function.get();
        visit(next);
      } else {
        order.push_back(step.node);
        path.pop_back();
      }
    }
  }
}

enum class Probe : uint8_t { kRuns, kSpent, kUnknown };

// Whether the node still has what its backward needs: runs that by itself, on zeros. What comes out is
// dropped, and nothing is freed, since that is the engine's part.
Probe probe(autograd::Node& node) {
  try {
    const c10::AutoGradMode off(false);
    autograd::variable_list gradients;
    for (uint32_t i = 0; i < node.num_inputs(); ++i) gradients.push_back(node.input_metadata(i).zeros_like());
    node(std::move(gradients));
  } catch (const std::exception& error) {
    const bool spent = std::string_view(error.what()).find(kSpent) != std::string_view::npos;
    return spent ? Probe::kSpent : Probe::kUnknown;
  }
  return Probe::kRuns;
}

}  // namespace

Region Region::begin() {
  Region region;
  region.first_node = at::sequence_number::peek();
  return region;
}

bool Region::is_input(const at::Tensor& tensor) const {
  return std::any_of(inputs.begin(), inputs.end(), [&](const Input& input) {
    return input.tensor->unsafeGetTensorImpl() == tensor.unsafeGetTensorImpl();
  });
}

bool Region::holds() const {
  for (const Input& input : inputs) {
    const at::Tensor& tensor = static_cast<const at::Tensor&>(*input.tensor);
    if (tensor.requires_grad() != input.requires_grad || autograd::impl::grad_fn_unsafe(tensor) != input.node)
      return false;
  }
  return true;
}

void Region::add_input(const at::Tensor& tensor) {
  inputs.push_back({&tensor, tensor.requires_grad(), autograd::impl::grad_fn_unsafe(tensor)});
  if (!tensor.requires_grad() || tensor.is_leaf()) return;
  foreign.insert(tensor.grad_fn().get());
}

bool leaf_has_hooks(const at::Tensor& leaf) {
  if (!autograd::impl::hooks(leaf).empty() || autograd::impl::post_acc_grad_hooks(leaf) != nullptr)
    return true;
  const auto accumulator = autograd::impl::try_get_grad_accumulator(leaf);
  return accumulator && has_hooks(*accumulator);
}

EngineRun explore_run(const std::vector<at::Tensor>& roots, const std::vector<at::Tensor>& inputs,
                      bool accumulate, const Region& region) {
  EngineRun run;
  std::unordered_set<const autograd::Node*> ends;
  std::vector<autograd::Edge> edges;  // keep accumulators alive
  for (const at::Tensor& input : inputs) {
    if (!input.requires_grad()) continue;  // torch says so itself
    edges.push_back(autograd::impl::gradient_edge(input));
    ends.insert(edges.back().function.get());
  }
  std::vector<autograd::Node*> order;
  walk(roots, order, [](autograd::Node&) { return false; });
  // What is run: everything, or what leads to the inputs. Children come before their parents here.
  std::unordered_map<const autograd::Node*, bool> runs;
  for (autograd::Node* node : order) {
    bool leads = inputs.empty();
    for (const auto& edge : node->next_edges()) {
      if (!edge.function) continue;
      leads = leads || ends.contains(edge.function.get()) || runs[edge.function.get()];
    }
    runs[node] = leads;
    auto* leaf = dynamic_cast<autograd::AccumulateGrad*>(node);
    const bool reached = leads || ends.contains(node);
    if (!reached) continue;
    if (leaf != nullptr) {
      if (accumulate) run.leaves.push_back(leaf->variable);
      if (region.is_input(leaf->variable) && leaf_has_hooks(leaf->variable)) run.refusal = "a hook of a leaf";
      continue;
    }
    if (leads && (node->sequence_nr() < region.first_node || region.foreign.contains(node)))
      run.refusal = "a graph that was made outside the region (" + node->name() + ")";
  }
  return run;
}

bool history_is_spent(const at::Tensor& tensor, const Region& region) {
  constexpr int kMostProbes = 16;
  std::vector<autograd::Node*> order;
  walk({tensor}, order, [](autograd::Node&) { return false; });
  // The engine's own order: of the nodes that have all their gradients the newest, accumulators first. A
  // gradient that would be accumulated before the error shows is an effect that a replay would not have.
  std::unordered_map<const autograd::Node*, int> missing;
  for (const autograd::Node* node : order) {
    for (const autograd::Edge& edge : node->next_edges()) ++missing[edge.function.get()];
  }
  const auto older = [](const autograd::Node* a, const autograd::Node* b) {
    return a->sequence_nr() < b->sequence_nr();
  };
  std::vector<autograd::Node*> ready{autograd::impl::gradient_edge(tensor).function.get()};
  const NoTracerDispatchMode hidden;
  for (int probes = 0; probes < kMostProbes && !ready.empty(); ++probes) {
    const auto next = std::max_element(ready.begin(), ready.end(), older);
    autograd::Node* node = *next;
    ready.erase(next);
    if (dynamic_cast<autograd::AccumulateGrad*>(node) != nullptr) return false;
    if (is_python_node(*node) || has_hooks(*node)) return false;  // the program's code would run
    // The next call may come with a graph that is alive.
    if (node->sequence_nr() < region.first_node || region.foreign.contains(node)) return false;
    switch (probe(*node)) {
      case Probe::kSpent:
        return true;
      case Probe::kUnknown:
        return false;
      case Probe::kRuns:
        break;
    }
    for (const autograd::Edge& edge : node->next_edges()) {
      if (edge.is_valid() && --missing[edge.function.get()] == 0) ready.push_back(edge.function.get());
    }
  }
  return false;
}

SpentHistory describe_history(const at::Tensor& tensor, int32_t output) {
  return {output, tensor.is_leaf() ? std::string() : tensor.grad_fn()->name()};
}

at::Tensor with_history(const at::Tensor& tensor, const SpentHistory& history) {
  if (history.name.empty()) return tensor.set_requires_grad(true);
  auto node = c10::make_intrusive<SpentNode>(history.name);
  node->add_input_metadata(tensor);
  autograd::impl::set_gradient_edge(tensor, autograd::Edge(std::move(node), 0));
  return tensor;
}

}  // namespace flashpoint
