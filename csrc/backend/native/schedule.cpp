#include "backend/native/schedule.h"

#include <algorithm>
#include <map>

#include "backend/native/groups.h"
#include "backend/native/lowering.h"
#include "backend/native/lowering_tables.h"
#include "base/check.h"
#include "ir/dead_code.h"
#include "ir/schema.h"

namespace flashpoint::native {
namespace {

// For each dimension of an expression, the run of kernel dimensions that make it up; empty where it has one
// element or is broadcast.
using Mapping = std::vector<std::pair<int32_t, int32_t>>;  // first, count

// Turns a group into a kernel, from what it stores down to what it reads.
class KernelBuilder {
 public:
  KernelBuilder(const ir::Graph& graph, const Lowered& lowered, const Grouping& grouping, int32_t id)
      : graph_(graph), lowered_(lowered), grouping_(grouping), id_(id), group_(grouping.group(id)) {
    int64_t last = 1;
    for (int64_t bound : group_.space.bounds) {
      kernel_.dims.insert(kernel_.dims.begin(), bound / last);
      if (bound <= group_.space.row) ++kernel_.inner;
      last = bound;
    }
    FP_CHECK(last == group_.space.elements, "bounds do not cover the space");
  }

  KernelSpec build() {
    std::vector<int32_t> ops;
    for (ir::ValueId value : group_.stores) ops.push_back(result_of(value));
    KernelSpec spec;
    std::vector<Store> updates;
    for (int32_t index : group_.writes) {
      const Write& write = lowered_.writes[static_cast<size_t>(index)];
      const ExprId real = lowered_.strip(write.expr);
      Store store;
      store.op = compute(real, canonical(real, expr(real).shape));
      store.access.buffer = buffer_of(write.root);
      store.access.offset = write.offset;
      store.access.strides = strides_over(canonical(real, write.sizes), write.sizes, write.strides);
      check_in_step(store.access);
      updates.push_back(std::move(store));
      spec.updates.push_back({static_cast<size_t>(updates.back().access.buffer), write.versions});
    }
    for (ir::ValueId value : inputs_) {
      for (const ScalarUse& use : lowered_.scalars) {
        if (use.value == value) spec.numbers.push_back({spec.inputs.size(), use.dtype});
      }
      kernel_.buffers.push_back(grouping_.meta(value).dtype);
      spec.inputs.push_back(grouping_.meta(value));
    }
    for (size_t i = 0; i < group_.stores.size(); ++i) {
      const ir::TensorMeta& meta = grouping_.meta(group_.stores[i]);
      Store store;
      store.op = ops[i];
      store.access.buffer = static_cast<int32_t>(kernel_.buffers.size());
      store.access.strides = strides_over(canonical(group_.stores[i]), meta.sizes, meta.strides);
      kernel_.stores.push_back(std::move(store));
      kernel_.buffers.push_back(meta.dtype);
      spec.outputs.push_back(meta);
      const auto value = static_cast<size_t>(group_.stores[i]);
      spec.writes.push_back(value < graph_.values.size() ? lowered_.values[value].writes : 0);
    }
    kernel_.stores.insert(kernel_.stores.end(), updates.begin(), updates.end());
    simplify(kernel_);
    spec.kernel = std::move(kernel_);
    return spec;
  }

  const std::vector<ir::ValueId>& inputs() const { return inputs_; }
  const std::vector<ExprId>& computed() const { return computed_; }

 private:
  const Expr& expr(ExprId id) const { return lowered_.exprs[static_cast<size_t>(id)]; }

