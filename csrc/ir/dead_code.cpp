#include "ir/dead_code.h"

#include <algorithm>

#include "ir/index_bounds.h"
#include "ir/schema.h"

namespace flashpoint::ir {
namespace {

// Inputs first, then every node's outputs in turn: nothing to renumber.
bool in_print_order(const Graph& graph) {
  ValueId next = 0;
  for (const Input& input : graph.inputs) {
    if (input.value != next++) return false;
  }
  for (const Node& node : graph.nodes) {
    for (const Output& output : node.outputs) {
      if (output.first != next) return false;
      next += output.count;
    }
  }
  return true;
}

// No node writes to the value, or to a view of it.
bool is_only_read(const Graph& graph, ValueId value) {
  return std::none_of(graph.nodes.begin(), graph.nodes.end(), [&](const Node& node) {
    bool uses = false;
    for (const Arg& arg : node.args) for_each_value(arg, [&](ValueId id) { uses = uses || id == value; });
    if (!uses) return false;
    const c10::FunctionSchema* schema = find_schema(graph.ops[node.op]);
    return schema == nullptr || traits_of(graph.ops[node.op]).hidden_writes != 0 ||
           std::any_of(schema->arguments().begin(), schema->arguments().end(),
                       [](const c10::Argument& argument) { return argument.alias_info() != nullptr; });
  });
}

// The index is a literal whose elements are within bounds.
bool literal_is_within(const Graph& graph, const IndexBounds& bounds) {
  const Value& value = graph.values[static_cast<size_t>(bounds.value)];
  if (value.node == kNoNode) return false;
  const Node& node = graph.nodes[static_cast<size_t>(value.node)];
  if (pseudo_op(graph.ops[node.op]) != PseudoOp::constant || node.args[0].kind != Arg::Kind::kConstant ||
      !node.args[0].constant.isTensor() || !is_only_read(graph, bounds.value))
    return false;
  const at::Tensor& data = node.args[0].constant.toTensor();
  const auto fits = [&](auto* elements) {
    return std::all_of(elements, elements + data.numel(), [&](int64_t element) {
      return (bounds.low <= element && element < bounds.high) || element == bounds.ignored;
    });
  };
  if (!data.is_contiguous() || !data.is_cpu()) return false;
  if (data.scalar_type() == at::kLong) return fits(data.const_data_ptr<int64_t>());
  return data.scalar_type() == at::kInt && fits(data.const_data_ptr<int32_t>());
}

// It takes indices, all of them literals within bounds: it cannot raise, and does nothing else.
bool takes_good_literals(const Graph& graph, int32_t at) {
  const Node& node = graph.nodes[static_cast<size_t>(at)];
  const OpTraits traits = traits_of(graph.ops[node.op]);
  if (!node.mutates.empty() || traits.writes != 0 || traits.hidden_writes != 0 || traits.rng) return false;
  std::vector<IndexBounds> bounds;
  return index_bounds(graph, at, bounds) && std::all_of(bounds.begin(), bounds.end(), [&](const auto& b) {
           return literal_is_within(graph, b);
         });
}

}  // namespace

Graph without_dead_code(Graph graph) {
  std::vector<bool> pure(graph.ops.size());
  for (size_t i = 0; i < graph.ops.size(); ++i) pure[i] = traits_of(graph.ops[i]).pure;

  std::vector<bool> used(graph.values.size(), false);
  std::vector<bool> live(graph.nodes.size(), false);
  const auto mark = [&](ValueId id) { used[static_cast<size_t>(id)] = true; };
  for (ValueId id : graph.outputs) mark(id);
  for (size_t i = graph.nodes.size(); i-- > 0;) {
    const Node& node = graph.nodes[i];
    bool needed = false;
    for (const Output& output : node.outputs) {
      for (int32_t k = 0; k < output.count; ++k) needed |= used[static_cast<size_t>(output.first + k)];
    }
    if (!needed && (pure[node.op] || takes_good_literals(graph, static_cast<int32_t>(i)))) continue;
    live[i] = true;
    for (const Arg& arg : node.args) for_each_value(arg, [&](ValueId id) { mark(id); });
  }

  const bool all_live = std::all_of(live.begin(), live.end(), [](bool b) { return b; });
  const bool all_used = std::all_of(graph.inputs.begin(), graph.inputs.end(), [&](const Input& input) {
    return used[static_cast<size_t>(input.value)];
  });
  if (all_live && all_used && in_print_order(graph)) return graph;

  std::vector<ValueId> renamed(graph.values.size(), kNoValue);
  std::vector<Value> values;
  values.reserve(graph.values.size());
  const auto move_value = [&](ValueId id, int32_t node) {
    renamed[static_cast<size_t>(id)] = static_cast<ValueId>(values.size());
    values.push_back(std::move(graph.values[static_cast<size_t>(id)]));
    values.back().node = node;
  };
  std::vector<Input> inputs;
  for (Input input : graph.inputs) {
    if (!used[static_cast<size_t>(input.value)]) continue;
    move_value(input.value, kNoNode);
    input.value = renamed[static_cast<size_t>(input.value)];
    inputs.push_back(input);
  }
  std::vector<Node> nodes;
  nodes.reserve(graph.nodes.size());
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    if (!live[i]) continue;
    Node node = std::move(graph.nodes[i]);
    for (Arg& arg : node.args) {
      for_each_value(arg, [&](ValueId& id) { id = renamed[static_cast<size_t>(id)]; });
    }
    for (Output& output : node.outputs) {
      const ValueId first = static_cast<ValueId>(values.size());
      for (int32_t k = 0; k < output.count; ++k)
        move_value(output.first + k, static_cast<int32_t>(nodes.size()));
      output.first = first;
    }
    // An input that shares memory with what is written, but is itself unused, is no input any more.
    c10::SmallVector<ValueId, 1> mutates;
    for (ValueId id : node.mutates) {
      if (renamed[static_cast<size_t>(id)] != kNoValue) mutates.push_back(renamed[static_cast<size_t>(id)]);
    }
    node.mutates = std::move(mutates);
    nodes.push_back(std::move(node));
  }
  for (ValueId& id : graph.outputs) id = renamed[static_cast<size_t>(id)];
  graph.values = std::move(values);
  graph.inputs = std::move(inputs);
  graph.nodes = std::move(nodes);
  return graph;
}

}  // namespace flashpoint::ir
