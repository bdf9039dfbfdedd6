// Lowerings of pointwise operators. To add one: a function and a row in kRows; lower_reduce.cpp has those
// that reduce. What a row cannot do it answers with kNoExpr, and the operator is called. The mask of a row
// says which arguments may be numbers that are no constants.
#include <cmath>
#include <limits>

#include "backend/native/lowering.h"
#include "backend/native/lowering_tables.h"

namespace flashpoint::native {
namespace {

using c10::ScalarType;

// ---- one operand

// Computes in the result's dtype (int to float first), rounds once.
template <typename Body>
ExprId float_unary(Call& c, Body&& body) {
  if (!c.has_tensor(0) || !c10::isFloatingType(c.out.dtype)) return kNoExpr;
  const ScalarType compute = compute_dtype(c.out.dtype);
  return c.build.cast(body(c.operand(0, compute), compute), c.out.dtype);
}

template <Prim prim>
ExprId float_prim(Call& c) {
  return float_unary(c, [&](ExprId x, ScalarType) { return c.build.op(prim, {x}); });
}

// Same dtype in and out; integers allowed.
template <Prim prim>
ExprId same_prim(Call& c) {
  if (!c.has_tensor(0) || c.out.dtype == ScalarType::Bool) return kNoExpr;
  if (prim == Prim::abs && c.out.dtype == ScalarType::Byte) return kNoExpr;
  const ScalarType compute = compute_dtype(c.out.dtype);
  return c.build.cast(c.build.op(prim, {c.operand(0, compute)}), c.out.dtype);
}

template <Prim prim>
ExprId rounding(Call& c) {
  if (c.node.args.size() != 1 || !c10::isFloatingType(c.out.dtype)) return kNoExpr;
  return same_prim<prim>(c);
}

ExprId rsqrt(Call& c) {
  return float_unary(c, [&](ExprId x, ScalarType t) {
    return c.build.op(Prim::div, {c.build.constant(1.0, t), c.build.op(Prim::sqrt, {x})});
  });
}
ExprId reciprocal(Call& c) {
  return float_unary(c, [&](ExprId x, ScalarType t) {
    return c.build.op(Prim::div, {c.build.constant(1.0, t), x});
  });
}

ExprId sigmoid_of(ExprBuilder& b, ExprId x, ScalarType t) {
  const ExprId e = b.op(Prim::exp, {b.op(Prim::neg, {x})});
  return b.op(Prim::div, {b.constant(1.0, t), b.op(Prim::add, {b.constant(1.0, t), e})});
}
ExprId sigmoid(Call& c) {
  return float_unary(c, [&](ExprId x, ScalarType t) { return sigmoid_of(c.build, x, t); });
}
ExprId silu(Call& c) {
  return float_unary(c, [&](ExprId x, ScalarType t) {
    const ExprId e = c.build.op(Prim::exp, {c.build.op(Prim::neg, {x})});
    return c.build.op(Prim::div, {x, c.build.op(Prim::add, {c.build.constant(1.0, t), e})});
  });
}

ExprId gelu(Call& c) {
  if (!c.is_constant(1) || !c.constant(1).isString()) return kNoExpr;
  const bool tanh = c.constant(1).toStringRef() == "tanh";
  if (!tanh && c.constant(1).toStringRef() != "none") return kNoExpr;
  // ATen's own code for this one takes two thirds of the time.
  if (!tanh && c.out.dtype == ScalarType::BFloat16) return kNoExpr;
  return float_unary(c, [&](ExprId x, ScalarType t) {
    ExprBuilder& b = c.build;
    ExprId inner;
    if (tanh) {
      const ExprId cube = b.op(Prim::mul, {b.op(Prim::mul, {x, x}), x});
      inner = b.op(Prim::add, {x, b.op(Prim::mul, {b.constant(0.044715, t), cube})});
      inner = b.op(Prim::mul, {b.constant(M_SQRT2 * M_2_SQRTPI * 0.5, t), inner});
      inner = b.op(Prim::tanh, {inner});
    } else {
      inner = b.op(Prim::erf, {b.op(Prim::mul, {x, b.constant(M_SQRT1_2, t)})});
    }
    const ExprId half = b.op(Prim::mul, {x, b.constant(0.5, t)});
    return b.op(Prim::mul, {half, b.op(Prim::add, {b.constant(1.0, t), inner})});
  });
}

ExprId relu(Call& c) {
  if (!c.has_tensor(0) || c.out.dtype == ScalarType::Bool) return kNoExpr;
  const ScalarType t = compute_dtype(c.out.dtype);
  return c.build.cast(c.build.op(Prim::maximum, {c.build.constant(0.0, t), c.operand(0, t)}), c.out.dtype);
}

// min(max(x, low), high) with NaN of x, low or high winning; either bound may be absent.
ExprId clamp_to(Call& c, ExprId x, ExprId low, ExprId high) {
  if (low != kNoExpr) x = c.build.op(Prim::maximum, {low, x});
  if (high != kNoExpr) x = c.build.op(Prim::minimum, {high, x});
  return c.build.cast(x, c.out.dtype);
}
ExprId clamp(Call& c) {
  if (!c.op.overload.empty() || !c.has_tensor(0) || c.out.dtype == ScalarType::Bool) return kNoExpr;
  const ScalarType t = compute_dtype(c.out.dtype);
  if (c.common_dtype({0, 1, 2}) != c.out.dtype) return kNoExpr;
  return clamp_to(c, c.operand(0, t), c.is_none(1) ? kNoExpr : c.operand(1, t),
                  c.is_none(2) ? kNoExpr : c.operand(2, t));
}
template <bool kLow>
ExprId clamp_one(Call& c) {
  if (!c.op.overload.empty() || !c.has_tensor(0) || c.out.dtype == ScalarType::Bool) return kNoExpr;
  const ScalarType t = compute_dtype(c.out.dtype);
  if (c.common_dtype({0, 1}) != c.out.dtype) return kNoExpr;
  const ExprId bound = c.operand(1, t);
  return clamp_to(c, c.operand(0, t), kLow ? bound : kNoExpr, kLow ? kNoExpr : bound);
}
ExprId hardtanh(Call& c) {
  if (!c10::isFloatingType(c.out.dtype)) return kNoExpr;
  const ScalarType t = compute_dtype(c.out.dtype);
  return clamp_to(c, c.operand(0, t), c.operand(1, t), c.operand(2, t));
}
ExprId relu6(Call& c) {
  if (!c10::isFloatingType(c.out.dtype)) return kNoExpr;
  const ScalarType t = compute_dtype(c.out.dtype);
  return clamp_to(c, c.operand(0, t), c.build.constant(0.0, t), c.build.constant(6.0, t));
}

ExprId hard_gate(Call& c, ExprId x, ScalarType t) {
  ExprBuilder& b = c.build;
  const ExprId shifted = b.op(Prim::add, {x, b.constant(3.0, t)});
  return b.op(Prim::minimum, {b.constant(6.0, t), b.op(Prim::maximum, {b.constant(0.0, t), shifted})});
}
ExprId hardsigmoid(Call& c) {
  return float_unary(c, [&](ExprId x, ScalarType t) {
    return c.build.op(Prim::div, {hard_gate(c, x, t), c.build.constant(6.0, t)});
  });
}
ExprId hardswish(Call& c) {
  return float_unary(c, [&](ExprId x, ScalarType t) {
    return c.build.op(Prim::div, {c.build.op(Prim::mul, {x, hard_gate(c, x, t)}), c.build.constant(6.0, t)});
  });
}

ExprId leaky_relu(Call& c) {
  return float_unary(c, [&](ExprId x, ScalarType t) {
    const ExprId positive = c.build.op(Prim::gt, {x, c.build.constant(0.0, t)});
    return c.build.op(Prim::where, {positive, x, c.build.op(Prim::mul, {x, c.operand(1, t)})});
  });
}
ExprId elu(Call& c) {  // alpha, scale, input_scale
  return float_unary(c, [&](ExprId x, ScalarType t) {
    ExprBuilder& b = c.build;
    const ExprId scaled = b.op(Prim::mul, {x, c.operand(3, t)});
    ExprId below = b.op(Prim::mul, {b.op(Prim::expm1, {scaled}), c.operand(1, t)});
    below = b.op(Prim::mul, {below, c.operand(2, t)});
    const ExprId above = b.op(Prim::mul, {x, c.operand(2, t)});
    return b.op(Prim::where, {b.op(Prim::le, {x, b.constant(0.0, t)}), below, above});
  });
}
ExprId selu(Call& c) {
  return float_unary(c, [&](ExprId x, ScalarType t) {
    ExprBuilder& b = c.build;
    const double scale = 1.0507009873554804934193349852946;
    const double alpha = 1.6732632423543772848170429916717;
    const ExprId below = b.op(Prim::mul, {b.op(Prim::expm1, {x}), b.constant(scale * alpha, t)});
    const ExprId above = b.op(Prim::mul, {x, b.constant(scale, t)});
    return b.op(Prim::where, {b.op(Prim::le, {x, b.constant(0.0, t)}), below, above});
  });
}
ExprId softplus(Call& c) {  // beta, threshold
  return float_unary(c, [&](ExprId x, ScalarType t) {
    ExprBuilder& b = c.build;
    const ExprId scaled = b.op(Prim::mul, {x, c.operand(1, t)});
    const ExprId soft = b.op(Prim::div, {b.op(Prim::log1p, {b.op(Prim::exp, {scaled})}), c.operand(1, t)});
    return b.op(Prim::where, {b.op(Prim::gt, {scaled, c.operand(2, t)}), x, soft});
  });
}
ExprId mish(Call& c) {
  return float_unary(c, [&](ExprId x, ScalarType) {
    ExprBuilder& b = c.build;
    return b.op(Prim::mul, {x, b.op(Prim::tanh, {b.op(Prim::log1p, {b.op(Prim::exp, {x})})})});
  });
}

ExprId square(Call& c) {
  if (!c.has_tensor(0) || c.out.dtype == ScalarType::Bool) return kNoExpr;
  const ScalarType t = compute_dtype(c.out.dtype);
  const ExprId x = c.operand(0, t);
  return c.build.cast(c.build.op(Prim::mul, {x, x}), c.out.dtype);
}

ExprId isnan(Call& c) {
  if (!c.has_tensor(0) || !c10::isFloatingType(c.build.at(c.tensors[0]).dtype)) return kNoExpr;
  const ExprId x = c.operand(0, compute_dtype(c.build.at(c.tensors[0]).dtype));
  return c.build.op(Prim::ne, {x, x});
}

ExprId bitwise_not(Call& c) {
  if (!c.has_tensor(0) || c10::isFloatingType(c.out.dtype)) return kNoExpr;
  return c.build.op(Prim::bit_not, {c.tensors[0]});
}
ExprId logical_not(Call& c) {
  if (!c.has_tensor(0) || c.out.dtype != ScalarType::Bool) return kNoExpr;
  return c.build.op(Prim::bit_not, {c.operand(0, ScalarType::Bool)});
}

// ---- two operands

bool both_given(const Call& c) { return c.node.args.size() >= 2 && (c.has_tensor(0) || c.has_tensor(1)); }

template <Prim prim>
ExprId arithmetic(Call& c) {
  if (!both_given(c) || c.out.dtype == ScalarType::Bool) return kNoExpr;
  if (c.common_dtype({0, 1}) != c.out.dtype) return kNoExpr;
  return c.build.cast(c.build.op(prim, {c.rounded(0, c.out.dtype), c.right(1, prim, c.out.dtype)}),
                      c.out.dtype);
}

// `alpha` of + and - is rounded to a half type, `value` of addcmul and addcdiv (the fourth argument) is not.
ExprId factor(Call& c, size_t alpha, ScalarType t) {
  return alpha == 2 ? c.rounded(alpha, c.out.dtype) : c.operand(alpha, t);
}
ExprId scaled(Call& c, ExprId x, size_t alpha, ScalarType t) {
  if (alpha >= c.node.args.size()) return x;
  if (c.has_number(alpha)) return c.build.op(Prim::mul, {x, factor(c, alpha, t)});
  if (!c.is_constant(alpha)) return kNoExpr;
  const c10::IValue& value = c.constant(alpha);
  if ((value.isInt() && value.toInt() == 1) || (value.isDouble() && value.toDouble() == 1.0)) return x;
  return c.build.op(Prim::mul, {x, factor(c, alpha, t)});
}

template <Prim prim>
ExprId add_or_sub(Call& c) {
  if (!both_given(c) || c.out.dtype == ScalarType::Bool) return kNoExpr;
  if (c.common_dtype({0, 1}) != c.out.dtype) return kNoExpr;
  const ScalarType t = compute_dtype(c.out.dtype);
  return c.build.cast(
      c.build.op(prim, {c.rounded(0, c.out.dtype), scaled(c, c.right(1, prim, c.out.dtype), 2, t)}),
      c.out.dtype);
}
ExprId rsub(Call& c) {
  if (!both_given(c) || c.out.dtype == ScalarType::Bool || c.common_dtype({0, 1}) != c.out.dtype)
    return kNoExpr;
  const ScalarType t = compute_dtype(c.out.dtype);
  return c.build.cast(
      c.build.op(Prim::sub, {c.rounded(1, c.out.dtype), scaled(c, c.right(0, Prim::sub, c.out.dtype), 2, t)}),
      c.out.dtype);
}
ExprId div(Call& c) {
  if (c.op.overload != "Tensor" && c.op.overload != "Scalar") return kNoExpr;
  if (!both_given(c) || !c10::isFloatingType(c.out.dtype)) return kNoExpr;
  const ScalarType common = c.common_dtype({0, 1});
  if (c10::isFloatingType(common) && common != c.out.dtype) return kNoExpr;
  return c.build.cast(c.build.op(Prim::div, {c.rounded(0, c.out.dtype), c.right(1, Prim::div, c.out.dtype)}),
                      c.out.dtype);
}

template <Prim prim>
ExprId comparison(Call& c) {
  if (!both_given(c)) return kNoExpr;
  const ScalarType common = c.common_dtype({0, 1});
  if (!is_supported(common)) return kNoExpr;
  // A number is compared in the tensor's dtype, so in a half type it is rounded to it first.
  return c.build.op(prim, {c.rounded(0, common), c.rounded(1, common)});
}

template <Prim prim>
ExprId logical(Call& c) {
  if (!both_given(c) || !c.has_tensor(0) || !c.has_tensor(1)) return kNoExpr;
  return c.build.op(prim, {c.operand(0, ScalarType::Bool), c.operand(1, ScalarType::Bool)});
}
template <Prim prim>
ExprId bitwise(Call& c) {
  if (!both_given(c) || c10::isFloatingType(c.out.dtype) || c.common_dtype({0, 1}) != c.out.dtype)
    return kNoExpr;
  return c.build.op(prim, {c.operand(0, c.out.dtype), c.operand(1, c.out.dtype)});
}

ExprId pow(Call& c) {
  if (!both_given(c) || !c10::isFloatingType(c.out.dtype) || c.common_dtype({0, 1}) != c.out.dtype)
    return kNoExpr;
  ExprBuilder& b = c.build;
  const ScalarType t = compute_dtype(c.out.dtype);
  const ExprId x = c.operand(0, t);
  ExprId y = kNoExpr;
  if (c.has_tensor(0) && !c.has_tensor(1)) {  // the exponents that eager treats specially
    const ExprId e = c.operand(1, ScalarType::Double);
    if (e == kNoExpr) return kNoExpr;
    const double exponent = b.at(e).number.real;
    const ExprId one = b.constant(1.0, t);
    if (exponent == 2) y = b.op(Prim::mul, {x, x});
    if (exponent == 3) y = b.op(Prim::mul, {b.op(Prim::mul, {x, x}), x});
    if (exponent == 0.5) y = b.op(Prim::sqrt, {x});
    if (exponent == -0.5) y = b.op(Prim::div, {one, b.op(Prim::sqrt, {x})});
    if (exponent == -1) y = b.op(Prim::div, {one, x});
    if (exponent == -2) y = b.op(Prim::div, {one, b.op(Prim::mul, {x, x})});
    if (exponent == 0 || exponent == 1) return kNoExpr;
  }
  if (y == kNoExpr) y = b.op(Prim::pow, {x, c.operand(1, t)});
  return b.cast(y, c.out.dtype);
}

// ---- three operands

ExprId where(Call& c) {
  if (c.node.args.size() != 3 || !c.has_tensor(0) || c.build.at(c.tensors[0]).dtype != ScalarType::Bool) {
    return kNoExpr;
  }
  if (c.common_dtype({1, 2}) != c.out.dtype) return kNoExpr;
  return c.build.op(Prim::where, {c.tensors[0], c.operand(1, c.out.dtype), c.operand(2, c.out.dtype)});
}
ExprId masked_fill(Call& c) {
  if (!c.has_tensor(0) || !c.has_tensor(1) || c.build.at(c.tensors[1]).dtype != ScalarType::Bool)
    return kNoExpr;
  const ExprId fill = c.operand(2, c.out.dtype);
  if (fill == kNoExpr || c.build.at(c.tensors[0]).dtype != c.out.dtype) return kNoExpr;
  return c.build.op(Prim::where, {c.tensors[1], fill, c.tensors[0]});
}
template <Prim prim>
ExprId add_product(Call& c) {  // self + value * a (op) b
  if (!c10::isFloatingType(c.out.dtype) || c.common_dtype({0, 1, 2}) != c.out.dtype) return kNoExpr;
  const ScalarType t = compute_dtype(c.out.dtype);
  ExprId a = c.operand(1, t);
  a = scaled(c, a, 3, t);
  const ExprId product = c.build.op(prim, {a, c.operand(2, t)});
  return c.build.cast(c.build.op(Prim::add, {c.operand(0, t), product}), c.out.dtype);
}

// start + weight * (end - start), from the nearer end.
ExprId lerp(Call& c) {
  if (!c10::isFloatingType(c.out.dtype) || c.common_dtype({0, 1}) != c.out.dtype) return kNoExpr;
  if (c.has_tensor(2) && c.build.at(c.tensors[2]).dtype != c.out.dtype) return kNoExpr;
  ExprBuilder& b = c.build;
  const ScalarType t = compute_dtype(c.out.dtype);
  const ExprId start = c.operand(0, t);
  const ExprId end = c.operand(1, t);
  const ExprId weight = c.operand(2, t);
  if (start == kNoExpr || end == kNoExpr || weight == kNoExpr) return kNoExpr;
  const ExprId way = b.op(Prim::sub, {end, start});
  const ExprId one = b.constant(1.0, t);
  const Expr& w = b.at(weight);
  if (w.prim == Prim::constant) {
    const double number = w.number.real;
    const ExprId part = std::abs(number) < 0.5 ? weight : b.op(Prim::sub, {weight, one});
    const ExprId base = std::abs(number) < 0.5 ? start : end;
    return b.cast(b.op(Prim::add, {base, b.op(Prim::mul, {part, way})}), c.out.dtype);
  }
  const ExprId near = b.op(Prim::lt, {b.op(Prim::abs, {weight}), b.constant(0.5, t)});
  const ExprId part = b.op(Prim::where, {near, weight, b.op(Prim::sub, {weight, one})});
  const ExprId base = b.op(Prim::where, {near, start, end});
  return b.cast(b.op(Prim::add, {base, b.op(Prim::mul, {part, way})}), c.out.dtype);
}

// ---- copies and fills

// A copy that turns rows into columns: eager mode does it in blocks.
bool transposes(Call& c) {
  constexpr int64_t kSmall = 4096;
  const Expr& from = c.build.at(c.tensors[0]);
  if (from.prim != Prim::load || from.dtype != c.out.dtype || from.shape != c.out.sizes) return false;
  if (numel(from.shape) < kSmall) return false;
  bool across = false;
  bool along = false;
  for (size_t d = 0; d < from.shape.size(); ++d) {
    if (from.shape[d] < 16) continue;
    across = across || (c.out.strides[d] == 1 && from.strides[d] > 1);
    along = along || (from.strides[d] == 1 && c.out.strides[d] != 1);
  }
  return across && along;
}
ExprId convert(Call& c) {
  if (!c.has_tensor(0) || transposes(c)) return kNoExpr;
  const ScalarType from = c.build.at(c.tensors[0]).dtype;
  // Conversions of what does not fit an integer are undefined; eager's answer is eager's.
  if (c10::isFloatingType(from) && !c10::isFloatingType(c.out.dtype) && c.out.dtype != ScalarType::Bool) {
    return kNoExpr;
  }
  return c.build.cast(c.tensors[0], c.out.dtype);
}
ExprId reshape_copy(Call& c) {
  if (!c.has_tensor(0) || numel(c.build.at(c.tensors[0]).shape) != numel(c.out.sizes)) return kNoExpr;
  return c.build.reshape(c.build.op(Prim::copy, {c.tensors[0]}), c.out.sizes);
}

// The same elements all over the result's shape.
ExprId spread(Call& c, ExprId x) {
  if (x == kNoExpr) return kNoExpr;
  Expr e;
  e.prim = Prim::copy;
  e.dtype = c.out.dtype;
  e.shape = c.out.sizes;
  e.operands = {x};
  return c.build.add(std::move(e));
}
ExprId filled(Call& c, const c10::IValue& value) {
  if (!value.isDouble() && !value.isInt() && !value.isBool()) return kNoExpr;
  const ExprId number = c.build.constant(value, compute_dtype(c.out.dtype));
  return spread(c, c.build.cast(number, c.out.dtype));
}
ExprId filled_from(Call& c, size_t argument) {
  if (c.has_number(argument)) return spread(c, c.operand(argument, c.out.dtype));
  return c.is_constant(argument) ? filled(c, c.constant(argument)) : kNoExpr;
}
ExprId zeros(Call& c) { return filled(c, c10::IValue(0)); }
ExprId ones(Call& c) { return filled(c, c10::IValue(1)); }
ExprId full(Call& c) { return filled_from(c, 1); }
ExprId new_full(Call& c) { return filled_from(c, 2); }
ExprId fill(Call& c) {
  if (c.has_tensor(1)) {
    return c.build.at(c.tensors[1]).dtype == c.out.dtype ? spread(c, c.tensors[1]) : kNoExpr;
  }
  return filled_from(c, 1);
}
// (self, src, non_blocking)
ExprId copy(Call& c) {
  if (!c.has_tensor(1)) return kNoExpr;
  const Expr& from = c.build.at(c.tensors[1]);
  if (c10::isFloatingType(from.dtype) && !c10::isFloatingType(c.out.dtype) &&
      c.out.dtype != ScalarType::Bool) {
    return kNoExpr;
  }
  if (from.shape.size() > c.out.sizes.size()) return kNoExpr;
  return spread(c, c.build.cast(c.tensors[1], c.out.dtype));
}

ExprId arange(Call& c) {
  if (c.out.dtype != ScalarType::Long || c.out.sizes.size() != 1) return kNoExpr;
  int64_t start = 0;
  int64_t step = 1;
  if (c.op.overload == "start" || c.op.overload == "start_step") {
    if (!c.constant(0).isInt()) return kNoExpr;
    start = c.constant(0).toInt();
  } else if (!c.op.overload.empty()) {
    return kNoExpr;
  }
  if (c.op.overload == "start_step") {
    if (!c.constant(2).isInt()) return kNoExpr;
    step = c.constant(2).toInt();
  }
  if (!c.constant(c.op.overload.empty() ? 0 : 1).isInt()) return kNoExpr;
  Expr e;
  e.prim = Prim::index;
  e.dtype = ScalarType::Long;
  e.shape = c.out.sizes;
  e.strides = {e.shape[0] == 1 ? 0 : step};
  e.offset = start;
  return c.build.add(std::move(e));
}

constexpr LoweringRow kRows[] = {
    {"aten::exp", float_prim<Prim::exp>},
    {"aten::tanh", float_prim<Prim::tanh>},
    {"aten::erf", float_prim<Prim::erf>},
    {"aten::expm1", float_prim<Prim::expm1>},
    {"aten::log", float_prim<Prim::log>},
    {"aten::log1p", float_prim<Prim::log1p>},
    {"aten::log2", float_prim<Prim::log2>},
    {"aten::log10", float_prim<Prim::log10>},
    {"aten::sin", float_prim<Prim::sin>},
    {"aten::cos", float_prim<Prim::cos>},
    {"aten::tan", float_prim<Prim::tan>},
    {"aten::asin", float_prim<Prim::asin>},
    {"aten::acos", float_prim<Prim::acos>},
    {"aten::atan", float_prim<Prim::atan>},
    {"aten::sinh", float_prim<Prim::sinh>},
    {"aten::cosh", float_prim<Prim::cosh>},
    {"aten::sqrt", float_prim<Prim::sqrt>},
    {"aten::rsqrt", rsqrt},
    {"aten::reciprocal", reciprocal},
    {"aten::sigmoid", sigmoid},
    {"aten::silu", silu},
    {"aten::gelu", gelu},
    {"aten::relu", relu},
    {"aten::clamp", clamp, 0b110},
    {"aten::clamp_min", clamp_one<true>, 0b10},
    {"aten::clamp_max", clamp_one<false>, 0b10},
    {"aten::hardtanh", hardtanh},
    {"aten::relu6", relu6},
    {"aten::hardsigmoid", hardsigmoid},
    {"aten::hardswish", hardswish},
    {"aten::leaky_relu", leaky_relu, 0b10},
    {"aten::elu", elu},
    {"aten::selu", selu},
    {"aten::softplus", softplus},
    {"aten::mish", mish},
    {"aten::square", square},
    {"aten::isnan", isnan},
    {"aten::neg", same_prim<Prim::neg>},
    {"aten::abs", same_prim<Prim::abs>},
    {"aten::floor", rounding<Prim::floor>},
    {"aten::ceil", rounding<Prim::ceil>},
    {"aten::trunc", rounding<Prim::trunc>},
    {"aten::round", rounding<Prim::round>},
    {"aten::bitwise_not", bitwise_not},
    {"aten::logical_not", logical_not},
    {"aten::add", add_or_sub<Prim::add>, 0b111},
    {"aten::sub", add_or_sub<Prim::sub>, 0b111},
    {"aten::rsub", rsub, 0b111},
    {"aten::mul", arithmetic<Prim::mul>, 0b11},
    {"aten::multiply", arithmetic<Prim::mul>, 0b11},
    {"aten::div", div, 0b11},
    {"aten::true_divide", div, 0b11},
    {"aten::maximum", arithmetic<Prim::maximum>, 0b11},
    {"aten::minimum", arithmetic<Prim::minimum>, 0b11},
    {"aten::eq", comparison<Prim::eq>, 0b11},
    {"aten::ne", comparison<Prim::ne>, 0b11},
    {"aten::lt", comparison<Prim::lt>, 0b11},
    {"aten::le", comparison<Prim::le>, 0b11},
    {"aten::gt", comparison<Prim::gt>, 0b11},
    {"aten::ge", comparison<Prim::ge>, 0b11},
    {"aten::logical_and", logical<Prim::bit_and>},
    {"aten::logical_or", logical<Prim::bit_or>},
    {"aten::logical_xor", logical<Prim::bit_xor>},
    {"aten::bitwise_and", bitwise<Prim::bit_and>},
    {"aten::bitwise_or", bitwise<Prim::bit_or>},
    {"aten::bitwise_xor", bitwise<Prim::bit_xor>},
    {"aten::__and__", bitwise<Prim::bit_and>},
    {"aten::__or__", bitwise<Prim::bit_or>},
    {"aten::__xor__", bitwise<Prim::bit_xor>},
    {"aten::pow", pow},
    {"aten::atan2", arithmetic<Prim::atan2>},
    {"aten::where", where, 0b110},
    {"aten::masked_fill", masked_fill, 0b100},
    {"aten::addcmul", add_product<Prim::mul>, 0b1000},
    {"aten::addcdiv", add_product<Prim::div>, 0b1000},
    {"aten::lerp", lerp, 0b100},
    {"aten::fill", fill, 0b10},
    {"aten::zero", zeros},
    {"aten::copy", copy},
    {"aten::to", convert},
    {"aten::_to_copy", convert},
    {"aten::type_as", convert},
    {"aten::clone", convert},
    {"aten::contiguous", convert},
    {"aten::reshape", reshape_copy},
    {"aten::flatten", reshape_copy},
    {"aten::zeros", zeros},
    {"aten::zeros_like", zeros},
    {"aten::new_zeros", zeros},
    {"aten::ones", ones},
    {"aten::ones_like", ones},
    {"aten::new_ones", ones},
    {"aten::full", full, 0b10},
    {"aten::full_like", full, 0b10},
    {"aten::new_full", new_full, 0b100},
    {"aten::arange", arange},
};

}  // namespace

std::span<const LoweringRow> pointwise_lowerings() { return kRows; }

}  // namespace flashpoint::native