  Mapping split(const std::vector<int32_t>& dims, const ir::Dims& shape) const {
    Mapping mapping(shape.size(), {0, 0});
    size_t next = 0;
    for (size_t d = 0; d < shape.size(); ++d) {
      if (shape[d] == 1) continue;
      FP_CHECK(next < dims.size(), "a shape has more elements than its dimensions");
      mapping[d].first = dims[next];
      int64_t size = 1;
      while (size < shape[d]) {
        FP_CHECK(next < dims.size(), "a dimension cannot be cut here");
        FP_CHECK(dims[next] == mapping[d].first + mapping[d].second, "a dimension of scattered parts");
        size *= kernel_.dims[static_cast<size_t>(dims[next++])];
        ++mapping[d].second;
      }
      FP_CHECK(size == shape[d], "a dimension cannot be cut here");
    }
    FP_CHECK(next == dims.size(), "a shape has fewer elements than its dimensions");
    return mapping;
  }

  // Every point once, or every row once.
  Mapping canonical(ExprId real, const ir::Dims& shape) const {
    std::vector<int32_t> dims;
    const size_t count =
        kernel_.dims.size() - (grouping_.is_row(id_, real) ? static_cast<size_t>(kernel_.inner) : size_t{0});
    for (size_t d = 0; d < count; ++d) dims.push_back(static_cast<int32_t>(d));
    return split(dims, shape);
  }
  Mapping canonical(ir::ValueId value) const {
    return canonical(lowered_.strip(grouping_.expr_of(value)), grouping_.meta(value).sizes);
  }

  ir::Dims strides_over(const Mapping& mapping, const ir::Dims& shape, const ir::Dims& strides) const {
    ir::Dims result(kernel_.dims.size(), 0);
    for (size_t d = 0; d < shape.size(); ++d) {
      int64_t stride = strides[d];
      for (int32_t k = mapping[d].first + mapping[d].second; k-- > mapping[d].first;) {
        result[static_cast<size_t>(k)] = stride;
        stride *= kernel_.dims[static_cast<size_t>(k)];
      }
    }
    return result;
  }

  int32_t result_of(ir::ValueId value) {
    const ExprId real = lowered_.strip(grouping_.expr_of(value));
    return compute(real, canonical(real, expr(real).shape));
  }

  int32_t buffer_of(ir::ValueId value) {
    auto it = std::find(inputs_.begin(), inputs_.end(), value);
    if (it == inputs_.end()) it = inputs_.insert(it, value);
    return static_cast<int32_t>(it - inputs_.begin());
  }

  // Each point reads nothing of what is written but the element that it writes.
  void check_in_step(const Access& written) const {
    for (const KernelOp& op : kernel_.ops) {
      if (op.prim != Prim::load || op.access.buffer != written.buffer) continue;
      FP_CHECK(op.access == written, "a kernel reads what it writes elsewhere");
    }
  }

  int32_t load(ir::ValueId value, int64_t offset, const ir::Dims& shape, const ir::Dims& strides,
               const Mapping& mapping) {
    KernelOp op;
    op.prim = Prim::load;
    op.dtype = grouping_.meta(value).dtype;
    op.access.buffer = buffer_of(value);
    op.access.offset = offset;
    op.access.strides = strides_over(mapping, shape, strides);
    return append(std::move(op));
  }

  int32_t append(KernelOp op) {
    if (op.prim == Prim::load || op.prim == Prim::constant || op.prim == Prim::index) {
      for (size_t i = 0; i < kernel_.ops.size(); ++i) {
        const KernelOp& other = kernel_.ops[i];
        if (other.prim == op.prim && other.dtype == op.dtype && other.access == op.access &&
            other.number == op.number) {
          return static_cast<int32_t>(i);
        }
      }
    }
    kernel_.ops.push_back(std::move(op));
    return static_cast<int32_t>(kernel_.ops.size() - 1);
  }

  int32_t compute(ExprId id, const Mapping& mapping) {
    const auto key = std::make_pair(id, mapping);
    if (const auto known = known_.find(key); known != known_.end()) return known->second;
    const int32_t result = compute_new(id, mapping);
    known_.emplace(key, result);
    return result;
  }

