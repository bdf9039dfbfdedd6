#include "backend/native/lower.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <algorithm>
#include <bit>
#include <numeric>

#include "backend/native/alias_sets.h"
#include "backend/native/lowering.h"
#include "backend/native/lowering_tables.h"
#include "backend/native/operators.h"
#include "base/check.h"
#include "ir/constants.h"
#include "ir/schema.h"

namespace flashpoint::native {

namespace {

// Beyond these a graph is left to the eager backend: compiling it would take longer than it is worth.
constexpr size_t kMaxNodes = 30'000;
constexpr size_t kMaxMutations = 1'000'000;
constexpr size_t kMaxNames = 256;  // of one tensor, for in-place operators to be folded

bool is_plain(const ir::TensorMeta& meta) {
  return meta.defined() && meta.device.is_cpu() && meta.layout == c10::kStrided && !meta.conj && !meta.neg &&
         is_supported(meta.dtype);
}

at::Tensor make_meta(const ir::TensorMeta& meta) {
  return at::empty_strided(meta.sizes, meta.strides, at::TensorOptions().dtype(meta.dtype).device(at::kMeta));
}

// Both name as many elements, and the row-major order of elements is their order in memory.
bool keeps_order(const ir::TensorMeta& from, const ir::TensorMeta& to) {
  const auto is_row_major = [](const ir::TensorMeta& meta) {
    int64_t expected = 1;
    for (size_t d = meta.sizes.size(); d-- > 0;) {
      if (meta.sizes[d] == 1) continue;
      if (meta.strides[d] != expected) return false;
      expected *= meta.sizes[d];
    }
    return true;
  };
  if (numel(from.sizes) != numel(to.sizes) || numel(from.sizes) == 0) return false;
  return is_row_major(from) && is_row_major(to);
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
    build_.is_current = [this](const Expr& load) {
      const auto it = result_.mutations.find(load.root);
      return it == result_.mutations.end() || it->second.back() <= load.epoch;
    };
    for (size_t i = 0; i < graph.ops.size(); ++i) {
      traits_[i] = ir::traits_of(graph.ops[i]);
      may_alias_.push_back(may_alias(graph.ops[i]));
    }
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
    result_.times.assign(graph_.nodes.size(), -1);
    result_.barriers.assign(graph_.nodes.size(), false);
    for (const ir::Input& input : graph_.inputs) in_own_memory(input.value);
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      const ir::Node& node = graph_.nodes[i];
      const uint64_t writes = writes_of(node);
      build_.now = static_cast<int32_t>(i);
      if (changes_sizes(node, writes)) return std::nullopt;
      settle(node);
      result_.nodes[i] = classify(node, writes);
      if (result_.nodes[i] == NodeKind::kLowered || result_.nodes[i] == NodeKind::kMemory) continue;
      for (const ir::Arg& arg : node.args) {
        ir::for_each_value(arg, [&](ir::ValueId id) { called_[static_cast<size_t>(id)] = true; });
      }
      if (writes != 0 || !node.mutates.empty()) note_writes(node, result_.times[i], writes);
      if (mutation_entries_ > kMaxMutations) return std::nullopt;
    }
    for (const Waiting& write : aliases_.all_waiting()) {
      if (is_visible(write.root)) {
        perform(write.root);
      } else {
        result_.unseen.push_back(write_of(write));
        result_.unseen.back().time = INT32_MAX;
      }
    }
    for (size_t i = 0; i < graph_.values.size(); ++i) {
      result_.alias_sets.push_back(aliases_.id(static_cast<ir::ValueId>(i)));
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
    return names_result(op, writes) && !fits_in_place(node, writes);
  }

