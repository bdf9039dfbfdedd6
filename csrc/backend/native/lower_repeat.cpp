// Lowerings of operators whose result repeats elements: a copy whose operand is broadcast along new
// dimensions.
#include <cmath>

#include "backend/native/lowering.h"
#include "backend/native/lowering_tables.h"

namespace flashpoint::native {
namespace {

// How often each element of a dimension is repeated in place and as a whole.
struct Repeat {
  int64_t inside = 1;
  int64_t outside = 1;
};

// One per dimension of the operand.
ExprId repeated(Call& c, const std::vector<Repeat>& repeats) {
  ExprBuilder& b = c.build;
  ir::Dims single;
  Expr e;
  e.prim = Prim::copy;
  e.dtype = c.out.dtype;
  const ir::Dims shape = b.at(c.tensors[0]).shape;
  for (size_t d = 0; d < shape.size(); ++d) {
    for (const auto& [size, own] : {std::pair(repeats[d].outside, int64_t{1}), std::pair(shape[d], shape[d]),
                                    std::pair(repeats[d].inside, int64_t{1})}) {
      e.shape.push_back(size);
      single.push_back(own);
    }
  }
  e.operands = {b.reshape(c.tensors[0], single)};
  return b.reshape(b.add(std::move(e)), c.out.sizes);
}

// The element that eager mode takes for each of `size * times` is its place divided by `times`, whichever
// precision it computes the place in.
template <typename T>
bool divides(int64_t size, int64_t times, double factor, double shift) {
  for (const T scale : {static_cast<T>(size) / static_cast<T>(size * times),
                        static_cast<T>(factor > 0 ? 1.0 / factor : 1.0 / static_cast<double>(times))}) {
    for (int64_t i = 0; i < size * times; ++i) {
      const T place = (static_cast<T>(i) + static_cast<T>(shift)) * scale;
      if (std::min(static_cast<int64_t>(std::floor(place)), size - 1) != i / times) return false;
    }
  }
  return true;
}

// (self, output_size, scale_factors), or (self, output_size, scale, scale...): by whole factors.
template <bool kExact>
ExprId upsample(Call& c) {
  constexpr int64_t kLargest = 1 << 16;
  if (!c.has_tensor(0) || c.build.at(c.tensors[0]).dtype != c.out.dtype) return kNoExpr;
  const ir::Dims shape = c.build.at(c.tensors[0]).shape;
  if (shape.size() < 3 || shape.size() != c.out.sizes.size()) return kNoExpr;
  std::vector<Repeat> repeats(shape.size());
  for (size_t d = 2; d < shape.size(); ++d) {
    if (shape[d] == 0 || c.out.sizes[d] % shape[d] != 0 || c.out.sizes[d] > kLargest) return kNoExpr;
    repeats[d].inside = c.out.sizes[d] / shape[d];
    double factor = 0;
    const bool list = c.op.overload == "vec";
    const size_t at = list ? 2 : d;
    if (!c.is_constant(at)) return kNoExpr;
    const c10::IValue& given = c.constant(at);
    if (list && given.isDoubleList()) {
      factor = given.toDoubleVector().at(d - 2);
    } else if (!list && given.isDouble()) {
      factor = given.toDouble();
    } else if (!given.isNone()) {
      return kNoExpr;
    }
    const double shift = kExact ? 0.5 : 0;
    if (!divides<float>(shape[d], repeats[d].inside, factor, shift) ||
        !divides<double>(shape[d], repeats[d].inside, factor, shift)) {
      return kNoExpr;
    }
  }
  return repeated(c, repeats);
}

ExprId repeat(Call& c) {  // (self, repeats)
  if (!c.has_tensor(0) || !c.is_constant(1) || !c.constant(1).isIntList()) return kNoExpr;
  const auto list = c.constant(1).toIntVector();
  const size_t rank = c.build.at(c.tensors[0]).shape.size();
  if (list.size() < rank) return kNoExpr;
  std::vector<Repeat> repeats(list.size());
  for (size_t d = 0; d < list.size(); ++d) repeats[d].outside = list[d];
  ir::Dims shape(list.size() - rank, 1);
  for (int64_t d : c.build.at(c.tensors[0]).shape) shape.push_back(d);
  c.tensors[0] = c.build.reshape(c.tensors[0], shape);
  return repeated(c, repeats);
}

ExprId repeat_interleave(Call& c) {  // (self, repeats, dim, output_size)
  if (c.op.overload != "self_int" || !c.has_tensor(0) || !c.is_constant(1) || !c.constant(1).isInt() ||
      !c.is_constant(2)) {
    return kNoExpr;
  }
  ExprBuilder& b = c.build;
  if (c.constant(2).isNone()) c.tensors[0] = b.reshape(c.tensors[0], {numel(b.at(c.tensors[0]).shape)});
  const auto rank = static_cast<int64_t>(b.at(c.tensors[0]).shape.size());
  int64_t dim = c.constant(2).isNone() ? 0 : c.constant(2).toInt();
  if (dim < 0) dim += rank;
  if (dim < 0 || dim >= rank) return kNoExpr;
  std::vector<Repeat> repeats(static_cast<size_t>(rank));
  repeats[static_cast<size_t>(dim)].inside = c.constant(1).toInt();
  return repeated(c, repeats);
}

constexpr LoweringRow row(std::string_view name, Lowerer lower) {
  return {name, lower, 0, nullptr, false, true};
}

constexpr LoweringRow kRows[] = {
    row("aten::upsample_nearest1d", upsample<false>),
    row("aten::upsample_nearest2d", upsample<false>),
    row("aten::upsample_nearest3d", upsample<false>),
    row("aten::_upsample_nearest_exact1d", upsample<true>),
    row("aten::_upsample_nearest_exact2d", upsample<true>),
    row("aten::_upsample_nearest_exact3d", upsample<true>),
    row("aten::repeat", repeat),
    row("aten::repeat_interleave", repeat_interleave),
};

}  // namespace

std::span<const LoweringRow> repeating_lowerings() { return kRows; }

}  // namespace flashpoint::native