  int32_t compute_new(ExprId id, const Mapping& mapping) {
    const Expr& e = expr(id);
    if (const auto read = group_.reads.find(id); read != group_.reads.end()) {
      return load(read->second.value, 0, e.shape, read->second.strides, mapping);
    }
    KernelOp op;
    op.prim = e.prim;
    op.dtype = e.dtype;
    switch (e.prim) {
      case Prim::load:
        return load(e.root, e.offset, e.shape, e.strides, mapping);
      case Prim::constant:
        op.number = e.number;
        return append(std::move(op));
      case Prim::index:
        op.access.offset = e.offset;
        op.access.strides = strides_over(mapping, e.shape, e.strides);
        return append(std::move(op));
      case Prim::reshape: {
        std::vector<int32_t> dims;
        for (const auto& [first, count] : mapping) {
          for (int32_t k = 0; k < count; ++k) dims.push_back(first + k);
        }
        return compute(e.operands[0], split(dims, expr(e.operands[0]).shape));
      }
      default:
        break;
    }
    if (is_reduction(e.prim)) {
      FP_CHECK(mapping == canonical(id, e.shape), "a reduction is used where its row is not");
      const Expr& operand = expr(e.operands[0]);
      std::vector<int32_t> all;
      for (size_t d = 0; d < kernel_.dims.size(); ++d) all.push_back(static_cast<int32_t>(d));
      op.operands.push_back(compute(e.operands[0], split(all, operand.shape)));
    } else {
      for (ExprId o : e.operands) {
        const ir::Dims& shape = expr(o).shape;
        Mapping part(shape.size(), {0, 0});
        for (size_t d = 0; d < shape.size(); ++d) {
          if (shape[d] != 1) part[d] = mapping[mapping.size() - shape.size() + d];
        }
        op.operands.push_back(compute(o, part));
      }
    }
    if (e.prim == Prim::copy) return op.operands[0];
    computed_.push_back(id);
    return append(std::move(op));
  }

  const ir::Graph& graph_;
  const Lowered& lowered_;
  const Grouping& grouping_;
  const int32_t id_;
  const Group& group_;
  Kernel kernel_;
  std::vector<ir::ValueId> inputs_;
  std::vector<ExprId> computed_;
  std::map<std::pair<ExprId, Mapping>, int32_t> known_;
};

class Scheduler {
 public:
  Scheduler(const ir::Graph& graph, const Lowered& lowered, const ScheduleOptions& options)
      : graph_(graph), lowered_(lowered), options_(options), grouping_(graph, lowered, options) {}

  Schedule run() {
    ir::Graph& out = result_.graph;
    out.name = graph_.name;
    out.ops = graph_.ops;
    out.states = graph_.states;
    out.strings = graph_.strings;
    out.values.clear();
    renamed_.assign(graph_.values.size() + grouping_.extra_values().size(), ir::kNoValue);
    for (ir::Input input : graph_.inputs) {
      renamed_[static_cast<size_t>(input.value)] =
          out.add_value(graph_.values[static_cast<size_t>(input.value)]);
      input.value = renamed_[static_cast<size_t>(input.value)];
      out.inputs.push_back(input);
    }
    for (const Grouping::Step& step : grouping_.steps()) {
      if (step.node >= 0) {
        const ir::Node& node = graph_.nodes[static_cast<size_t>(step.node)];
        const bool memory = lowered_.nodes[static_cast<size_t>(step.node)] == NodeKind::kMemory;
        add_call(memory ? as_memory(node) : node);
      } else {
        add_kernel(step.group);
      }
    }
    for (ir::ValueId id : graph_.outputs) out.outputs.push_back(rename(id));
    for (const ScalarUse& use : lowered_.scalars) {
      for (size_t i = 0; i < graph_.inputs.size(); ++i) {
        if (graph_.inputs[i].value == use.value) result_.numbers.push_back({i, use.dtype});
      }
    }
    result_.graph = ir::without_dead_code(std::move(result_.graph));
    return std::move(result_);
  }

