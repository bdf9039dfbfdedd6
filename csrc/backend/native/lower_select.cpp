// Lowerings of pointwise operators that look at what kind of number an element is and choose a result by it.
#include <limits>

#include "backend/native/lowering.h"
#include "backend/native/lowering_tables.h"

namespace flashpoint::native {
namespace {

using c10::ScalarType;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The floating-point operand of an operator that answers with bool.
ExprId examined(Call& c) {
  if (!c.has_tensor(0) || c.out.dtype != ScalarType::Bool) return kNoExpr;
  const ScalarType from = c.build.at(c.tensors[0]).dtype;
  return c10::isFloatingType(from) ? c.operand(0, compute_dtype(from)) : kNoExpr;
}
ExprId isinf(Call& c) {
  const ExprId x = examined(c);
  if (x == kNoExpr) return kNoExpr;
  return c.build.op(Prim::eq, {c.build.op(Prim::abs, {x}), c.build.constant(kInfinity, c.build.at(x).dtype)});
}
ExprId isfinite(Call& c) {  // false of NaN
  const ExprId x = examined(c);
  if (x == kNoExpr) return kNoExpr;
  return c.build.op(Prim::lt, {c.build.op(Prim::abs, {x}), c.build.constant(kInfinity, c.build.at(x).dtype)});
}

ExprId sign(Call& c) {
  if (!c.has_tensor(0) || c.out.dtype == ScalarType::Bool) return kNoExpr;
  ExprBuilder& b = c.build;
  const ScalarType t = compute_dtype(c.out.dtype);
  const ExprId x = c.operand(0, t);
  const ExprId zero = b.constant(c10::IValue(int64_t{0}), t);
  const ExprId above = b.cast(b.op(Prim::gt, {x, zero}), t);
  const ExprId below = b.cast(b.op(Prim::lt, {x, zero}), t);
  return b.cast(b.op(Prim::sub, {above, below}), c.out.dtype);
}

ExprId frac(Call& c) {
  if (!c.has_tensor(0) || !c10::isFloatingType(c.out.dtype)) return kNoExpr;
  const ExprId x = c.operand(0, compute_dtype(c.out.dtype));
  return c.build.cast(c.build.op(Prim::sub, {x, c.build.op(Prim::trunc, {x})}), c.out.dtype);
}

double largest(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Half:
      return static_cast<double>(std::numeric_limits<c10::Half>::max());
    case ScalarType::BFloat16:
      return static_cast<double>(std::numeric_limits<c10::BFloat16>::max());
    case ScalarType::Float:
      return static_cast<double>(std::numeric_limits<float>::max());
    default:
      return std::numeric_limits<double>::max();
  }
}

ExprId nan_to_num(Call& c) {  // (self, nan, posinf, neginf)
  if (!c.has_tensor(0) || !c10::isFloatingType(c.out.dtype)) return kNoExpr;
  ExprBuilder& b = c.build;
  const ScalarType t = compute_dtype(c.out.dtype);
  const double most = largest(c.out.dtype);
  const double defaults[] = {0, most, -most};
  double numbers[3];
  for (size_t i = 0; i < 3; ++i) {
    if (!c.is_constant(i + 1)) return kNoExpr;
    const c10::IValue& given = c.constant(i + 1);
    if (!given.isNone() && !given.isDouble()) return kNoExpr;
    numbers[i] = given.isNone() ? defaults[i] : given.toDouble();
  }
  const ExprId x = c.operand(0, t);
  ExprId y = b.op(Prim::where, {b.op(Prim::eq, {x, b.constant(kInfinity, t)}), b.constant(numbers[1], t), x});
  y = b.op(Prim::where, {b.op(Prim::eq, {x, b.constant(-kInfinity, t)}), b.constant(numbers[2], t), y});
  y = b.op(Prim::where, {b.op(Prim::ne, {x, x}), b.constant(numbers[0], t), y});
  return b.cast(y, c.out.dtype);
}

ExprId log_sigmoid(Call& c) {
  if (!c.has_tensor(0) || !c10::isFloatingType(c.out.dtype)) return kNoExpr;
  ExprBuilder& b = c.build;
  const ScalarType t = compute_dtype(c.out.dtype);
  const ExprId x = c.operand(0, t);
  const ExprId power = b.op(Prim::exp, {b.op(Prim::neg, {b.op(Prim::abs, {x})})});
  const ExprId below = b.op(Prim::minimum, {b.constant(0.0, t), x});
  return b.cast(b.op(Prim::sub, {below, b.op(Prim::log1p, {power})}), c.out.dtype);
}

constexpr LoweringRow kRows[] = {
    {"aten::isinf", isinf}, {"aten::isfinite", isfinite},     {"aten::sign", sign},
    {"aten::frac", frac},   {"aten::nan_to_num", nan_to_num}, {"aten::log_sigmoid", log_sigmoid},
};

}  // namespace

std::span<const LoweringRow> selecting_lowerings() { return kRows; }

}  // namespace flashpoint::native
