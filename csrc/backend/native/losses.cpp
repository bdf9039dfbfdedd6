#include "backend/native/losses.h"

#include <ATen/core/Reduction.h>

#include <algorithm>

namespace flashpoint::native {
namespace {

using c10::ScalarType;
using ir::Arg;

constexpr int64_t kMaxClasses = 65536;  // of longer rows the reductions are calls
constexpr int64_t kMinElements = 4096;  // below this one operator is as good
constexpr std::string_view kName = "aten::cross_entropy_loss";

bool is_plain(const ir::TensorMeta& meta) {
  return meta.device.is_cpu() && meta.layout == c10::kStrided && !meta.conj && !meta.neg &&
         !meta.requires_grad;
}

// (self, target, weight, reduction, ignore_index, label_smoothing)
bool can_take_apart(const ir::Graph& graph, const ir::Node& node) {
  const auto& args = node.args;
  const ir::NodeState& state = graph.states[node.state];
  if (!state.autocast.empty() || state.flags || args.size() != 6) return false;
  if (args[0].kind != Arg::Kind::kValue || args[1].kind != Arg::Kind::kValue) return false;
  for (size_t i = 2; i < args.size(); ++i) {
    if (args[i].kind != Arg::Kind::kConstant) return false;
  }
  if (!args[2].constant.isNone() || !args[3].constant.isInt() || !args[4].constant.isInt()) return false;
  if (!args[5].constant.isDouble() || args[5].constant.toDouble() != 0) return false;
  const ir::TensorMeta& scores = graph.values[static_cast<size_t>(args[0].value)].meta;
  const ir::TensorMeta& target = graph.values[static_cast<size_t>(args[1].value)].meta;
  if (!is_plain(scores) || !is_plain(target) || target.dtype != ScalarType::Long) return false;
  if (scores.dtype != ScalarType::Float && scores.dtype != ScalarType::Double) return false;
  return scores.sizes.size() == 2 && target.sizes.size() == 1 && target.sizes[0] == scores.sizes[0] &&
         scores.sizes[1] <= kMaxClasses && scores.sizes[0] * scores.sizes[1] >= kMinElements;
}

// Appends nodes to a graph, all in the place of one.
class Writer {
 public:
  Writer(ir::Graph& out, const ir::Node& place) : out_(out), place_(place) {}

  ir::ValueId call(const char* name, const char* overload, std::vector<Arg> args, ScalarType dtype,
                   const ir::Dims& sizes) {
    ir::Node node;
    node.op = out_.intern_op({std::string("aten::") + name, overload});
    node.state = place_.state;
    node.location = place_.location;
    node.args = std::move(args);
    ir::Value value;
    value.meta.dtype = dtype;
    value.meta.sizes = sizes;
    value.meta.strides = ir::contiguous_strides(sizes);
    value.node = static_cast<int32_t>(out_.nodes.size());
    node.outputs.push_back({false, out_.add_value(std::move(value)), 1});
    out_.nodes.push_back(std::move(node));
    return out_.nodes.back().outputs[0].first;
  }

