#include "backend/native/lowering.h"

#include <c10/core/DefaultDtype.h>
#include <c10/core/ScalarTypeToTypeMeta.h>

#include <bit>
#include <functional>

#include "backend/native/jit.h"
#include "base/check.h"

namespace flashpoint::native {
namespace {

using c10::ScalarType;

size_t mix(size_t seed, size_t value) { return seed * 0x9e3779b97f4a7c15ull + value + (seed >> 29); }

size_t hash_of(const Expr& e) {
  size_t h = mix(static_cast<size_t>(e.prim), static_cast<size_t>(e.dtype));
  for (int64_t d : e.shape) h = mix(h, static_cast<size_t>(d));
  for (ExprId o : e.operands) h = mix(h, static_cast<size_t>(o));
  for (int64_t s : e.strides) h = mix(h, static_cast<size_t>(s));
  h = mix(h, static_cast<size_t>(e.root));
  h = mix(h, static_cast<size_t>(e.epoch));
  h = mix(h, static_cast<size_t>(e.offset));
  h = mix(h, std::bit_cast<size_t>(e.number.real));
  h = mix(h, static_cast<size_t>(e.number.integer));
  return mix(h, static_cast<size_t>(e.reduced));
}

bool equal(const Expr& a, const Expr& b) {
  return a.prim == b.prim && a.dtype == b.dtype && a.shape == b.shape && a.operands == b.operands &&
         a.root == b.root && a.epoch == b.epoch && a.offset == b.offset && a.strides == b.strides &&
         a.number == b.number && a.reduced == b.reduced;
}

bool is_comparison(Prim prim) { return prim >= Prim::eq && prim <= Prim::ge; }

ir::Dims broadcast(const ir::Dims& a, const ir::Dims& b) {
  const ir::Dims& longer = a.size() >= b.size() ? a : b;
  const ir::Dims& shorter = a.size() >= b.size() ? b : a;
  ir::Dims result = longer;
  for (size_t i = 0; i < shorter.size(); ++i) {
    int64_t& d = result[longer.size() - shorter.size() + i];
    if (d == 1) d = shorter[i];
    FP_CHECK(shorter[i] == 1 || shorter[i] == d, "shapes do not broadcast");
  }
  return result;
}

ScalarType promote(ScalarType a, ScalarType b) {
  if (a == ScalarType::Undefined) return b;
  if (b == ScalarType::Undefined) return a;
  return c10::promoteTypes(a, b);
}

// torch's rule for operands of different rank classes: tensors, 0-dim tensors, Python numbers.
ScalarType combine(ScalarType higher, ScalarType lower) {
  if (higher == ScalarType::Undefined) return lower;
  if (c10::isComplexType(higher)) return higher;
  if (c10::isFloatingType(higher)) return c10::isComplexType(lower) ? c10::toComplexType(higher) : higher;
  if (higher == ScalarType::Bool || c10::isFloatingType(lower) || c10::isComplexType(lower)) {
    return promote(higher, lower);
  }
  return higher;
}

}  // namespace

ScalarType compute_dtype(ScalarType dtype) {
  return dtype == ScalarType::Half || dtype == ScalarType::BFloat16 ? ScalarType::Float : dtype;
}

bool is_supported(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Bool:
    case ScalarType::Byte:
    case ScalarType::Char:
    case ScalarType::Short:
    case ScalarType::Int:
    case ScalarType::Long:
    case ScalarType::BFloat16:
    case ScalarType::Float:
    case ScalarType::Double:
      return true;
    case ScalarType::Half:
      return has_half_conversions();
    default:
      return false;
  }
}

ExprId ExprBuilder::add(Expr expr) {
  const size_t hash = hash_of(expr);
  const auto [begin, end] = known_.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    if (equal(at(it->second), expr)) return it->second;
  }
  const auto id = static_cast<ExprId>(exprs_.size());
  expr.born = now;
  exprs_.push_back(std::move(expr));
  known_.emplace(hash, id);
  return id;
}

ExprId ExprBuilder::constant(double value, ScalarType dtype) { return constant(c10::IValue(value), dtype); }

