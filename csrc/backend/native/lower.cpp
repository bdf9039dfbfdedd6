#include "backend/native/lower.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <algorithm>
#include <numeric>

#include "backend/native/lowering.h"
#include "base/check.h"
#include "ir/constants.h"
#include "ir/schema.h"

namespace flashpoint::native {

int64_t numel(const ir::Dims& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

std::optional<ir::Dims> strides_for(const ir::Dims& shape, const ir::Dims& strides, const ir::Dims& target) {
  ir::Dims result(target.size(), 0);
  size_t from = 0;
  size_t to = 0;
  while (to < target.size()) {
    if (target[to] == 1) {
      ++to;
      continue;
    }
    while (from < shape.size() && shape[from] == 1) ++from;
    if (from == shape.size()) return std::nullopt;
    // The smallest runs of dimensions on both sides with the same number of elements.
    size_t from_end = from + 1;
    size_t to_end = to + 1;
    int64_t have = shape[from];
    int64_t want = target[to];
    while (have != want) {
      if (have < want) {
        if (from_end == shape.size()) return std::nullopt;
        have *= shape[from_end++];
      } else {
        if (to_end == target.size()) return std::nullopt;
        want *= target[to_end++];
      }
    }
    int64_t stride = 0;  // of the innermost; the run on this side must be walked as one
    int64_t expected = 0;
    for (size_t d = from_end; d-- > from;) {
      if (shape[d] == 1) continue;
      if (expected == 0) {
        stride = strides[d];
      } else if (strides[d] != expected) {
        return std::nullopt;
      }
      expected = strides[d] * shape[d];
      if (stride == 0) expected = 0;
    }
    if (stride == 0) {  // broadcast memory: only if the whole run is
      for (size_t d = from; d < from_end; ++d) {
        if (shape[d] != 1 && strides[d] != 0) return std::nullopt;
      }
    }
    for (size_t d = to_end; d-- > to;) {
      result[d] = target[d] == 1 ? 0 : stride;
      stride *= target[d];
    }
    from = from_end;
    to = to_end;
  }
  return result;
}

namespace {

// Beyond these a graph is left to the eager backend: compiling it would take longer than it is worth.
constexpr size_t kMaxNodes = 30'000;
constexpr size_t kMaxMutations = 1'000'000;
constexpr size_t kMaxNames = 256;  // of one tensor, for in-place operators to be folded

// Which values may share memory: a union of everything that a call could have aliased.
class AliasSets {
 public:
  explicit AliasSets(size_t count) : set_(count), members_(count) {
    for (size_t i = 0; i < count; ++i) {
      set_[i] = i;
      members_[i] = {static_cast<ir::ValueId>(i)};
    }
  }

  const std::vector<ir::ValueId>& members(ir::ValueId v) const {
    return members_[set_[static_cast<size_t>(v)]];
  }

  void join(ir::ValueId a, ir::ValueId b) {
    size_t into = set_[static_cast<size_t>(a)];
    size_t from = set_[static_cast<size_t>(b)];
    if (into == from) return;
    if (members_[into].size() < members_[from].size()) std::swap(into, from);
    for (ir::ValueId v : members_[from]) {
      set_[static_cast<size_t>(v)] = into;
      members_[into].push_back(v);
    }
    members_[from].clear();
  }

 private:
  std::vector<size_t> set_;
  std::vector<std::vector<ir::ValueId>> members_;
};

// Elements fill their memory without gaps or overlap, in some order of dimensions.
bool is_dense(const ir::TensorMeta& meta) {
  std::vector<size_t> order;
  for (size_t i = 0; i < meta.sizes.size(); ++i) {
    if (meta.sizes[i] != 1) order.push_back(i);
  }
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return meta.strides[a] < meta.strides[b]; });
  int64_t expected = 1;
  for (size_t d : order) {
    if (meta.strides[d] != expected) return false;
    expected *= meta.sizes[d];
  }
  return true;
}

bool is_plain(const ir::TensorMeta& meta) {
  return meta.defined() && meta.device.is_cpu() && meta.layout == c10::kStrided && !meta.conj && !meta.neg &&
         is_supported(meta.dtype);
}

at::Tensor make_meta(const ir::TensorMeta& meta) {
  return at::empty_strided(meta.sizes, meta.strides, at::TensorOptions().dtype(meta.dtype).device(at::kMeta));
}

// May return its argument, though the schema does not say so.
bool may_return_argument(const std::string& name) {
  return name == "aten::dropout" || name == "aten::feature_dropout" || name == "aten::alpha_dropout" ||
         name == "aten::type_as" || name == "aten::contiguous";
}

class Lowering {
 public:
  explicit Lowering(const ir::Graph& graph)
      : graph_(graph),
        build_(result_.exprs),
        aliases_(graph.values.size()),
        unsure_(graph.values.size()),
        called_(graph.values.size()),
        traits_(graph.ops.size()) {
    for (size_t i = 0; i < graph.ops.size(); ++i) traits_[i] = ir::traits_of(graph.ops[i]);
  }

