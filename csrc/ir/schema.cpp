#include "ir/schema.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/jit/frontend/function_schema_parser.h>

#include <array>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

namespace flashpoint::ir {
namespace {

struct PseudoRow {
  Op op;
  c10::FunctionSchema schema;
};

const std::vector<PseudoRow>& pseudo_rows() {
  static const std::vector<PseudoRow> rows = [] {
    std::vector<PseudoRow> result;
#define X(name, schema, text) \
  result.push_back({Op{"flashpoint::" #name, ""}, torch::jit::parseSchema(schema)});
#include "ir/pseudo_ops.def"
#undef X
    return result;
  }();
  return rows;
}

using NameSet = std::unordered_set<std::string_view>;

const NameSet& rng_names() {
  static const NameSet names{
#define FP_RNG(name) name,
#include "ir/op_traits.def"
  };
  return names;
}

const NameSet& dynamic_shape_names() {
  static const NameSet names{
#define FP_DYNAMIC_SHAPE(name) name,
#include "ir/op_traits.def"
  };
  return names;
}

const NameSet& empty_names() {
  static const NameSet names{
#define FP_EMPTY(name) name,
#include "ir/op_traits.def"
  };
  return names;
}

struct HiddenWrite {
  uint64_t mask;
  int8_t condition;
};

const std::unordered_map<std::string_view, HiddenWrite>& hidden_writes() {
  static const std::unordered_map<std::string_view, HiddenWrite> rows{
#define FP_HIDDEN_WRITE(name, mask, condition) {name, {mask, condition}},
#include "ir/op_traits.def"
  };
  return rows;
}

bool raises_on_values(const std::string& plain, const std::string& name) {
  static const NameSet never{
#define FP_NEVER_RAISES(name) name,
#include "ir/op_traits.def"
  };
  if (never.count(plain) != 0) return false;
  static constexpr std::string_view prefixes[] = {
#define FP_RAISES(prefix) prefix,
#include "ir/op_traits.def"
  };
  for (auto prefix : prefixes) {
    if (name.compare(0, prefix.size(), prefix) == 0) return true;
  }
  return false;
}

bool is_generator(const c10::Type& type) {
  if (auto* optional = type.castRaw<c10::OptionalType>()) return is_generator(*optional->getElementType());
  return type.kind() == c10::TypeKind::GeneratorType;
}

bool in_torch_namespace(std::string_view name) {
  return name.starts_with("aten::") || name.starts_with("prims::") || name.starts_with("flashpoint::");
}

OpTraits traits_from(const std::string& name, const std::string& full_name,
                     const c10::FunctionSchema& schema) {
  OpTraits traits;
  const auto& arguments = schema.arguments();
  for (size_t i = 0; i < arguments.size(); ++i) {
    const auto* alias = arguments[i].alias_info();
    if (alias != nullptr && alias->isWrite()) traits.writes |= uint64_t{1} << (i < 63 ? i : 63);
    if (is_generator(*arguments[i].real_type())) traits.rng = true;
  }
  if (rng_names().count(name) != 0) traits.rng = true;
  if (const auto row = hidden_writes().find(name); row != hidden_writes().end()) {
    traits.hidden_writes = row->second.mask;
    traits.hidden_writes_if = row->second.condition;
  }
  traits.dynamic_shape =
      dynamic_shape_names().count(name) != 0 || dynamic_shape_names().count(full_name) != 0;
  traits.fills_nothing = empty_names().count(name) != 0;
  traits.raises_on_values = raises_on_values(name, full_name);
  traits.pure = traits.writes == 0 && traits.hidden_writes == 0 && !traits.rng && !traits.raises_on_values &&
                !schema.returns().empty() && in_torch_namespace(name);
  return traits;
}

}  // namespace

std::optional<PseudoOp> pseudo_op(const Op& op) {
  if (!op.name.starts_with("flashpoint::")) return std::nullopt;
  const auto& rows = pseudo_rows();
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].op == op) return static_cast<PseudoOp>(i);
  }
  return std::nullopt;
}

Op op_of(PseudoOp pseudo) { return pseudo_rows()[static_cast<size_t>(pseudo)].op; }

std::optional<c10::OperatorHandle> find_operator(const Op& op) {
  return c10::Dispatcher::singleton().findSchema({op.name, op.overload});
}

const c10::FunctionSchema* find_schema(const Op& op) {
  if (const auto pseudo = pseudo_op(op)) return &pseudo_rows()[static_cast<size_t>(*pseudo)].schema;
  const auto handle = find_operator(op);
  return handle ? &handle->schema() : nullptr;
}

OpTraits traits_of(const c10::OperatorHandle& op) {
  const auto& name = op.operator_name();
  // An operator may be gone, and another one be at its address: its name and schema tell.
  struct Known {
    c10::OperatorName name;
    size_t arguments;
    OpTraits traits;
  };
  static thread_local std::unordered_map<const void*, Known> cache;
  const auto known = cache.find(&name);
  if (known != cache.end() && known->second.name == name &&
      known->second.arguments == op.schema().arguments().size())
    return known->second.traits;
  const std::string full = name.overload_name.empty() ? name.name : name.name + "." + name.overload_name;
  OpTraits traits = traits_from(name.name, full, op.schema());
  if (op.hasTag(at::Tag::nondeterministic_seeded)) {
    traits.rng = true;
    traits.pure = false;
  }
  if (op.hasTag(at::Tag::dynamic_output_shape) || op.hasTag(at::Tag::data_dependent_output)) {
    traits.dynamic_shape = true;
  }
  cache.insert_or_assign(&name, Known{name, op.schema().arguments().size(), traits});
  return traits;
}

OpTraits traits_of(const Op& op) {
  if (const auto pseudo = pseudo_op(op)) {
    return traits_from(op.name, op.name, pseudo_rows()[static_cast<size_t>(*pseudo)].schema);
  }
  const auto handle = find_operator(op);
  return handle ? traits_of(*handle) : OpTraits{};
}

// One number where a mask says so: whatever the mask holds, there is room for it.
static bool fills_by_mask(const Graph& graph, const Node& node) {
  const std::string& name = graph.ops[node.op].name;
  if ((name != "aten::index_put_" && name != "aten::index_put" && name != "aten::_index_put_impl_") ||
      node.args.size() < 3 || node.args[1].kind != Arg::Kind::kList || node.args[2].kind != Arg::Kind::kValue)
    return false;
  const auto meta = [&](const Arg& arg) { return graph.values[static_cast<size_t>(arg.value)].meta; };
  if (!meta(node.args[2]).defined() || !meta(node.args[2]).sizes.empty()) return false;
  return std::all_of(node.args[1].list.begin(), node.args[1].list.end(), [&](const Arg& index) {
    return index.kind == Arg::Kind::kValue && meta(index).defined() &&
           meta(index).dtype == c10::ScalarType::Bool;
  });
}

bool may_raise_on_values(const Graph& graph, const Node& node) {
  static const NameSet integers{
#define FP_RAISES_ON_INTEGERS(name) name,
#include "ir/op_traits.def"
  };
  static const NameSet numbers{
#define FP_RAISES_ON_NUMBERS(name) name,
#include "ir/op_traits.def"
  };
  static const NameSet labels{
#define FP_RAISES_ON_LABELS(name) name,
#include "ir/op_traits.def"
  };
  const Op& op = graph.ops[node.op];
  if (!traits_of(op).raises_on_values || fills_by_mask(graph, node)) return false;
  const auto value = [&](const Arg& arg) -> const Value& {
    return graph.values[static_cast<size_t>(arg.value)];
  };
  if (numbers.count(op.overload.empty() ? op.name : op.name + "." + op.overload) != 0) {
    // Constants were accepted when they were recorded.
    return std::any_of(node.args.begin(), node.args.end(), [&](const Arg& arg) {
      return arg.kind == Arg::Kind::kValue && value(arg).kind != ValueKind::kTensor;
    });
  }
  if (labels.count(op.name) != 0 && node.args.size() > 1 && node.args[1].kind == Arg::Kind::kValue &&
      c10::isFloatingType(value(node.args[1]).meta.dtype))
    return false;
  if (integers.count(op.name) == 0 || node.outputs.size() != 1 || node.outputs[0].is_list) return true;
  const auto dtype = graph.values[static_cast<size_t>(node.outputs[0].first)].meta.dtype;
  return !c10::isFloatingType(dtype) && !c10::isComplexType(dtype);
}

}  // namespace flashpoint::ir
