// Lowerings of what autograd's engine runs: the backward operators, as they appear in recordings made below
// autograd. To add one: a function and a row in kRows. None of them takes numbers that are no constants.
#include <cmath>

#include "backend/native/lowering.h"
#include "backend/native/lowering_tables.h"

namespace flashpoint::native {
namespace {

using c10::ScalarType;

// (gradient, what the forward operator took or returned, ...): both of the result's dtype; computes in float,
// rounds once.
template <typename Body>
ExprId of_gradient(Call& c, Body&& body) {
  if (!c.has_tensor(0) || !c.has_tensor(1) || !c10::isFloatingType(c.out.dtype)) return kNoExpr;
  for (size_t i : {size_t{0}, size_t{1}}) {
    if (c.build.at(c.tensors[i]).dtype != c.out.dtype) return kNoExpr;
  }
  const ScalarType t = compute_dtype(c.out.dtype);
  const ExprId result = body(c.build, c.operand(0, t), c.operand(1, t), t);
  return result == kNoExpr ? kNoExpr : c.build.cast(result, c.out.dtype);
}

bool is_number(const Call& c, size_t i) {
  return c.is_constant(i) && (c.constant(i).isDouble() || c.constant(i).isInt());
}

ExprId threshold(Call& c) {
  if (!is_number(c, 2)) return kNoExpr;
  return of_gradient(c, [&](ExprBuilder& b, ExprId g, ExprId x, ScalarType t) {
    return b.op(Prim::where, {b.op(Prim::le, {x, c.operand(2, t)}), b.constant(0.0, t), g});
  });
}
ExprId leaky_relu(Call& c) {
  if (!is_number(c, 2)) return kNoExpr;
  return of_gradient(c, [&](ExprBuilder& b, ExprId g, ExprId x, ScalarType t) {
    const ExprId positive = b.op(Prim::gt, {x, b.constant(0.0, t)});
    return b.op(Prim::where, {positive, g, b.op(Prim::mul, {g, c.operand(2, t)})});
  });
}
ExprId hardtanh(Call& c) {
  if (!is_number(c, 2) || !is_number(c, 3)) return kNoExpr;
  return of_gradient(c, [&](ExprBuilder& b, ExprId g, ExprId x, ScalarType t) {
    const ExprId above = b.op(Prim::gt, {x, c.operand(2, t)});  // of NaN, too, nothing passes
    const ExprId below = b.op(Prim::lt, {x, c.operand(3, t)});
    return b.op(Prim::where, {b.op(Prim::bit_and, {above, below}), g, b.constant(0.0, t)});
  });
}
ExprId sigmoid(Call& c) {
  return of_gradient(c, [](ExprBuilder& b, ExprId g, ExprId y, ScalarType t) {
    const ExprId rest = b.op(Prim::sub, {b.constant(1.0, t), y});
    return b.op(Prim::mul, {b.op(Prim::mul, {g, rest}), y});
  });
}
ExprId tanh(Call& c) {
  return of_gradient(c, [](ExprBuilder& b, ExprId g, ExprId y, ScalarType t) {
    return b.op(Prim::mul, {g, b.op(Prim::sub, {b.constant(1.0, t), b.op(Prim::mul, {y, y})})});
  });
}
ExprId silu(Call& c) {
  return of_gradient(c, [](ExprBuilder& b, ExprId g, ExprId x, ScalarType t) {
    const ExprId one = b.constant(1.0, t);
    const ExprId e = b.op(Prim::exp, {b.op(Prim::neg, {x})});
    const ExprId s = b.op(Prim::div, {one, b.op(Prim::add, {one, e})});
    const ExprId slope = b.op(Prim::add, {one, b.op(Prim::mul, {x, b.op(Prim::sub, {one, s})})});
    return b.op(Prim::mul, {b.op(Prim::mul, {g, s}), slope});
  });
}

ExprId gelu(Call& c) {
  if (!c.is_constant(2) || !c.constant(2).isString()) return kNoExpr;
  const bool with_tanh = c.constant(2).toStringRef() == "tanh";
  if (!with_tanh && c.constant(2).toStringRef() != "none") return kNoExpr;
  return of_gradient(c, [&](ExprBuilder& b, ExprId g, ExprId x, ScalarType t) {
    const auto number = [&](double value) { return b.constant(value, t); };
    const auto mul = [&](ExprId p, ExprId q) { return b.op(Prim::mul, {p, q}); };
    const auto add = [&](ExprId p, ExprId q) { return b.op(Prim::add, {p, q}); };
    const ExprId square = mul(x, x);
    if (!with_tanh) {
      const ExprId share = mul(number(0.5), add(number(1.0), b.op(Prim::erf, {mul(x, number(M_SQRT1_2))})));
      const ExprId density =
          mul(b.op(Prim::exp, {mul(square, number(-0.5))}), number(M_2_SQRTPI * M_SQRT1_2 * 0.5));
      return mul(g, add(share, mul(x, density)));
    }
    const double beta = M_SQRT2 * M_2_SQRTPI * 0.5;
    const ExprId cube = mul(square, x);
    const ExprId inner = mul(number(beta), add(x, mul(number(0.044715), cube)));
    const ExprId curve = b.op(Prim::tanh, {inner});
    const ExprId left = mul(number(0.5), add(number(1.0), curve));
    const ExprId steep = b.op(Prim::sub, {number(1.0), mul(curve, curve)});
    const ExprId slope = mul(number(beta), add(number(1.0), mul(number(3 * 0.044715), square)));
    return mul(g, add(left, mul(mul(mul(number(0.5), x), steep), slope)));
  });
}

// (gradient, result, dim, dtype of the input)
template <bool kLog>
ExprId softmax(Call& c) {
  if (!c.is_constant(2) || !c.constant(2).isInt() || !c.is_constant(3) || !c.constant(3).isInt())
    return kNoExpr;
  if (static_cast<ScalarType>(c.constant(3).toInt()) != c.out.dtype || !c.has_tensor(0)) return kNoExpr;
  const int32_t count = row_dims(c.build.at(c.tensors[0]).shape, c.constant(2));
  if (count == 0) return kNoExpr;
  return of_gradient(c, [&](ExprBuilder& b, ExprId g, ExprId y, ScalarType) {
    if (kLog) {
      const ExprId total = b.reduce(Prim::reduce_sum, g, count);
      return b.op(Prim::sub, {g, b.op(Prim::mul, {b.op(Prim::exp, {y}), total})});
    }
    const ExprId total = b.reduce(Prim::reduce_sum, b.op(Prim::mul, {g, y}), count);
    return b.op(Prim::mul, {b.op(Prim::sub, {g, total}), y});
  });
}

constexpr LoweringRow kRows[] = {
    {"aten::threshold_backward", threshold},
    {"aten::leaky_relu_backward", leaky_relu},
    {"aten::hardtanh_backward", hardtanh},
    {"aten::sigmoid_backward", sigmoid},
    {"aten::tanh_backward", tanh},
    {"aten::silu_backward", silu},
    {"aten::gelu_backward", gelu},
    {"aten::_softmax_backward_data", softmax<false>},
    {"aten::_log_softmax_backward_data", softmax<true>},
};

}  // namespace

std::span<const LoweringRow> backward_lowerings() { return kRows; }

}  // namespace flashpoint::native