  std::optional<Lowered> run() {
    if (graph_.nodes.size() > kMaxNodes) return std::nullopt;
    for (const ir::Node& node : graph_.nodes) {  // a kernel's results are inference tensors or they are not
      if (graph_.states[node.state].inference != graph_.states[graph_.nodes[0].state].inference) {
        return std::nullopt;
      }
    }
    result_.values.resize(graph_.values.size());
    result_.nodes.assign(graph_.nodes.size(), NodeKind::kCall);
    for (const ir::Input& input : graph_.inputs) in_own_memory(input.value);
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      const ir::Node& node = graph_.nodes[i];
      const uint64_t writes = writes_of(node);
      build_.now = static_cast<int32_t>(i);
      if (changes_sizes(node, writes)) return std::nullopt;
      result_.nodes[i] = classify(node, writes);
      if (result_.nodes[i] == NodeKind::kLowered) continue;
      for (const ir::Arg& arg : node.args) {
        ir::for_each_value(arg, [&](ir::ValueId id) { called_[static_cast<size_t>(id)] = true; });
      }
      if (writes != 0 || !node.mutates.empty()) note_writes(node, static_cast<int32_t>(i), writes);
      if (mutation_entries_ > kMaxMutations) return std::nullopt;
    }
    return std::move(result_);
  }

 private:
  const ir::Value& value(ir::ValueId id) const { return graph_.values[static_cast<size_t>(id)]; }
  LoweredValue& lowered(ir::ValueId id) { return result_.values[static_cast<size_t>(id)]; }

  void in_own_memory(ir::ValueId id) {
    const ir::Value& v = value(id);
    if (v.kind == ir::ValueKind::kTensor && is_plain(v.meta)) lowered(id).root = id;
  }

  uint64_t writes_of(const ir::Node& node) const {
    return ir::writes_of_call(traits_[node.op], [&](size_t i) {
      return i < node.args.size() && node.args[i].constant.isBool() && node.args[i].constant.toBool();
    });
  }

  bool changes_sizes(const ir::Node& node, uint64_t writes) const {
    if (writes == 0) return false;
    const ir::Op& op = graph_.ops[node.op];
    const auto handle = ir::find_operator(op);
    if (!handle) return true;
    if (handle->hasTag(at::Tag::inplace_view)) return true;
    if (op.name.find("resize") != std::string::npos || op.name.find("set_") != std::string::npos) return true;
    const auto& arguments = handle->schema().arguments();
    for (size_t i = 0; i < arguments.size(); ++i) {
      if (arguments[i].kwarg_only() && arguments[i].alias_info() != nullptr &&
          arguments[i].alias_info()->isWrite()) {
        return true;  // out=
      }
    }
    return false;
  }

  void note_writes(const ir::Node& node, int32_t index, uint64_t writes) {
    std::vector<ir::ValueId> touched;
    const auto add = [&](ir::ValueId id) {
      const auto& members = aliases_.members(id);
      touched.insert(touched.end(), members.begin(), members.end());
    };
    for (size_t i = 0; i < node.args.size(); ++i) {
      if ((writes >> std::min<size_t>(i, 63) & 1) != 0) ir::for_each_value(node.args[i], add);
    }
    for (ir::ValueId id : node.mutates) add(id);
    std::sort(touched.begin(), touched.end());
    touched.erase(std::unique(touched.begin(), touched.end()), touched.end());
    for (ir::ValueId id : touched) {
      result_.mutations[id].push_back(index);
      if (lowered(id).expr != kNoExpr) lowered(id).in_memory = true;
    }
    mutation_entries_ += touched.size();
  }

