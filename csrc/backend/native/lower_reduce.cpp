// Lowerings of reductions, softmax and normalizations. All of them reduce trailing dimensions, so that a row
// is one piece of the iteration space. Sums and the like over other dimensions become such by reordering what
// they read; the rest is called.
#include <cmath>

#include "backend/native/lowering.h"
#include "backend/native/lowering_tables.h"

namespace flashpoint::native {
namespace {

using c10::ScalarType;

// ATen splits few long rows among threads and sums them pairwise: better left to it.
constexpr int64_t kLongRow = 65536;

// Per dimension, whether it is among these; empty if they make no sense.
std::vector<bool> marked(const ir::Dims& shape, const c10::IValue& dims) {
  const auto rank = static_cast<int64_t>(shape.size());
  std::vector<bool> reduced(shape.size(), dims.isNone());
  const auto mark = [&](int64_t d) {
    if (d < 0) d += rank;
    if (d < 0 || d >= rank) return false;
    reduced[static_cast<size_t>(d)] = true;
    return true;
  };
  if (dims.isInt()) {
    if (!mark(dims.toInt())) return {};
  } else if (dims.isIntList()) {
    const auto list = dims.toIntVector();
    if (list.empty()) reduced.assign(shape.size(), true);
    for (int64_t d : list) {
      if (!mark(d)) return {};
    }
  } else if (!dims.isNone()) {
    return {};
  }
  return reduced;
}

// The number of trailing dimensions that these make up, not counting dimensions of size 1; 0 if they do not.
int32_t trailing(const ir::Dims& shape, const c10::IValue& dims) {
  const std::vector<bool> reduced = marked(shape, dims);
  if (reduced.empty()) return 0;
  size_t first = shape.size();
  while (first > 0 && (reduced[first - 1] || shape[first - 1] == 1)) --first;
  while (first < shape.size() && !reduced[first]) ++first;
  for (size_t d = 0; d < first; ++d) {
    if (reduced[d] && shape[d] != 1) return 0;
  }
  return static_cast<int32_t>(shape.size() - first);
}

int64_t row_size(const ir::Dims& shape, int32_t count) {
  int64_t row = 1;
  for (size_t d = shape.size() - static_cast<size_t>(count); d < shape.size(); ++d) row *= shape[d];
  return row;
}

bool is_long(const ir::Dims& shape, int32_t count) { return row_size(shape, count) > kLongRow; }

// With the marked dimensions behind the others. Worth it where enough rows lie side by side.
ExprId reduced_last(ExprBuilder& build, ExprId x, const std::vector<bool>& reduced, int32_t& count) {
  constexpr int64_t kMinRows = 16;
  const ir::Dims shape = build.at(x).shape;
  std::vector<size_t> order;
  int64_t width = 1;
  for (size_t d = 0; d < reduced.size(); ++d) {
    if (reduced[d]) continue;
    order.push_back(d);
    if (shape[d] != 1) width = shape[d];
  }
  if (reduced.empty() || width < kMinRows) return kNoExpr;
  for (size_t d = 0; d < reduced.size(); ++d) {
    if (reduced[d]) order.push_back(d);
  }
  count = static_cast<int32_t>(std::count(reduced.begin(), reduced.end(), true));
  return build.permute(x, order);
}

// sum, amax, ... : (self, dims, keepdim, ...), or (self, ...) over everything.
struct Reduction {
  ExprId x = kNoExpr;
  int32_t count = 0;
};
bool reduction_of(Call& c, bool has_dims, ScalarType compute, Reduction& r) {
  if (!c.has_tensor(0)) return false;
  const ir::Dims shape = c.build.at(c.tensors[0]).shape;
  if (shape.empty()) return false;
  const c10::IValue everything;
  if (has_dims && !c.is_constant(1)) return false;
  const c10::IValue& dims = has_dims ? c.constant(1) : everything;
  r.count = trailing(shape, dims);
  ExprId x = c.tensors[0];
  if (r.count == 0) x = reduced_last(c.build, x, marked(shape, dims), r.count);
  if (x == kNoExpr || r.count == 0 || is_long(c.build.at(x).shape, r.count)) return false;
  r.x = c.build.cast(x, compute);
  return true;
}

bool has_dims(const Call& c) { return c.op.overload == "dim" || c.op.overload == "dim_IntList"; }

ExprId sum(Call& c) {
  if (!c.op.overload.empty() && !has_dims(c)) return kNoExpr;
  Reduction r;
  const ScalarType t = compute_dtype(c.out.dtype);
  if (t == ScalarType::Bool || !reduction_of(c, has_dims(c), t, r)) return kNoExpr;
  return c.build.cast(c.build.reduce(Prim::reduce_sum, r.x, r.count), c.out.dtype);
}
ExprId mean(Call& c) {
  if (!c.op.overload.empty() && !has_dims(c)) return kNoExpr;
  Reduction r;
  const ScalarType t = compute_dtype(c.out.dtype);
  if (!c10::isFloatingType(t) || !reduction_of(c, has_dims(c), t, r)) return kNoExpr;
  const auto count = static_cast<double>(row_size(c.build.at(r.x).shape, r.count));
  const ExprId total = c.build.reduce(Prim::reduce_sum, r.x, r.count);
  return c.build.cast(c.build.op(Prim::div, {total, c.build.constant(count, t)}), c.out.dtype);
}
template <Prim prim>
ExprId extremum(Call& c) {  // amax, amin
  Reduction r;
  if (c.out.dtype == ScalarType::Bool || !reduction_of(c, true, compute_dtype(c.out.dtype), r))
    return kNoExpr;
  return c.build.cast(c.build.reduce(prim, r.x, r.count), c.out.dtype);
}
template <Prim prim>
ExprId truth(Call& c) {  // any, all
  if (!c.op.overload.empty() && c.op.overload != "dim") return kNoExpr;
  Reduction r;
  if (c.out.dtype != ScalarType::Bool || !reduction_of(c, c.op.overload == "dim", ScalarType::Bool, r)) {
    return kNoExpr;
  }
  return c.build.reduce(prim, r.x, r.count);
}

struct Moments {
  ExprId mean;
  ExprId centered;
  ExprId sum_of_squares;
  double count;
};
Moments moments(ExprBuilder& b, ExprId x, int32_t trailing_dims, ScalarType t) {
  const auto count = static_cast<double>(row_size(b.at(x).shape, trailing_dims));
  const ExprId mean = b.op(Prim::div, {b.reduce(Prim::reduce_sum, x, trailing_dims), b.constant(count, t)});
  const ExprId centered = b.op(Prim::sub, {x, mean});
  return {mean, centered, b.reduce(Prim::reduce_sum, b.op(Prim::mul, {centered, centered}), trailing_dims),
          count};
}

template <bool kRoot>
ExprId variance(
    Call& c) {  // (self, dims, correction=, keepdim=), (self, dims, unbiased, keepdim), (self, unbiased)
  const std::string& overload = c.op.overload;
  if (overload != "correction" && overload != "dim" && !overload.empty()) return kNoExpr;
  Reduction r;
  const ScalarType t = compute_dtype(c.out.dtype);
  if (!c10::isFloatingType(t) || !reduction_of(c, !overload.empty(), t, r)) return kNoExpr;
  double correction = 1;
  if (overload != "correction") {
    const size_t unbiased = overload.empty() ? 1 : 2;
    if (!c.is_constant(unbiased) || !c.constant(unbiased).isBool()) return kNoExpr;
    correction = c.constant(unbiased).toBool() ? 1 : 0;
  } else if (!c.is_none(2)) {
    if (!c.is_constant(2)) return kNoExpr;
    correction =
        c.constant(2).isInt() ? static_cast<double>(c.constant(2).toInt()) : c.constant(2).toDouble();
  }
  const Moments m = moments(c.build, r.x, r.count, t);
  if (m.count - correction <= 0) return kNoExpr;
  ExprId v = c.build.op(Prim::div, {m.sum_of_squares, c.build.constant(m.count - correction, t)});
  if (kRoot) v = c.build.op(Prim::sqrt, {v});
  return c.build.cast(v, c.out.dtype);
}

template <bool kLog>
ExprId softmax(Call& c) {  // (self, dim, dtype or half_to_float)
  if (!c.has_tensor(0) || !c10::isFloatingType(c.out.dtype) || !c.is_constant(1) || !c.constant(1).isInt()) {
    return kNoExpr;
  }
  const ir::Dims shape = c.build.at(c.tensors[0]).shape;
  const int32_t count = shape.empty() ? 0 : trailing(shape, c.constant(1));
  if (count == 0 || is_long(shape, count)) return kNoExpr;
  ExprBuilder& b = c.build;
  const ScalarType t = compute_dtype(c.out.dtype);
  const ExprId x = b.cast(c.operand(0, c.out.dtype), t);
  const ExprId shifted = b.op(Prim::sub, {x, b.reduce(Prim::reduce_max, x, count)});
  const ExprId powers = b.op(Prim::exp, {shifted});
  const ExprId total = b.reduce(Prim::reduce_sum, powers, count);
  const ExprId y =
      kLog ? b.op(Prim::sub, {shifted, b.op(Prim::log, {total})}) : b.op(Prim::div, {powers, total});
  return b.cast(y, c.out.dtype);
}

// The trailing dimensions of x that `normalized_shape` names; 0 if they do not fit.
int32_t normalized(Call& c, size_t argument) {
  if (!c.is_constant(argument) || !c.constant(argument).isIntList() || !c.has_tensor(0)) return 0;
  const auto dims = c.constant(argument).toIntVector();
  const ir::Dims& shape = c.build.at(c.tensors[0]).shape;
  if (dims.empty() || dims.size() > shape.size()) return 0;
  if (!std::equal(dims.begin(), dims.end(), shape.end() - static_cast<ptrdiff_t>(dims.size()))) return 0;
  return is_long(shape, static_cast<int32_t>(dims.size())) ? 0 : static_cast<int32_t>(dims.size());
}

bool is_absent(const Call& c, size_t i) { return i >= c.node.args.size() || c.is_none(i); }

// y * weight + bias, each if it is there.
ExprId affine(Call& c, ExprId y, size_t weight, size_t bias, ScalarType t) {
  if (!is_absent(c, weight)) y = c.build.op(Prim::mul, {y, c.operand(weight, t)});
  if (!is_absent(c, bias) && y != kNoExpr) y = c.build.op(Prim::add, {y, c.operand(bias, t)});
  return y;
}

ExprId layer_norm(Call& c) {  // (input, normalized_shape, weight, bias, eps, cudnn)
  const int32_t count = normalized(c, 1);
  if (count == 0 || !c10::isFloatingType(c.out.dtype) || !c.constant(4).isDouble()) return kNoExpr;
  ExprBuilder& b = c.build;
  const ScalarType t = compute_dtype(c.out.dtype);
  const Moments m = moments(b, c.operand(0, t), count, t);
  const ExprId variance = b.op(Prim::div, {m.sum_of_squares, b.constant(m.count, t)});
  const ExprId root = b.op(Prim::sqrt, {b.op(Prim::add, {variance, b.constant(c.constant(4), t)})});
  const ExprId scale = b.op(Prim::div, {b.constant(1.0, t), root});
  return b.cast(affine(c, b.op(Prim::mul, {m.centered, scale}), 2, 3, t), c.out.dtype);
}

// (input, normalized_shape, weight, bias, eps) -> (result, mean, 1 / deviation)
std::vector<ExprId> native_layer_norm(Call& c) {
  const int32_t count = normalized(c, 1);
  const ScalarType t = c.out.dtype;
  if (count == 0 || (t != ScalarType::Float && t != ScalarType::Double)) return {};
  if (c.build.at(c.tensors[0]).dtype != t || !c.is_constant(4) || !c.constant(4).isDouble()) return {};
  ExprBuilder& b = c.build;
  const Moments m = moments(b, c.tensors[0], count, t);
  const ExprId variance = b.op(Prim::div, {m.sum_of_squares, b.constant(m.count, t)});
  const ExprId root = b.op(Prim::sqrt, {b.op(Prim::add, {variance, b.constant(c.constant(4), t)})});
  const ExprId scale = b.op(Prim::div, {b.constant(1.0, t), root});
  const ExprId result = affine(c, b.op(Prim::mul, {m.centered, scale}), 2, 3, t);
  if (result == kNoExpr) return {};
  return {result, m.mean, scale};
}

ExprId rms_norm(Call& c) {  // (input, normalized_shape, weight, eps)
  const int32_t count = normalized(c, 1);
  if (count == 0 || !c10::isFloatingType(c.out.dtype) || !c.is_constant(3)) return kNoExpr;
  if (!c.constant(3).isDouble() || c.build.at(c.tensors[0]).dtype != c.out.dtype) return kNoExpr;
  if (!is_absent(c, 2) && c.build.at(c.tensors[2]).dtype != c.out.dtype) return kNoExpr;
  ExprBuilder& b = c.build;
  const ScalarType t = compute_dtype(c.out.dtype);
  const ExprId x = c.operand(0, t);
  const auto size = static_cast<double>(row_size(b.at(x).shape, count));
  ExprId mean = b.reduce(Prim::reduce_sum, b.op(Prim::mul, {x, x}), count);
  mean = b.op(Prim::div, {mean, b.constant(size, t)});
  const ExprId root = b.op(Prim::sqrt, {b.op(Prim::add, {mean, b.constant(c.constant(3), t)})});
  const ExprId scale = b.op(Prim::div, {b.constant(1.0, t), root});
  ExprId y = b.op(Prim::mul, {x, scale});
  if (!is_absent(c, 2)) y = b.op(Prim::mul, {y, c.operand(2, t)});
  return b.cast(y, c.out.dtype);
}

ExprId group_norm(Call& c) {  // (input, num_groups, weight, bias, eps, cudnn)
  constexpr int64_t kLongestGroup = 262'144;
  const ir::Dims shape = c.out.sizes;
  if (!c.has_tensor(0) || shape.size() < 2 || !c10::isFloatingType(c.out.dtype) || !c.is_constant(1) ||
      !c.constant(1).isInt() || !c.is_constant(4) || !c.constant(4).isDouble()) {
    return kNoExpr;
  }
  ExprBuilder& b = c.build;
  const int64_t groups = c.constant(1).toInt();
  if (groups <= 0 || shape[1] % groups != 0 || b.at(c.tensors[0]).shape != shape) return kNoExpr;
  if (c.out.strides != ir::contiguous_strides(shape)) return kNoExpr;
  const ir::Dims grouped{shape[0], groups, shape[1] / groups, numel(shape) / (shape[0] * shape[1])};
  if (grouped[2] * grouped[3] > kLongestGroup) return kNoExpr;
  const ScalarType t = compute_dtype(c.out.dtype);
  const Expr& source = b.at(c.tensors[0]);
  if (source.prim == Prim::load && !strides_for(source.shape, source.strides, grouped)) return kNoExpr;
  const Moments m = moments(b, b.reshape(c.operand(0, t), grouped), 2, t);
  const auto per_channel = [&](size_t i) {
    const ExprId parameter = c.operand(i, t);
    return parameter == kNoExpr ? kNoExpr : b.reshape(parameter, {groups, grouped[2], 1});
  };
  const ExprId variance = b.op(Prim::div, {m.sum_of_squares, b.constant(m.count, t)});
  const ExprId root = b.op(Prim::sqrt, {b.op(Prim::add, {variance, b.constant(c.constant(4), t)})});
  ExprId y = b.op(Prim::mul, {m.centered, b.op(Prim::div, {b.constant(1.0, t), root})});
  if (!is_absent(c, 2)) y = b.op(Prim::mul, {y, per_channel(2)});
  if (!is_absent(c, 3) && y != kNoExpr) y = b.op(Prim::add, {y, per_channel(3)});
  return y == kNoExpr ? kNoExpr : b.cast(y, c.out.dtype);
}

ExprId batch_norm(Call& c) {  // (input, weight, bias, mean, var, training, momentum, eps, cudnn)
  if (!c.has_tensor(0) || !c.has_tensor(3) || !c.has_tensor(4) || c.constant(5).toBool()) return kNoExpr;
  const ir::Dims shape = c.build.at(c.tensors[0]).shape;
  if (shape.size() < 2 || !c10::isFloatingType(c.out.dtype)) return kNoExpr;
  ExprBuilder& b = c.build;
  const ScalarType t = compute_dtype(c.out.dtype);
  ir::Dims channels(shape.size() - 1, 1);
  channels[0] = shape[1];
  const auto per_channel = [&](size_t i) { return b.reshape(c.operand(i, t), channels); };
  const ExprId root = b.op(Prim::sqrt, {b.op(Prim::add, {per_channel(4), b.constant(c.constant(7), t)})});
  ExprId scale = b.op(Prim::div, {b.constant(1.0, t), root});
  if (c.has_tensor(1)) scale = b.op(Prim::mul, {scale, per_channel(1)});
  ExprId shift = b.op(Prim::neg, {b.op(Prim::mul, {per_channel(3), scale})});
  if (c.has_tensor(2)) shift = b.op(Prim::add, {per_channel(2), shift});
  return b.cast(b.op(Prim::add, {b.op(Prim::mul, {c.operand(0, t), scale}), shift}), c.out.dtype);
}

constexpr LoweringRow kRows[] = {
    {"aten::sum", sum},
    {"aten::mean", mean},
    {"aten::amax", extremum<Prim::reduce_max>},
    {"aten::amin", extremum<Prim::reduce_min>},
    {"aten::any", truth<Prim::reduce_or>},
    {"aten::all", truth<Prim::reduce_and>},
    {"aten::var", variance<false>},
    {"aten::std", variance<true>},
    {"aten::softmax", softmax<false>},
    {"aten::_softmax", softmax<false>},
    {"aten::log_softmax", softmax<true>},
    {"aten::_log_softmax", softmax<true>},
    {"aten::layer_norm", layer_norm},
    {"aten::native_layer_norm", nullptr, 0, native_layer_norm},
    {"aten::rms_norm", rms_norm},
    {"aten::group_norm", group_norm},
    {"aten::batch_norm", batch_norm},
};

}  // namespace

int32_t row_dims(const ir::Dims& shape, const c10::IValue& dims) {
  const int32_t count = shape.empty() ? 0 : trailing(shape, dims);
  return count == 0 || is_long(shape, count) ? 0 : count;
}

const LoweringRow* find_lowering(std::string_view name) {
  static const std::unordered_map<std::string_view, const LoweringRow*> rows = [] {
    std::unordered_map<std::string_view, const LoweringRow*> all;
    for (const auto& table :
         {pointwise_lowerings(), backward_lowerings(), joining_lowerings(), repeating_lowerings(),
          selecting_lowerings(), std::span<const LoweringRow>(kRows)}) {
      for (const LoweringRow& row : table) all.emplace(row.name, &row);
    }
    return all;
  }();
  const auto it = rows.find(name);
  return it == rows.end() ? nullptr : it->second;
}

}  // namespace flashpoint::native