  // The one result has the size of the memory it is to be written to, whatever the numbers are.
  bool fits_in_place(const ir::Node& node, uint64_t writes) const {
    const auto target = static_cast<size_t>(std::countr_zero(writes));
    if (!std::has_single_bit(writes) || target >= node.args.size() || traits_[node.op].dynamic_shape ||
        node.outputs.size() != 1 || node.outputs[0].is_list) {
      return false;
    }
    bool sure = node.args[target].kind == ir::Arg::Kind::kValue;
    for (size_t i = 0; i < node.args.size(); ++i) {
      ir::for_each_value(node.args[i], [&](ir::ValueId id) {
        sure = sure && !unsure_[static_cast<size_t>(id)] && !(is_number(id) && decides_sizes(node, i));
      });
    }
    return sure && value(node.args[target].value).meta.sizes == value(node.outputs[0].first).meta.sizes;
  }

  // ---- writes that wait

  // Those that come before this node whatever it is: it looks at the memory by another name.
  void settle(const ir::Node& node) {
    for (const ir::Arg& arg : node.args) {
      ir::for_each_value(arg, [&](ir::ValueId id) {
        const Waiting* write = aliases_.waiting(id);
        if (write != nullptr && result_.tensor_of(id) != write->root) perform(id);
      });
    }
  }

  // Those that come before a call of this node.
  void settle_for_call(const ir::Node& node) {
    const ir::Op& op = graph_.ops[node.op];
    // What may end the run here, or may be code of the program, must find everything written.
    const auto pseudo = ir::pseudo_op(op);
    const bool foreign = pseudo ? *pseudo == ir::PseudoOp::host_call : !op.name.starts_with("aten::");
    const bool all = traits_[node.op].raises_on_values || foreign;
    if (all) {
      result_.barriers[static_cast<size_t>(&node - graph_.nodes.data())] = true;
      for (const Waiting& write : aliases_.all_waiting()) perform(write.root);
      return;
    }
    for (const ir::Arg& arg : node.args) {
      ir::for_each_value(arg, [&](ir::ValueId id) {
        if (aliases_.waiting(id) != nullptr) perform(id);
      });
    }
  }

  // The write to this memory happens now.
  void perform(ir::ValueId id) {
    const Waiting waiting = *aliases_.waiting(id);
    aliases_.done(id);
    perform(write_of(waiting));
  }
  Write write_of(const Waiting& waiting) const {
    Write write;
    write.root = waiting.root;
    write.sizes = value(waiting.root).meta.sizes;
    write.strides = value(waiting.root).meta.strides;
    write.expr = waiting.expr;
    write.versions = waiting.versions;
    write.first = waiting.first;
    write.node = waiting.node;
    return write;
  }
  void perform(Write write) {
    write.time = clock_++;
    written(write.root, write.time);
    result_.writes.push_back(std::move(write));
  }

  // Whether anybody could tell that the memory was not written at last.
  bool is_visible(ir::ValueId root) const {
    const auto& members = aliases_.members(root);
    return std::any_of(members.begin(), members.end(), [&](ir::ValueId id) {
      return value(id).node == ir::kNoNode || value(id).meta.requires_grad ||
             std::find(graph_.outputs.begin(), graph_.outputs.end(), id) != graph_.outputs.end();
    });
  }

  void written(ir::ValueId id, int32_t time) {
    for (ir::ValueId member : aliases_.members(id)) {
      auto& times = result_.mutations[member];
      if (times.empty() || times.back() != time) {
        times.push_back(time);
        ++mutation_entries_;
      }
      if (lowered(member).expr != kNoExpr) lowered(member).in_memory = true;
    }
  }

  void note_writes(const ir::Node& node, int32_t time, uint64_t writes) {
    const auto add = [&](ir::ValueId id) { written(id, time); };
    for (size_t i = 0; i < node.args.size(); ++i) {
      if ((writes >> std::min<size_t>(i, 63) & 1) != 0) ir::for_each_value(node.args[i], add);
    }
    for (ir::ValueId id : node.mutates) add(id);
  }