 private:
  ir::ValueId rename(ir::ValueId id) const {
    if (static_cast<size_t>(id) < lowered_.values.size()) id = lowered_.tensor_of(id);
    const auto i = static_cast<size_t>(id);
    FP_CHECK(renamed_[i] != ir::kNoValue, "a value is used before it exists");
    return renamed_[i];
  }

  bool exists(ir::ValueId id) const {
    return renamed_[static_cast<size_t>(lowered_.tensor_of(id))] != ir::kNoValue;
  }

  // Its tensor holds a later version where this one is meant.
  bool is_overwritten(ir::ValueId id) const {
    const auto writes = [&](ir::ValueId v) { return lowered_.values[static_cast<size_t>(v)].writes; };
    return writes(id) != writes(lowered_.tensor_of(id));
  }

  // The memory of the node's result, whose elements kernels write.
  ir::Node as_memory(ir::Node node) {
    const ir::TensorMeta& meta = graph_.values[static_cast<size_t>(node.outputs[0].first)].meta;
    const auto list = [](const ir::Dims& dims) {
      return ir::Arg::of_constant(c10::IValue(std::vector<int64_t>(dims.begin(), dims.end())));
    };
    const auto nothing = [] { return ir::Arg::of_constant(c10::IValue()); };
    node.op = result_.graph.intern_op({"aten::empty_strided", ""});
    node.args = {list(meta.sizes),
                 list(meta.strides),
                 ir::Arg::of_constant(static_cast<int64_t>(meta.dtype)),
                 nothing(),
                 ir::Arg::of_constant(c10::IValue(meta.device)),
                 nothing()};
    ++result_.operators_lowered;
    return node;
  }

  void add_call(ir::Node node) {
    for (ir::Arg& arg : node.args) {
      ir::for_each_value(arg, [&](ir::ValueId& id) { id = rename(id); });
    }
    for (ir::ValueId& id : node.mutates) id = rename(id);
    for (ir::Output& output : node.outputs) {
      const auto first = static_cast<ir::ValueId>(result_.graph.values.size());
      for (int32_t k = 0; k < output.count; ++k) add_value(output.first + k);
      output.first = first;
    }
    result_.graph.nodes.push_back(std::move(node));
  }

  void add_value(ir::ValueId id) {
    const auto i = static_cast<size_t>(id);
    ir::Value value =
        i < graph_.values.size() ? graph_.values[i] : grouping_.extra_values()[i - graph_.values.size()];
    value.node = static_cast<int32_t>(result_.graph.nodes.size());
    renamed_[i] = result_.graph.add_value(std::move(value));
  }

  // The one operator that a kernel amounts to, when calling it is as good.
  const ir::Node* plain_operator(const Group& group, const std::vector<ExprId>& computed) const {
    if (options_.single_operators || computed.size() > 2) return nullptr;
    if (group.writes.size() == 1 && group.stores.empty() && group.reads.empty()) {
      const Write& write = lowered_.writes[static_cast<size_t>(group.writes[0])];
      const ir::Node& node = graph_.nodes[static_cast<size_t>(write.node)];
      return write.versions == 1 && is_all_of(node, computed) ? &node : nullptr;
    }
    if (group.stores.size() != 1 || !group.writes.empty()) return nullptr;
    const auto value = static_cast<size_t>(group.stores[0]);
    if (value >= graph_.values.size()) return nullptr;
    for (const ir::Node& node : graph_.nodes) {
      if (node.outputs.size() != 1 || node.outputs[0].first != group.stores[0]) continue;
      return is_all_of(node, computed) ? &node : nullptr;
    }
    return nullptr;
  }

  // Whether a kernel that computes this does what the node does, and the node can be called in its place.
  bool is_all_of(const ir::Node& node, const std::vector<ExprId>& computed) const {
    const LoweringRow* row = find_lowering(graph_.ops[node.op].name);
    if (row != nullptr && row->better_alone) return false;
    // What joins tensors copies run by run: dear where runs are short.
    constexpr int64_t kShortRun = 16;
    const std::vector<Part> parts = parts_of(graph_, node);
    if (parts.size() > 1 && parts[1].offset < kShortRun) return false;
    const auto index = static_cast<int32_t>(&node - graph_.nodes.data());
    for (ExprId id : computed) {
      if (lowered_.exprs[static_cast<size_t>(id)].born != index) return false;
    }
    bool all = true;
    for (const ir::Arg& arg : node.args) {
      ir::for_each_value(arg, [&](ir::ValueId id) {
        all = all && exists(id) && !is_overwritten(id) && !is_behind(id, index);
      });
    }
    return all;
  }

