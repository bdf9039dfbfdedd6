// Operators that put tensors side by side. A few parts of equal size are one tensor with a dimension for the
// number of the part, so that every point reads all of them within their bounds and chooses one. Otherwise
// each part is written to its place in new memory (lower.cpp).
#include <algorithm>

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

// Takes off the budget what computing this costs, down to what is read.
bool is_within(const ExprBuilder& build, ExprId id, int& budget) {
  const Expr& e = build.at(id);
  if (is_reduction(e.prim)) return false;
  budget -= prim_cost(e.prim);
  return budget >= 0 && std::all_of(e.operands.begin(), e.operands.end(),
                                    [&](ExprId o) { return is_within(build, o, budget); });
}

bool is_join(const ir::Op& op) {
  return op.overload.empty() && std::any_of(std::begin(kRows), std::end(kRows),
                                            [&](const auto& row) { return row.name == op.name; });
}

}  // namespace

bool joins_by_choice(const ExprBuilder& build, const std::vector<ExprId>& parts) {
  constexpr int kCheap = 8;  // what the scheduler computes again for each user
  return parts.size() <= kMaxParts && std::all_of(parts.begin(), parts.end(), [&](ExprId part) {
           int budget = kCheap;
           return build.at(part).shape == build.at(parts[0]).shape && is_within(build, part, budget);
         });
}

std::vector<Part> parts_of(const ir::Graph& graph, const ir::Node& node) {
  if (!is_join(graph.ops[node.op]) || node.args.size() != 2 || node.outputs.size() != 1) return {};
  if (node.args[0].kind != ir::Arg::Kind::kList || node.args[1].kind != ir::Arg::Kind::kConstant ||
      !node.args[1].constant.isInt() || node.outputs[0].is_list) {
    return {};
  }
  const ir::TensorMeta& out = graph.values[static_cast<size_t>(node.outputs[0].first)].meta;
  const bool stacks = graph.ops[node.op].name == "aten::stack";
  const auto rank = static_cast<int64_t>(out.sizes.size());
  int64_t dim = node.args[1].constant.toInt();
  if (dim < 0) dim += rank;
  if (dim < 0 || dim >= rank) return {};
  const auto d = static_cast<size_t>(dim);
  ir::Dims strides = out.strides;
  if (stacks) strides.erase(strides.begin() + dim);
  std::vector<Part> parts;
  int64_t at = 0;
  for (const ir::Arg& element : node.args[0].list) {
    if (element.kind != ir::Arg::Kind::kValue) return {};
    const ir::Value& value = graph.values[static_cast<size_t>(element.value)];
    if (value.kind != ir::ValueKind::kTensor) return {};
    if (numel(value.meta.sizes) == 0) continue;  // an empty vector may stand beside anything
    if (value.meta.sizes.size() != strides.size()) return {};
    parts.push_back({element.value, value.meta.sizes, strides, at * out.strides[d]});
    at += stacks ? 1 : value.meta.sizes[d];
  }
  if (at != out.sizes[d]) return {};
  return parts;
}

std::span<const LoweringRow> joining_lowerings() { return kRows; }

}  // namespace flashpoint::native
