// Numbers of the program that become inputs of the graph.
//
// The dispatcher sees values, not where they came from, so a number is found by its place: the operator's
// schema has the order of the Python signature, but for signatures that are deprecated, and the value has to
// be there. Only numbers that no shape, no type and no identity of a result depends on can be inputs.
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/jit_type.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "record/graph_recorder.h"
#include "record/op_info.h"

namespace flashpoint {
namespace {

bool decides_by_numbers(std::string_view name) {
  constexpr std::string_view kNames[] = {
#define NUMBER_DECIDES(name) name,
#include "record/number_rules.def"
#undef NUMBER_DECIDES
  };
  for (std::string_view known : kNames) {
    if (name == known) return true;
  }
  return !name.starts_with("aten::");
}

bool takes_number(const c10::Type& type, bool wrapped, bool in_list) {
  const c10::Type* plain = &type;
  while (const auto* optional = plain->castRaw<c10::OptionalType>()) plain = optional->getElementType().get();
  if (in_list) {
    const auto* list = plain->castRaw<c10::ListType>();
    return list != nullptr && list->getElementType()->kind() == c10::TypeKind::NumberType;
  }
  const auto kind = plain->kind();
  return wrapped ? kind == c10::TypeKind::TensorType
                 : kind == c10::TypeKind::NumberType || kind == c10::TypeKind::FloatType;
}

bool same_bits(double a, double b) { return std::memcmp(&a, &b, sizeof a) == 0; }

bool holds(const LoggedArg& arg, const GraphRecorder::NumberUse& use) {
  if (arg.kind == LoggedArg::Kind::kInt) return !use.is_float && arg.integer == use.integer;
  if (arg.kind != LoggedArg::Kind::kDouble) return false;
  return same_bits(arg.real, use.is_float ? use.real : static_cast<double>(use.integer));
}

}  // namespace

LoggedArg* GraphRecorder::open_literal(int32_t first, const NumberUse& use) {
  const int32_t constant = pseudo_ops_[static_cast<size_t>(ir::PseudoOp::constant)];
  LoggedCall* found = nullptr;
  for (int32_t i = first; i < node_count(); ++i) {
    LoggedCall& call = log_.call(i);
    if (call.op != constant) continue;
    if (found != nullptr) return nullptr;
    found = &call;
  }
  if (found == nullptr) return nullptr;
  const at::Tensor& literal = log_.boxed(found->args[0]).toTensor();
  const auto type = literal.scalar_type();
  const bool exact = type == c10::kDouble || type == c10::kFloat || (type == c10::kLong && !use.is_float);
  if (literal.dim() != 0 || !exact) return nullptr;
  const bool same =
      type == c10::kLong ? *literal.const_data_ptr<int64_t>() == use.integer
      : type == c10::kDouble
          ? same_bits(*literal.const_data_ptr<double>(),
                      use.is_float ? use.real : static_cast<double>(use.integer))
          : same_bits(*literal.const_data_ptr<float>(),
                      use.is_float ? static_cast<float>(use.real) : static_cast<float>(use.integer));
  const auto op = c10::Dispatcher::singleton().findSchema({"aten::scalar_tensor", ""});
  if (!same || !op) return nullptr;
  const OpInfo& info = info_of(*op);
  found->op = info.op;
  found->arg_count = static_cast<uint32_t>(info.arguments);
  found->args = log_.new_items(info.arguments);
  log_.note_constant(use.is_float ? c10::IValue(use.real) : c10::IValue(use.integer), found->args[0]);
  log_.note_constant(static_cast<int64_t>(type), found->args[1]);
  return &found->args[0];
}

// Autograd may have kept the number for a backward, whose nodes are part of a graph at base level.
bool GraphRecorder::may_feed_numbers() const { return !is_base() || !c10::GradMode::is_enabled(); }

LoggedArg* GraphRecorder::find_number(int32_t first, const NumberUse& use) {
  if (broken() || !may_feed_numbers()) return nullptr;
  if (use.literal) return open_literal(first, use);
  LoggedArg* found = nullptr;
  const bool in_operator = use.keyword == nullptr && use.argument < 0;
  if (!in_operator && node_count() != first + 1) return nullptr;
  for (int32_t i = first; i < node_count(); ++i) {
    LoggedCall& call = log_.call(i);
    const auto& info = infos_[static_cast<size_t>(call.op)];
    if (info == nullptr) return nullptr;
    for (uint32_t a = 0; a < call.arg_count; ++a) {
      const auto& parameter = info->schema->arguments()[a];
      const bool in_list = use.element >= 0;
      if (in_list && (call.args[a].kind != LoggedArg::Kind::kList ||
                      static_cast<uint32_t>(use.element) >= call.args[a].count))
        continue;
      LoggedArg& arg = in_list ? call.args[a].items[use.element] : call.args[a];
      if (use.keyword != nullptr ? parameter.name() != use.keyword
          : in_operator          ? a > 1
                                 : static_cast<int>(a) != use.argument)
        continue;
      if (!holds(arg, use)) continue;
      const auto outranks = [&](const LoggedArg& other) {
        return other.kind == LoggedArg::Kind::kValue &&
               log_.outranks_number(static_cast<ir::ValueId>(other.integer),
                                    arg.kind == LoggedArg::Kind::kDouble);
      };
      if (use.as_tensor && !(arg.wrapped && std::any_of(call.args, call.args + call.arg_count, outranks)))
        return nullptr;
      if (found != nullptr || call.no_op || decides_by_numbers(info->schema->name()) ||
          !takes_number(*parameter.type(), arg.wrapped, in_list))
        return nullptr;
      found = &arg;
    }
  }
  return found;
}

void GraphRecorder::bind_number(LoggedArg& arg, ir::ValueId value) {
  arg.kind = LoggedArg::Kind::kValue;
  arg.wrapped = false;
  arg.integer = value;
}

}  // namespace flashpoint