  NodeKind classify(const ir::Node& node, uint64_t writes) {
    bool unsure = traits_[node.op].dynamic_shape && !indexes_by_position(node);
    for (size_t i = 0; i < node.args.size(); ++i) {
      ir::for_each_value(node.args[i], [&](ir::ValueId id) {
        unsure = unsure || unsure_[static_cast<size_t>(id)] || (is_number(id) && decides_sizes(node, i));
      });
    }
    const ir::NodeState& state = graph_.states[node.state];
    // What autocast or a switch of global flags does is left to the operator itself.
    const bool plain = state.autocast.empty() && !state.flags;
    if (!unsure) {
      if (plain && std::has_single_bit(writes) && (as_new_version(node) || as_write(node, writes))) {
        tick(node);
        return NodeKind::kLowered;
      }
      if (as_view(node, writes)) {
        tick(node);
        return NodeKind::kView;
      }
      const bool pure = writes == 0 && node.mutates.empty() && plain;
      if (pure && as_parts(node)) {
        tick(node);
        return NodeKind::kMemory;
      }
      if (pure && as_exprs(node, graph_.ops[node.op].name)) {
        tick(node);
        return NodeKind::kLowered;
      }
    }
    settle_for_call(node);
    tick(node);
    for (const ir::Output& output : node.outputs) {
      for (int32_t k = 0; k < output.count; ++k) {
        const ir::ValueId id = output.first + k;
        unsure_[static_cast<size_t>(id)] = unsure;
        if (!unsure && lowered(id).root == ir::kNoValue) in_own_memory(id);
        if (!may_alias_[node.op] || is_number(id)) continue;
        for (const ir::Arg& arg : node.args) {
          ir::for_each_value(arg, [&](ir::ValueId in) {
            if (!is_number(in)) aliases_.join(in, id);
          });
        }
      }
    }
    return NodeKind::kCall;
  }

  bool is_number(ir::ValueId id) const { return value(id).kind != ir::ValueKind::kTensor; }

  // Whether a number in this place may have a say in the result's sizes.
  bool decides_sizes(const ir::Node& node, size_t argument) const {
    const ir::Op& op = graph_.ops[node.op];
    if (op.name == "aten::arange" || op.name == "aten::range") return true;
    const c10::FunctionSchema* schema = ir::find_schema(op);
    if (schema == nullptr || node.args[argument].kind != ir::Arg::Kind::kValue) return true;
    if (value(node.args[argument].value).kind == ir::ValueKind::kBool) return true;
    const c10::Type* type = schema->arguments()[argument].real_type().get();
    while (auto* optional = type->castRaw<c10::OptionalType>()) type = optional->getElementType().get();
    return type->kind() != c10::TypeKind::NumberType && type->kind() != c10::TypeKind::FloatType &&
           type->kind() != c10::TypeKind::TensorType;
  }

  void tick(const ir::Node& node) {
    result_.times[static_cast<size_t>(&node - graph_.nodes.data())] = clock_++;
    for (Write& write : std::exchange(parts_written_, {})) perform(std::move(write));
  }