ExprId ExprBuilder::constant(const c10::IValue& scalar, ScalarType dtype) {
  Expr e;
  e.prim = Prim::constant;
  e.dtype = dtype;
  if (c10::isFloatingType(dtype)) {
    e.number.real = scalar.isDouble() ? scalar.toDouble()
                    : scalar.isBool() ? static_cast<double>(scalar.toBool())
                                      : static_cast<double>(scalar.toInt());
    if (dtype == ScalarType::Float) {  // rounded once
      e.number.real = scalar.isInt() ? static_cast<float>(scalar.toInt()) : static_cast<float>(e.number.real);
    }
  } else if (dtype == ScalarType::Bool) {
    e.number.integer = scalar.isDouble() ? scalar.toDouble() != 0
                       : scalar.isBool() ? scalar.toBool()
                                         : scalar.toInt() != 0;
  } else {
    e.number.integer = scalar.isDouble() ? static_cast<int64_t>(scalar.toDouble())
                       : scalar.isBool() ? static_cast<int64_t>(scalar.toBool())
                                         : scalar.toInt();
  }
  return add(std::move(e));
}

ExprId ExprBuilder::cast(ExprId a, ScalarType dtype) {
  if (a == kNoExpr || at(a).dtype == dtype) return a;
  Expr e;
  e.prim = Prim::cast;
  e.dtype = dtype;
  e.shape = at(a).shape;
  e.operands = {a};
  return add(std::move(e));
}

ExprId ExprBuilder::reshape(ExprId a, const ir::Dims& shape) {
  if (a == kNoExpr || at(a).shape == shape) return a;
  FP_CHECK(numel(at(a).shape) == numel(shape), "a reshape changes the number of elements");
  if (at(a).prim == Prim::load || at(a).prim == Prim::index) {
    Expr view = at(a);
    const auto strides = strides_for(view.shape, view.strides, shape);
    if (!strides) return reshape(op(Prim::copy, {a}), shape);
    view.shape = shape;
    view.strides = *strides;
    return add(std::move(view));
  }
  Expr e;
  e.prim = Prim::reshape;
  e.dtype = at(a).dtype;
  e.shape = shape;
  e.operands = {at(a).prim == Prim::reshape ? at(a).operands[0] : a};
  if (at(e.operands[0]).shape == shape) return e.operands[0];
  return add(std::move(e));
}

ExprId ExprBuilder::op(Prim prim, std::initializer_list<ExprId> operands) {
  Expr e;
  e.prim = prim;
  for (ExprId o : operands) {
    if (o == kNoExpr) return kNoExpr;
    e.operands.push_back(o);
    e.shape = broadcast(e.shape, at(o).shape);
  }
  const ScalarType dtype = at(e.operands.back()).dtype;
  for (size_t i = prim == Prim::where ? 1 : 0; i < e.operands.size(); ++i) {
    FP_CHECK(at(e.operands[i]).dtype == dtype, "operands of different dtypes");
  }
  e.dtype = is_comparison(prim) ? ScalarType::Bool : dtype;
  return add(std::move(e));
}

ExprId ExprBuilder::reduce(Prim prim, ExprId a, int32_t trailing) {
  Expr e;
  e.prim = prim;
  e.dtype = at(a).dtype;
  e.shape = at(a).shape;
  for (size_t i = e.shape.size() - static_cast<size_t>(trailing); i < e.shape.size(); ++i) e.shape[i] = 1;
  if (e.shape == at(a).shape) {  // rows of one element
    const bool signed_zero = prim == Prim::reduce_sum && c10::isFloatingType(e.dtype);
    return signed_zero ? op(Prim::add, {a, constant(0.0, e.dtype)}) : a;  // a sum starts at +0
  }
  e.operands = {a};
  e.reduced = trailing;
  return add(std::move(e));
}

ExprId ExprBuilder::permute(ExprId a, const std::vector<size_t>& order) {
  Permuted known;
  int cost = 0;
  return permute(a, order, known, cost);
}