 private:
  ir::Graph& out_;
  const ir::Node& place_;
};

template <typename T>
Arg given(T value) {
  return Arg::of_constant(c10::IValue(std::move(value)));
}
Arg dims(const ir::Dims& list) { return given(std::vector<int64_t>(list.begin(), list.end())); }
Arg value_of(ir::ValueId id) { return Arg::of_value(id); }

// The node's value from those of the graph it is written to.
ir::ValueId take_apart(ir::Graph& out, const ir::Node& node) {
  const ir::ValueId x = node.args[0].value;
  const ir::ValueId target = node.args[1].value;
  const int64_t reduction = node.args[3].constant.toInt();
  const Arg ignored = node.args[4];
  const ir::TensorMeta meta = out.values[static_cast<size_t>(x)].meta;
  const ScalarType t = meta.dtype;
  const ir::Dims rows{meta.sizes[0]};
  const ir::Dims column{meta.sizes[0], 1};
  Writer w(out, node);
  const Arg last = dims({1});
  const ir::ValueId picked =
      w.call("nll_loss", "",
             {value_of(x), value_of(target), given(c10::IValue()), given(int64_t{0}), ignored}, t, rows);
  const ir::ValueId largest = w.call("amax", "", {value_of(x), last, given(true)}, t, column);
  const ir::ValueId shifted =
      w.call("sub", "Tensor", {value_of(x), value_of(largest), given(int64_t{1})}, t, meta.sizes);
  const ir::ValueId powers = w.call("exp", "", {value_of(shifted)}, t, meta.sizes);
  const ir::ValueId total =
      w.call("sum", "dim_IntList", {value_of(powers), last, given(true), given(c10::IValue())}, t, column);
  const ir::ValueId log = w.call("log", "", {value_of(total)}, t, column);
  const ir::ValueId minus_score = w.call("reshape", "", {value_of(picked), dims(column)}, t, column);
  // The largest score first: scores may be large beside the loss.
  const ir::ValueId distance =
      w.call("add", "Tensor", {value_of(largest), value_of(minus_score), given(int64_t{1})}, t, column);
  const ir::ValueId loss =
      w.call("add", "Tensor", {value_of(distance), value_of(log), given(int64_t{1})}, t, column);
  const ir::ValueId counted = w.call("ne", "Scalar", {value_of(target), ignored}, ScalarType::Bool, rows);
  const ir::ValueId flat = w.call("reshape", "", {value_of(loss), dims(rows)}, t, rows);
  const ir::ValueId losses =
      w.call("where", "ScalarOther", {value_of(counted), value_of(flat), given(0.0)}, t, rows);
  if (reduction == at::Reduction::None) return losses;
  const ir::ValueId sum = w.call("sum", "", {value_of(losses), given(c10::IValue())}, t, {});
  if (reduction == at::Reduction::Sum) return sum;
  const ir::ValueId count =
      w.call("sum", "", {value_of(counted), given(c10::IValue())}, ScalarType::Long, {});
  return w.call("div", "Tensor", {value_of(sum), value_of(count)}, t, {});
}

}  // namespace

ir::Graph without_losses(const ir::Graph& graph) {
  const auto named = [](const ir::Op& op) { return op.name == kName && op.overload.empty(); };
  if (std::none_of(graph.ops.begin(), graph.ops.end(), named)) return graph;
  ir::Graph out = graph;
  out.nodes.clear();
  out.values.clear();
  std::vector<ir::ValueId> renamed(graph.values.size(), ir::kNoValue);
  const auto define = [&](ir::ValueId old) {
    ir::Value value = graph.values[static_cast<size_t>(old)];
    if (value.node != ir::kNoNode) value.node = static_cast<int32_t>(out.nodes.size());
    return renamed[static_cast<size_t>(old)] = out.add_value(std::move(value));
  };
  const auto rename = [&](ir::ValueId& id) { id = renamed[static_cast<size_t>(id)]; };
  for (ir::Input& input : out.inputs) input.value = define(input.value);
  for (const ir::Node& node : graph.nodes) {
    const bool apart = named(graph.ops[node.op]) && can_take_apart(graph, node) &&
                       is_plain(graph.values[static_cast<size_t>(node.outputs[0].first)].meta);
    ir::Node copy = node;
    for (Arg& arg : copy.args) ir::for_each_value(arg, rename);
    if (apart) {
      renamed[static_cast<size_t>(node.outputs[0].first)] = take_apart(out, copy);
      continue;
    }
    for (ir::ValueId& id : copy.mutates) rename(id);
    for (ir::Output& output : copy.outputs) {
      const auto first = static_cast<ir::ValueId>(out.values.size());
      for (int32_t k = 0; k < output.count; ++k) define(output.first + k);
      output.first = first;
    }
    out.nodes.push_back(std::move(copy));
  }
  for (ir::ValueId& id : out.outputs) rename(id);
  return out;
}

}  // namespace flashpoint::native