  // Its memory does not hold yet what the node is to read there: an earlier operator's write comes later or
  // never.
  bool is_behind(ir::ValueId id, int32_t node) const {
    const int32_t set = lowered_.alias_sets[static_cast<size_t>(id)];
    const auto comes_later = [&](const Write& write) {
      return lowered_.alias_sets[static_cast<size_t>(write.root)] == set && write.first < node &&
             write.time > lowered_.times[static_cast<size_t>(node)];
    };
    return std::any_of(lowered_.writes.begin(), lowered_.writes.end(), comes_later) ||
           std::any_of(lowered_.unseen.begin(), lowered_.unseen.end(), comes_later);
  }

  void add_kernel(int32_t id) {
    const Group& group = grouping_.group(id);
    if (group.stores.empty() && group.writes.empty()) return;
    KernelBuilder builder(graph_, lowered_, grouping_, id);
    KernelSpec spec = builder.build();
    if (const ir::Node* node = plain_operator(group, builder.computed())) return add_call(*node);
    ir::Graph& out = result_.graph;
    ir::Node node;
    node.op = out.intern_op(ir::op_of(group.writes.empty() ? ir::PseudoOp::kernel : ir::PseudoOp::update));
    node.state = graph_.nodes[static_cast<size_t>(first_node(group))].state;
    for (int32_t index : group.writes) {
      const ir::ValueId root = rename(lowered_.writes[static_cast<size_t>(index)].root);
      if (out.values[static_cast<size_t>(root)].node == ir::kNoNode) node.mutates.push_back(root);
    }
    std::sort(node.mutates.begin(), node.mutates.end());
    node.mutates.erase(std::unique(node.mutates.begin(), node.mutates.end()), node.mutates.end());
    node.args.push_back(ir::Arg::of_constant(static_cast<int64_t>(result_.kernels.size())));
    std::vector<ir::Arg> inputs;
    for (ir::ValueId input : builder.inputs()) inputs.push_back(ir::Arg::of_value(rename(input)));
    node.args.push_back(ir::Arg::of_list(std::move(inputs)));
    const auto first_output = static_cast<ir::ValueId>(out.values.size());
    for (ir::ValueId value : group.stores) add_value(value);
    node.outputs.push_back({true, first_output, static_cast<int32_t>(group.stores.size())});
    out.nodes.push_back(std::move(node));
    std::vector<int32_t> nodes;
    for (ExprId e : builder.computed()) nodes.push_back(lowered_.exprs[static_cast<size_t>(e)].born);
    std::sort(nodes.begin(), nodes.end());
    spec.operators = static_cast<int>(std::unique(nodes.begin(), nodes.end()) - nodes.begin());
    result_.operators_lowered += static_cast<size_t>(spec.operators);
    result_.kernels.push_back(std::move(spec));
  }

  int32_t first_node(const Group& group) const {
    if (group.members.empty()) return lowered_.writes[static_cast<size_t>(group.writes.front())].node;
    return lowered_.exprs[static_cast<size_t>(group.members.front())].born;
  }

  const ir::Graph& graph_;
  const Lowered& lowered_;
  const ScheduleOptions& options_;
  const Grouping grouping_;
  Schedule result_;
  std::vector<ir::ValueId> renamed_;
};

}  // namespace

Schedule schedule(const ir::Graph& graph, const Lowered& lowered, const ScheduleOptions& options) {
  return Scheduler(graph, lowered, options).run();
}

}  // namespace flashpoint::native
