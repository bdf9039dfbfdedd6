// Lowerings of operators that put tensors side by side. Parts of equal size are one tensor with a dimension
// for the number of the part, so that every point reads all of them within their bounds and chooses one.
#include "backend/native/lowering.h"
#include "backend/native/lowering_tables.h"

namespace flashpoint::native {
namespace {

constexpr size_t kMaxParts = 4;  // each point reads all of them

// The parts along a new dimension in place `dim`.
ExprId stacked(Call& c, int64_t dim) {
  ExprBuilder& b = c.build;
  const ir::Dims part_shape = b.at(c.list[0]).shape;
  ir::Dims shape = part_shape;
  shape.insert(shape.begin() + dim, 1);
  ir::Dims numbers_shape(shape.size() - static_cast<size_t>(dim), 1);
  numbers_shape[0] = static_cast<int64_t>(c.list.size());
  Expr numbers;
  numbers.prim = Prim::index;
  numbers.dtype = c10::ScalarType::Long;
  numbers.strides.assign(numbers_shape.size(), 0);
  numbers.strides[0] = 1;
  numbers.shape = std::move(numbers_shape);
  const ExprId number = b.add(std::move(numbers));
  ExprId result = kNoExpr;
  for (size_t i = c.list.size(); i-- > 0;) {
    const ExprId part = b.reshape(b.cast(c.list[i], c.out.dtype), shape);
    if (result == kNoExpr) {
      result = part;
      continue;
    }
    const ExprId here =
        b.op(Prim::eq, {number, b.constant(c10::IValue(static_cast<int64_t>(i)), c10::ScalarType::Long)});
    result = b.op(Prim::where, {here, part, result});
  }
  return result;
}

ExprId join(Call& c) {  // cat, stack: (tensors, dim)
  if (c.list.size() < 2 || c.list.size() > kMaxParts || !c.is_constant(1) || !c.constant(1).isInt()) {
    return kNoExpr;
  }
  const ir::Dims shape = c.build.at(c.list[0]).shape;
  for (ExprId part : c.list) {
    if (c.build.at(part).shape != shape) return kNoExpr;
  }
  const auto rank = static_cast<int64_t>(c.out.sizes.size());
  int64_t dim = c.constant(1).toInt();
  if (dim < 0) dim += rank;
  if (dim < 0 || dim >= rank) return kNoExpr;
  const ExprId result = stacked(c, dim);
  return result == kNoExpr ? kNoExpr : c.build.reshape(result, c.out.sizes);
}

constexpr LoweringRow kRows[] = {
    {"aten::cat", join, 0, nullptr, true},
    {"aten::concat", join, 0, nullptr, true},
    {"aten::stack", join, 0, nullptr, true},
};

}  // namespace

std::span<const LoweringRow> joining_lowerings() { return kRows; }

}  // namespace flashpoint::native