  NodeKind classify(const ir::Node& node, uint64_t writes) {
    bool unsure = traits_[node.op].dynamic_shape && !indexes_by_position(node);
    for (const ir::Arg& arg : node.args) {
      ir::for_each_value(arg, [&](ir::ValueId id) {
        unsure = unsure || unsure_[static_cast<size_t>(id)] || value(id).kind != ir::ValueKind::kTensor;
      });
    }
    const ir::NodeState& state = graph_.states[node.state];
    // What autocast or a switch of global flags does is left to the operator itself.
    const bool plain = state.autocast.empty() && !state.flags;
    if (!unsure) {
      if (plain && writes == 1 && as_new_version(node)) return NodeKind::kLowered;
      if (as_view(node, writes)) return NodeKind::kView;
      if (writes == 0 && node.mutates.empty() && plain && as_exprs(node, graph_.ops[node.op].name)) {
        return NodeKind::kLowered;
      }
    }
    for (const ir::Output& output : node.outputs) {
      for (int32_t k = 0; k < output.count; ++k) {
        const ir::ValueId id = output.first + k;
        unsure_[static_cast<size_t>(id)] = unsure;
        if (!unsure && lowered(id).root == ir::kNoValue) in_own_memory(id);
        for (const ir::Arg& arg : node.args) {
          ir::for_each_value(arg, [&](ir::ValueId in) { aliases_.join(in, id); });
        }
      }
    }
    return NodeKind::kCall;
  }

  // Indexing has a size of its own only where a mask selects.
  bool indexes_by_position(const ir::Node& node) const {
    const std::string& name = graph_.ops[node.op].name;
    if (name == "aten::where") return node.args.size() > 1;  // of a condition alone it is nonzero
    if (name != "aten::index" && name != "aten::index_put_" && name != "aten::_unsafe_index") return false;
    bool positions = true;
    for (size_t i = 1; i < node.args.size(); ++i) {
      ir::for_each_value(node.args[i], [&](ir::ValueId id) {
        const auto dtype = value(id).meta.dtype;
        positions = positions && dtype != c10::ScalarType::Bool && dtype != c10::ScalarType::Byte;
      });
    }
    return positions;
  }

  // ---- views

  bool as_view(const ir::Node& node, uint64_t writes) {
    const ir::Op& op = graph_.ops[node.op];
    const auto handle = ir::find_operator(op);
    if (!handle || node.outputs.size() != 1 || op.name == "aten::as_strided") return false;
    const auto& schema = handle->schema();
    if (schema.returns()[0].alias_info() == nullptr && !may_return_argument(op.name)) return false;
    const ir::Output& output = node.outputs[0];
    for (int32_t k = 0; k < output.count; ++k) {
      const auto& meta = value(output.first + k).meta;
      if (!is_plain(meta)) return false;
    }
    // The first tensor argument is what a view is of; others (type_as, expand_as) only lend their metadata.
    if (node.args.empty() || node.args[0].kind != ir::Arg::Kind::kValue) return false;
    const ir::ValueId base = node.args[0].value;
    if (lowered(base).root == ir::kNoValue || !is_plain(value(base).meta)) return false;
    if (writes != 0) return as_in_place(node, base, writes);

    std::vector<c10::IValue> stack;
    at::Tensor source;
    for (const ir::Arg& arg : node.args) {
      if (arg.kind == ir::Arg::Kind::kConstant) {
        stack.push_back(arg.constant);
      } else if (arg.kind == ir::Arg::Kind::kValue && is_plain(value(arg.value).meta)) {
        at::Tensor tensor = make_meta(value(arg.value).meta);
        if (!source.defined()) source = tensor;
        stack.emplace_back(std::move(tensor));
      } else {
        return false;
      }
    }
    std::vector<at::Tensor> views;
    try {
      const at::NoGradGuard no_grad;
      handle->callBoxed(stack);
      if (stack[0].isTensor()) {
        views.push_back(stack[0].toTensor());
      } else if (stack[0].isTensorList()) {
        views = stack[0].toTensorVector();
      }
    } catch (const std::exception&) {
      return false;
    }
    if (views.size() != static_cast<size_t>(output.count)) return false;
    for (size_t k = 0; k < views.size(); ++k) {
      const auto& meta = value(output.first + static_cast<int32_t>(k)).meta;
      const at::Tensor& view = views[k];
      if (!view.defined() || !view.storage().is_alias_of(source.storage()) ||
          view.scalar_type() != meta.dtype || view.scalar_type() != source.scalar_type() ||
          view.sizes() != at::IntArrayRef(meta.sizes) || view.strides() != at::IntArrayRef(meta.strides)) {
        return false;
      }
    }
    for (size_t k = 0; k < views.size(); ++k) {
      const ir::ValueId id = output.first + static_cast<int32_t>(k);
      LoweredValue& v = lowered(id);
      const LoweredValue& from = lowered(base);
      v.root = from.root;
      v.offset = from.offset + views[k].storage_offset();
      if (views[k].is_same(source)) v.same_as = base;
      if (from.expr != kNoExpr && !from.in_memory && keeps_order(value(base).meta, value(id).meta) &&
          views[k].storage_offset() == 0) {
        v.expr = build_.reshape(from.expr, value(id).meta.sizes);
      }
      aliases_.join(base, id);
    }
    return true;
  }