  // Indexing has a size of its own only where a mask selects, repetition where tensors say how often.
  bool indexes_by_position(const ir::Node& node) const {
    const std::string& name = graph_.ops[node.op].name;
    if (name == "aten::where") return node.args.size() > 1;  // of a condition alone it is nonzero
    if (name == "aten::repeat_interleave") return graph_.ops[node.op].overload == "self_int";
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

  // ---- expressions

  // The expression to read a tensor by, or none.
  ExprId read(ir::ValueId id) {
    const ir::Value& v = value(id);
    const LoweredValue& place = lowered(id);
    if (v.kind == ir::ValueKind::kFloat || v.kind == ir::ValueKind::kInt) {
      Expr number;
      number.prim = Prim::load;
      number.dtype = meta_of(v).dtype;
      number.root = id;
      return build_.add(std::move(number));
    }
    if (v.kind != ir::ValueKind::kTensor || !is_plain(v.meta) || numel(v.meta.sizes) == 0) return kNoExpr;
    // What waits to be written there; settle() made sure that this is the name it was written by.
    if (const Waiting* write = aliases_.waiting(id)) return write->expr;
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
    if (aliases_.waiting(old) != nullptr) return false;
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

  // `add_` on memory that others may see, or that the program may look at again; `add` with `out`.
  bool as_write(const ir::Node& node, uint64_t writes) {
    const std::string& name = graph_.ops[node.op].name;
    const auto place = static_cast<size_t>(std::countr_zero(writes));
    const bool in_place = name.ends_with('_');
    if (!name.starts_with("aten::") || in_place != (place == 0) || place >= node.args.size() ||
        node.outputs.size() != 1) {
      return false;
    }
    if (node.args[place].kind != ir::Arg::Kind::kValue || node.outputs[0].is_list) return false;
    const ir::ValueId target = node.args[place].value;
    const ir::ValueId id = node.outputs[0].first;
    const ir::ValueId root = lowered(target).root;
    const ir::TensorMeta& before = value(target).meta;
    const ir::TensorMeta& after = value(id).meta;
    if (root == ir::kNoValue || !is_plain(before) || !is_injective(before)) return false;
    if (before.sizes != after.sizes || before.strides != after.strides || before.dtype != after.dtype ||
        before.dtype != value(root).meta.dtype) {
      return false;
    }
    // History of what the operator did is the operator's to write.
    const ir::NodeState& state = graph_.states[node.state];
    if (state.grad && !state.base && (before.requires_grad || after.requires_grad)) return false;
    // Inputs that overlap are left to the operators.
    for (ir::ValueId input : node.mutates) {
      if (input != root) return false;
    }
    if (reads_elsewhere(node, place)) return false;
    const std::vector<ExprId> exprs =
        in_place ? exprs_of(node, name.substr(0, name.size() - 1), true) : exprs_for(node, place);
    if (exprs.empty()) return false;
    const ExprId expr = exprs[0];
    const bool whole = result_.tensor_of(target) == root;
    lowered(id).root = root;
    lowered(id).offset = lowered(target).offset;
    lowered(id).same_as = target;
    aliases_.join(target, id);
    const auto index = static_cast<int32_t>(&node - graph_.nodes.data());
    if (whole) {
      const Waiting* before_it = aliases_.waiting(root);
      const int32_t versions = before_it == nullptr ? 0 : before_it->versions;
      const int32_t first = before_it == nullptr ? index : before_it->first;
      aliases_.wait({root, expr, versions + 1, first, index});
      for (ir::ValueId member : aliases_.members(root)) {
        if (lowered(member).expr != kNoExpr) lowered(member).in_memory = true;
      }
      return true;
    }
    Write write;
    write.root = root;
    write.offset = lowered(target).offset;
    write.sizes = before.sizes;
    write.strides = before.strides;
    write.expr = expr;
    write.versions = 1;
    write.first = write.node = index;
    parts_written_.push_back(std::move(write));  // after this node's own time
    return true;
  }

  // What puts tensors side by side: new memory, and a write to each part of it.
  bool as_parts(const ir::Node& node) {
    constexpr size_t kMaxParts = 8;  // each part is a kernel's code
    const std::vector<Part> parts = parts_of(graph_, node);
    if (parts.size() < 2 || parts.size() > kMaxParts) return false;
    const ir::ValueId id = node.outputs[0].first;
    const ir::TensorMeta& meta = value(id).meta;
    if (!is_plain(meta) || meta.requires_grad || !is_dense(meta)) return false;
    // Copying what is in memory is what the operator does.
    const bool computed = std::any_of(parts.begin(), parts.end(), [&](const Part& part) {
      const LoweredValue& v = lowered(part.value);
      return v.expr != kNoExpr && !v.in_memory && !called_[static_cast<size_t>(part.value)];
    });
    if (!computed) return false;
    std::vector<ExprId> exprs;
    for (const Part& part : parts) {
      exprs.push_back(read(part.value));
      if (exprs.back() == kNoExpr) return false;
    }
    if (joins_by_choice(build_, exprs)) return false;
    std::vector<Write> writes;
    for (const Part& part : parts) {
      Write write;
      write.root = id;
      write.offset = part.offset;
      write.sizes = part.sizes;
      write.strides = part.strides;
      write.first = write.node = static_cast<int32_t>(&node - graph_.nodes.data());
      ir::TensorMeta own = meta;
      own.sizes = part.sizes;
      write.expr = as_tensor(build_.cast(exprs[writes.size()], meta.dtype), own);
      if (write.expr == kNoExpr) return false;
      writes.push_back(std::move(write));
    }
    lowered(id).root = id;
    parts_written_ = std::move(writes);
    return true;
  }

  // What is to be written to the memory that out= names: what the operator gives without it. Of other dtypes
  // the result would be converted.
  std::vector<ExprId> exprs_for(const ir::Node& node, size_t place) {
    ir::Node plain = node;
    plain.args.resize(place);
    for (const ir::Arg& arg : plain.args) {
      bool same = true;
      ir::for_each_value(arg, [&](ir::ValueId id) {
        same = same && !is_number(id) && value(id).meta.dtype == value(node.args[place].value).meta.dtype;
      });
      if (!same || arg.kind == ir::Arg::Kind::kList) return {};
    }
    const auto op = without_out(graph_.ops[node.op], place);
    return op ? exprs_of(plain, op->name, true, &*op) : std::vector<ExprId>();
  }

  // Of the memory that is written to, another argument names other elements: what an operator reads there
  // depends on the order in which it writes, or is an error.
  bool reads_elsewhere(const ir::Node& node, size_t place) const {
    const ir::ValueId target = node.args[place].value;
    const ir::TensorMeta& meta = value(target).meta;
    for (size_t i = 0; i < node.args.size(); ++i) {
      const ir::Arg& arg = node.args[i];
      if (i == place) continue;
      if (arg.kind != ir::Arg::Kind::kValue || is_number(arg.value) ||
          aliases_.id(arg.value) != aliases_.id(target) ||
          result_.tensor_of(arg.value) == result_.tensor_of(target)) {
        continue;
      }
      const LoweredValue& own = result_.values[static_cast<size_t>(target)];
      const LoweredValue& other = result_.values[static_cast<size_t>(arg.value)];
      const ir::TensorMeta& other_meta = value(arg.value).meta;
      if (other.expr != kNoExpr && !other.in_memory && other.root != own.root) continue;  // a new tensor
      if (own.root != other.root) return true;
      if (own.offset == other.offset && meta.sizes == other_meta.sizes &&
          meta.strides == other_meta.strides) {
        continue;
      }
      const bool apart =
          own.offset + extent(meta) <= other.offset || other.offset + extent(other_meta) <= own.offset;
      if (!apart) return true;
    }
    return false;
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
    const std::vector<ExprId> exprs = exprs_of(node, name, false);
    for (size_t i = 0; i < exprs.size(); ++i) {
      const ir::ValueId id = node.outputs[i].first;
      lowered(id).expr = exprs[i];
      lowered(id).root = id;
    }
    return !exprs.empty();
  }

  // The expressions of the node's results, or nothing. in_place: their memory is there already.
  std::vector<ExprId> exprs_of(const ir::Node& node, const std::string& name, bool in_place,
                               const ir::Op* other = nullptr) {
    const ir::Op& op = other == nullptr ? graph_.ops[node.op] : *other;
    const LoweringRow* row = find_lowering(name);
    if (row == nullptr || node.outputs.empty()) return {};
    for (const ir::Output& output : node.outputs) {
      if (output.is_list) return {};
      const ir::TensorMeta& meta = value(output.first).meta;
      if (!is_plain(meta) || numel(meta.sizes) == 0) return {};
      if (!in_place && (meta.requires_grad || !is_dense(meta))) return {};
    }
    Call call{build_, graph_, node, op, value(node.outputs[0].first).meta, {}, {}, {}};
    for (size_t i = 0; i < node.args.size(); ++i) {
      const ir::Arg& arg = node.args[i];
      ExprId operand = kNoExpr;
      if (arg.kind == ir::Arg::Kind::kValue) {
        operand = read(arg.value);
        if (operand == kNoExpr) return {};
        if (is_number(arg.value) && (i >= 32 || (row->numbers >> i & 1) == 0)) return {};
      } else if (arg.kind == ir::Arg::Kind::kList) {
        if (i != 0 || !row->takes_list) return {};
        for (const ir::Arg& element : arg.list) {
          const ExprId part = element.kind == ir::Arg::Kind::kValue ? read(element.value) : kNoExpr;
          if (part == kNoExpr) return {};
          call.list.push_back(part);
        }
      }
      const bool number = arg.kind == ir::Arg::Kind::kValue && is_number(arg.value);
      call.tensors.push_back(number ? kNoExpr : operand);
      call.numbers.push_back(number ? operand : kNoExpr);
    }
    std::vector<ExprId> results;
    if (row->lower_results != nullptr) {
      results = row->lower_results(call);
    } else {
      results.push_back(row->lower(call));
    }
    if (results.size() != node.outputs.size()) return {};
    for (size_t i = 0; i < results.size(); ++i) {
      results[i] = as_tensor(results[i], value(node.outputs[i].first).meta);
      if (results[i] == kNoExpr) return {};
    }
    if (!note_scalars(node, call.scalars)) return {};
    return results;
  }

  // What a lowering returned, as a tensor of its own; none if it is not what was recorded.
  ExprId as_tensor(ExprId expr, const ir::TensorMeta& meta) {
    if (expr == kNoExpr || build_.at(expr).dtype != meta.dtype) return kNoExpr;
    if (numel(build_.at(expr).shape) != numel(meta.sizes)) return kNoExpr;
    expr = build_.reshape(expr, meta.sizes);
    // Even if it only repeats another's elements.
    const Prim prim = build_.at(result_.strip(expr)).prim;
    if (prim == Prim::load || prim == Prim::constant || prim == Prim::index || !has_shape_of_its_own(expr)) {
      expr = build_.op(Prim::copy, {expr});
    }
    return expr;
  }

  // Numbers that the operator would take as Scalars, and refuse when its dtype cannot hold them.
  bool note_scalars(const ir::Node& node, std::vector<ScalarUse> uses) {
    const c10::FunctionSchema* schema = ir::find_schema(graph_.ops[node.op]);
    const c10::ScalarType own = value(node.outputs[0].first).meta.dtype;
    for (size_t i = 0; i < node.args.size(); ++i) {
      const ir::Arg& arg = node.args[i];
      if (arg.kind != ir::Arg::Kind::kValue || !is_number(arg.value)) continue;
      const c10::Type* type = schema->arguments()[i].real_type().get();
      while (auto* optional = type->castRaw<c10::OptionalType>()) type = optional->getElementType().get();
      if (type->kind() == c10::TypeKind::TensorType) {
        uses.erase(std::remove_if(uses.begin(), uses.end(),
                                  [&](const ScalarUse& use) { return use.value == arg.value; }),
                   uses.end());
        continue;
      }
      // A number read from a tensor is known only when it may be too late to leave the call to eager mode.
      const bool late = value(arg.value).node != ir::kNoNode;
      if (late && own != c10::ScalarType::Float && own != c10::ScalarType::Double) return false;
      if (own != c10::ScalarType::Bool) uses.push_back({arg.value, own});
    }
    for (const ScalarUse& use : uses) {
      auto& all = result_.scalars;
      if (std::find(all.begin(), all.end(), use) == all.end()) all.push_back(use);
    }
    return true;
  }

  const ir::Graph& graph_;
  Lowered result_;
  ExprBuilder build_;
  AliasSets aliases_;
  std::vector<bool> unsure_;  // sizes may differ from run to run
  std::vector<bool> called_;  // an operand of a view or call
  std::vector<ir::OpTraits> traits_;
  std::vector<bool> may_alias_;  // per operator: a result may lie in an argument's memory
  std::vector<Write> parts_written_;
  int32_t clock_ = 0;
  size_t mutation_entries_ = 0;
};

}  // namespace

std::optional<Lowered> lower(const ir::Graph& graph) { return Lowering(graph).run(); }

}  // namespace flashpoint::native