ExprId ExprBuilder::permute(ExprId a, const std::vector<size_t>& order, Permuted& known, int& cost) {
  constexpr int kMaxCost = 48;  // beyond this computing it twice is no gain
  if (const auto it = known.find(a); it != known.end()) return it->second;
  ExprId result = a;
  Expr e = at(a);
  const bool reads = e.prim == Prim::load || e.prim == Prim::index;
  if (e.prim == Prim::load && !is_current(e)) return kNoExpr;
  if (e.prim == Prim::reshape || is_reduction(e.prim)) return kNoExpr;
  cost += prim_cost(e.prim);
  if (cost > kMaxCost || known.size() > kMaxCost) return kNoExpr;
  if (!e.shape.empty()) {
    const ir::Dims shape = e.shape;
    const ir::Dims strides = e.strides;
    const size_t missing = order.size() - shape.size();  // broadcasting puts dimensions in front
    e.shape.assign(order.size(), 1);
    if (reads) e.strides.assign(order.size(), 0);
    for (size_t i = 0; i < order.size(); ++i) {
      if (order[i] < missing) continue;
      e.shape[i] = shape[order[i] - missing];
      if (reads) e.strides[i] = strides[order[i] - missing];
    }
    for (ExprId& operand : e.operands) {
      operand = permute(operand, order, known, cost);
      if (operand == kNoExpr) return kNoExpr;
    }
    result = add(std::move(e));
  }
  return known[a] = result;
}

ExprId Call::operand(size_t i, ScalarType dtype) {
  if (has_tensor(i)) return build.cast(tensors[i], dtype);
  if (i >= node.args.size()) return kNoExpr;
  if (has_number(i)) {
    scalars.push_back({node.args[i].value, dtype});
    return build.cast(build.cast(numbers[i], compute_dtype(dtype)), dtype);
  }
  const ir::Arg& arg = node.args[i];
  if (arg.kind != ir::Arg::Kind::kWrapped && arg.kind != ir::Arg::Kind::kConstant) return kNoExpr;
  const c10::IValue& value = arg.constant;
  if (!value.isDouble() && !value.isInt() && !value.isBool()) return kNoExpr;
  return build.cast(build.constant(value, compute_dtype(dtype)), dtype);
}

ExprId Call::rounded(size_t i, ScalarType common) {
  return build.cast(operand(i, common), compute_dtype(common));
}

ExprId Call::right(size_t i, Prim prim, ScalarType common) {
  const bool arithmetic = prim == Prim::mul || prim == Prim::div;
  const bool scalar = !has_tensor(i) || build.at(tensors[i]).shape.empty();
  return arithmetic && scalar ? operand(i, compute_dtype(common)) : rounded(i, common);
}

ScalarType Call::common_dtype(std::initializer_list<size_t> arguments) const {
  ScalarType dim = ScalarType::Undefined;
  ScalarType zero = ScalarType::Undefined;
  ScalarType number = ScalarType::Undefined;
  for (size_t i : arguments) {
    if (i >= node.args.size()) continue;
    const ir::Arg& arg = node.args[i];
    if (arg.kind == ir::Arg::Kind::kValue && has_number(i)) {
      const bool real = graph.values[static_cast<size_t>(arg.value)].kind == ir::ValueKind::kFloat;
      number = promote(number, real ? c10::typeMetaToScalarType(c10::get_default_dtype()) : ScalarType::Long);
    } else if (arg.kind == ir::Arg::Kind::kValue) {
      const auto& meta = graph.values[static_cast<size_t>(arg.value)].meta;
      ScalarType& rank = meta.sizes.empty() ? zero : dim;
      rank = promote(rank, meta.dtype);
    } else if (arg.constant.isDouble()) {
      number = promote(number, c10::typeMetaToScalarType(c10::get_default_dtype()));
    } else if (arg.constant.isInt()) {
      number = promote(number, ScalarType::Long);
    } else if (arg.constant.isBool()) {
      number = promote(number, ScalarType::Bool);
    } else if (!arg.constant.isNone()) {
      return ScalarType::Undefined;
    }
  }
  return combine(dim, combine(zero, number));
}

}  // namespace flashpoint::native