  // The result of an operator that works in place is its first argument.
  bool as_in_place(const ir::Node& node, ir::ValueId base, uint64_t writes) {
    const auto& meta = value(node.outputs[0].first).meta;
    if (node.outputs[0].is_list || writes != 1 || meta.sizes != value(base).meta.sizes ||
        meta.strides != value(base).meta.strides || meta.dtype != value(base).meta.dtype) {
      return false;
    }
    LoweredValue& v = lowered(node.outputs[0].first);
    v.root = lowered(base).root;
    v.offset = lowered(base).offset;
    aliases_.join(base, node.outputs[0].first);
    return false;  // it is placed, but it runs as a call
  }

  // Row-major order of elements is the same under both shapes.
  static bool keeps_order(const ir::TensorMeta& from, const ir::TensorMeta& to) {
    if (numel(from.sizes) != numel(to.sizes) || numel(from.sizes) == 0) return false;
    return is_row_major(from) && is_row_major(to);
  }
  static bool is_row_major(const ir::TensorMeta& meta) {
    int64_t expected = 1;
    for (size_t d = meta.sizes.size(); d-- > 0;) {
      if (meta.sizes[d] == 1) continue;
      if (meta.strides[d] != expected) return false;
      expected *= meta.sizes[d];
    }
    return true;
  }

  // ---- expressions

  // The expression to read a tensor by, or none.
  ExprId read(ir::ValueId id) {
    const ir::Value& v = value(id);
    const LoweredValue& place = lowered(id);
    if (v.kind != ir::ValueKind::kTensor || !is_plain(v.meta) || numel(v.meta.sizes) == 0) return kNoExpr;
    if (place.expr != kNoExpr && !place.in_memory) return place.expr;
    if (place.root == ir::kNoValue || value(place.root).meta.dtype != v.meta.dtype) return kNoExpr;
    Expr load;
    load.prim = Prim::load;
    load.dtype = v.meta.dtype;
    load.shape = v.meta.sizes;
    load.root = place.root;
    if (const auto it = result_.mutations.find(place.root); it != result_.mutations.end()) {
      load.epoch = it->second.back();
    }
    load.offset = place.offset;
    load.strides = v.meta.strides;
    for (size_t d = 0; d < load.shape.size(); ++d) {
      if (load.shape[d] == 1) load.strides[d] = 0;
    }
    return build_.add(std::move(load));
  }

  // `add_` on memory of our own: the sum is a new value, and the old one's name stands for it.
  bool as_new_version(const ir::Node& node) {
    const std::string& name = graph_.ops[node.op].name;
    if (!name.ends_with('_') || !node.mutates.empty() || node.args.empty() || node.outputs.size() != 1) {
      return false;
    }
    if (node.args[0].kind != ir::Arg::Kind::kValue || node.outputs[0].is_list) return false;
    const ir::ValueId id = node.outputs[0].first;
    const ir::ValueId old = result_.tensor_of(node.args[0].value);
    const ir::TensorMeta& before = value(old).meta;
    const ir::TensorMeta& after = value(id).meta;
    if (lowered(old).expr == kNoExpr || lowered(old).in_memory || lowered(old).root != old) return false;
    if (before.sizes != after.sizes || before.strides != after.strides || before.dtype != after.dtype) {
      return false;
    }
    const std::vector<ir::ValueId> names = aliases_.members(old);
    if (names.size() > kMaxNames) return false;
    for (ir::ValueId other : names) {
      if (called_[static_cast<size_t>(other)] || result_.tensor_of(other) != old) return false;
    }
    if (!as_exprs(node, name.substr(0, name.size() - 1))) return false;
    for (ir::ValueId other : names) {
      lowered(other).expr = lowered(id).expr;
      lowered(other).root = id;
      lowered(other).same_as = id;
    }
    lowered(id).writes = lowered(old).writes + 1;
    aliases_.join(old, id);
    return true;
  }

  // What is stored has the dimensions of what computes it, up to those of size one.
  bool has_shape_of_its_own(ExprId id) const {
    const auto dims = [](const ir::Dims& shape) {
      ir::Dims result;
      std::copy_if(shape.begin(), shape.end(), std::back_inserter(result), [](int64_t d) { return d != 1; });
      return result;
    };
    return dims(build_.at(id).shape) == dims(build_.at(result_.strip(id)).shape);
  }

