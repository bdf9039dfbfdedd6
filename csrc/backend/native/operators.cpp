#include "backend/native/operators.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <algorithm>

#include "ir/schema.h"

namespace flashpoint::native {
namespace {

// Made of other operators, but what it returns is new.
bool is_fresh_composite(const std::string& name) {
  static constexpr std::string_view names[] = {"aten::linear",
                                               "aten::matmul",
                                               "aten::conv1d",
                                               "aten::conv2d",
                                               "aten::conv3d",
                                               "aten::layer_norm",
                                               "aten::batch_norm",
                                               "aten::group_norm",
                                               "aten::max_pool2d",
                                               "aten::cross_entropy_loss",
                                               "aten::scaled_dot_product_attention"};
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

}  // namespace

bool may_return_argument(const std::string& name) {
  return name == "aten::dropout" || name == "aten::feature_dropout" || name == "aten::alpha_dropout" ||
         name == "aten::type_as" || name == "aten::contiguous";
}

bool may_alias(const ir::Op& op) {
  const auto handle = ir::find_operator(op);
  if (!handle || !op.name.starts_with("aten::") || may_return_argument(op.name)) return true;
  for (const auto& result : handle->schema().returns()) {
    if (result.alias_info() != nullptr) return true;
  }
  return handle->hasKernelForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd) &&
         !is_fresh_composite(op.name);
}

bool names_result(const ir::Op& op, uint64_t writes) {
  const c10::FunctionSchema* schema = ir::find_schema(op);
  if (schema == nullptr) return false;
  const auto& arguments = schema->arguments();
  for (size_t i = 0; i < arguments.size() && i < 63; ++i) {
    if ((writes >> i & 1) != 0 && arguments[i].kwarg_only()) return true;
  }
  return false;
}

std::optional<ir::Op> without_out(const ir::Op& op, size_t count) {
  const c10::FunctionSchema* schema = ir::find_schema(op);
  if (schema == nullptr || schema->arguments().size() != count + 1) return std::nullopt;
  for (const char* overload : {"", "Tensor"}) {
    ir::Op plain{op.name, overload};
    const c10::FunctionSchema* other = ir::find_schema(plain);
    if (other == nullptr || other->arguments().size() != count) continue;
    bool same = true;
    for (size_t i = 0; i < count; ++i) {
      same = same && *other->arguments()[i].type() == *schema->arguments()[i].type();
    }
    if (same) return plain;
  }
  return std::nullopt;
}

}  // namespace flashpoint::native
