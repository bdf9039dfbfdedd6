// What the lowerings of operators are written in: builds expressions, knows a call's arguments.
//
// A lowering is `ExprId f(Call& call)`: it returns the expression of the node's only output, or kNoExpr when
// this call is none it can do. What it returns is checked against the recorded shape and dtype, so a lowering
// need not repeat the operator's own checks. In place of a constant number it meets a number that is none
// only where its row of the table says so.
//
// Callers: lower.cpp, lower_ops*.cpp. Threads: one lowering at a time per object; no GIL needed.
#pragma once

#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <unordered_map>

#include "backend/native/lower.h"

namespace flashpoint::native {

class ExprBuilder {
 public:
  explicit ExprBuilder(std::vector<Expr>& exprs) : exprs_(exprs) {}

  int32_t now = -1;  // the node that is being lowered

  const Expr& at(ExprId id) const { return exprs_[static_cast<size_t>(id)]; }
  ExprId add(Expr expr);  // the same id for equal expressions
  ExprId constant(double value, c10::ScalarType dtype);
  ExprId constant(const c10::IValue& scalar, c10::ScalarType dtype);
  ExprId cast(ExprId a, c10::ScalarType dtype);
  // Of something that computes: loads and indices change their strides instead.
  ExprId reshape(ExprId a, const ir::Dims& shape);
  // Operands are broadcast; comparisons give bool.
  ExprId op(Prim prim, std::initializer_list<ExprId> operands);
  ExprId reduce(Prim prim, ExprId a, int32_t trailing);
  // The same elements with dimension order[i] in place i. What computes them is written anew, down to what is
  // read; none where that is dear, or where memory has been written to since.
  ExprId permute(ExprId a, const std::vector<size_t>& order);

  std::function<bool(const Expr& load)> is_current;  // what is read there is what it was

 private:
  using Permuted = std::unordered_map<ExprId, ExprId>;
  ExprId permute(ExprId a, const std::vector<size_t>& order, Permuted& known, int& cost);

  std::vector<Expr>& exprs_;
  std::unordered_multimap<size_t, ExprId> known_;
};

// A call that is being lowered.
struct Call {
  ExprBuilder& build;
  const ir::Graph& graph;
  const ir::Node& node;
  const ir::Op& op;
  const ir::TensorMeta& out;       // of the first output
  std::vector<ExprId> tensors;     // per argument: the expression of a tensor, else kNoExpr
  std::vector<ExprId> numbers;     // per argument: the expression of a number that is no constant
  std::vector<ScalarUse> scalars;  // what the lowering assumes of such numbers
  std::vector<ExprId> list = {};   // the first argument's tensors, where it is a list of them

  bool has_tensor(size_t i) const { return i < tensors.size() && tensors[i] != kNoExpr; }
  const c10::IValue& constant(size_t i) const { return node.args[i].constant; }
  bool is_constant(size_t i) const {
    return i < node.args.size() && node.args[i].kind == ir::Arg::Kind::kConstant;
  }
  bool is_none(size_t i) const { return is_constant(i) && constant(i).isNone(); }
  bool has_number(size_t i) const { return i < numbers.size() && numbers[i] != kNoExpr; }
  // A tensor or number, in this dtype.
  ExprId operand(size_t i, c10::ScalarType dtype);
  // In the dtype that computes for `common`, after it was converted to `common` itself.
  ExprId rounded(size_t i, c10::ScalarType common);
  // The second operand: eager takes a number or 0-dim tensor without rounding it to a half type in * and /.
  ExprId right(size_t i, Prim prim, c10::ScalarType common);
  // What torch promotes these arguments to.
  c10::ScalarType common_dtype(std::initializer_list<size_t> arguments) const;
};

// The dtype that arithmetic on `dtype` happens in: float for the half types.
c10::ScalarType compute_dtype(c10::ScalarType dtype);
bool is_supported(c10::ScalarType dtype);

using Lowerer = ExprId (*)(Call&);
// Of an operator with several results: all of them, or none.
using ResultsLowerer = std::vector<ExprId> (*)(Call&);
struct LoweringRow {
  std::string_view name;
  Lowerer lower;
  uint32_t numbers = 0;                    // bit i: argument i may be a number that is no constant
  ResultsLowerer lower_results = nullptr;  // instead of `lower`
  bool takes_list = false;                 // the first argument is a list of tensors
  bool better_alone = false;               // a kernel that does nothing else beats calling it
};
// By operator name without overload; null when there is none.
const LoweringRow* find_lowering(std::string_view name);

}  // namespace flashpoint::native