  bool as_exprs(const ir::Node& node, const std::string& name) {
    const ir::Op& op = graph_.ops[node.op];
    const Lowerer lowerer = find_lowering(name);
    if (lowerer == nullptr || node.outputs.size() != 1 || node.outputs[0].is_list) return false;
    const ir::ValueId id = node.outputs[0].first;
    const ir::TensorMeta& meta = value(id).meta;
    if (!is_plain(meta) || meta.requires_grad || numel(meta.sizes) == 0 || !is_dense(meta)) return false;
    Call call{build_, graph_, node, op, meta, {}};
    for (const ir::Arg& arg : node.args) {
      ExprId tensor = kNoExpr;
      if (arg.kind == ir::Arg::Kind::kValue) {
        tensor = read(arg.value);
        if (tensor == kNoExpr) return false;
      } else if (arg.kind == ir::Arg::Kind::kList) {
        return false;
      }
      call.tensors.push_back(tensor);
    }
    ExprId expr = lowerer(call);
    if (expr == kNoExpr) return false;
    if (build_.at(expr).dtype != meta.dtype) return false;
    if (numel(build_.at(expr).shape) != numel(meta.sizes)) return false;
    expr = build_.reshape(expr, meta.sizes);
    // A tensor of its own, even if it only repeats another's elements.
    const Prim prim = build_.at(result_.strip(expr)).prim;
    if (prim == Prim::load || prim == Prim::constant || prim == Prim::index || !has_shape_of_its_own(expr)) {
      expr = build_.op(Prim::copy, {expr});
    }
    lowered(id).expr = expr;
    lowered(id).root = id;
    return true;
  }

  const ir::Graph& graph_;
  Lowered result_;
  ExprBuilder build_;
  AliasSets aliases_;
  std::vector<bool> unsure_;  // sizes may differ from run to run
  std::vector<bool> called_;  // an operand of a view or call
  std::vector<ir::OpTraits> traits_;
  size_t mutation_entries_ = 0;
};

void print_dims(std::string& out, const ir::Dims& dims) {
  out += '[';
  for (size_t i = 0; i < dims.size(); ++i) out += (i > 0 ? "," : "") + std::to_string(dims[i]);
  out += ']';
}

}  // namespace

std::optional<Lowered> lower(const ir::Graph& graph) { return Lowering(graph).run(); }

std::string Lowered::text(const ir::Graph& graph) const {
  std::string out = "lowered {\n";
  for (size_t i = 0; i < exprs.size(); ++i) {
    const Expr& e = exprs[i];
    out += "  e" + std::to_string(i) + " = " + prim_name(e.prim);
    for (size_t k = 0; k < e.operands.size(); ++k)
      out += (k > 0 ? ", e" : " e") + std::to_string(e.operands[k]);
    if (e.prim == Prim::load || e.prim == Prim::index) {
      out += e.prim == Prim::load ? " %" + std::to_string(e.root) + " " : " ";
      print_dims(out, e.strides);
      if (e.offset != 0) out += "+" + std::to_string(e.offset);
      if (e.epoch >= 0) out += " after " + std::to_string(e.epoch);
    }
    if (e.prim == Prim::constant) {
      out += ' ';
      if (c10::isFloatingType(e.dtype)) {
        ir::print_float(out, e.number.real);
      } else {
        out += std::to_string(e.number.integer);
      }
    }
    if (e.reduced > 0) out += " last " + std::to_string(e.reduced);
    out += std::string(" : ") + ir::dtype_name(e.dtype);
    print_dims(out, e.shape);
    out += '\n';
  }
  for (size_t i = 0; i < nodes.size(); ++i) {
    const ir::Node& node = graph.nodes[i];
    static constexpr const char* kinds[] = {"call", "view", "lowered"};
    out += "  " + std::string(kinds[static_cast<size_t>(nodes[i])]) + " " + graph.ops[node.op].name;
    for (const ir::Output& output : node.outputs) {
      for (int32_t k = 0; k < output.count; ++k) {
        const LoweredValue& v = values[static_cast<size_t>(output.first + k)];
        out += " %" + std::to_string(output.first + k);
        if (v.expr != kNoExpr) out += "=e" + std::to_string(v.expr);
        if (v.root != ir::kNoValue && v.root != output.first + k) {
          out += "@%" + std::to_string(v.root) + "+" + std::to_string(v.offset);
        }
      }
    }
    out += '\n';
  }
  return out + "}\n";
}

}  // namespace flashpoint::native
