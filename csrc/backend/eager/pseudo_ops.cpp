#include "backend/eager/pseudo_ops.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/clone.h>
#include <ATen/ops/is_nonzero.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "backend/eager/number_ops.h"
#include "backend/eager/program.h"
#include "backend/program.h"
#include "base/check.h"

namespace flashpoint::eager {

namespace {

bool same_bits(double a, double b) { return std::bit_cast<uint64_t>(a) == std::bit_cast<uint64_t>(b); }

bool same_number(const c10::Scalar& a, const c10::Scalar& b) {
  if (a.type() != b.type()) return false;
  if (a.isFloatingPoint()) return same_bits(a.toDouble(), b.toDouble());
  if (!a.isComplex()) return a.toLong() == b.toLong();
  const auto x = a.toComplexDouble(), y = b.toComplexDouble();
  return same_bits(x.real(), y.real()) && same_bits(x.imag(), y.imag());
}

bool same_elements(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes() || a.scalar_type() != b.scalar_type()) return false;
  const at::Tensor left = a.detach().resolve_conj().resolve_neg().cpu().contiguous();
  const at::Tensor right = b.contiguous();
  return left.nbytes() == 0 || std::memcmp(left.const_data_ptr(), right.const_data_ptr(), left.nbytes()) == 0;
}

// The site is the last argument.
void expect(bool holds, std::vector<c10::IValue>& stack) {
  if (!holds) throw UnexpectedValue(static_cast<int32_t>(stack.back().toInt()));
  stack.clear();
}

}  // namespace

void run_pseudo_op(ir::PseudoOp op, std::vector<c10::IValue>& stack) {
  switch (op) {
    case ir::PseudoOp::constant: {
      at::Tensor fresh = at::clone(stack.back().toTensor());
      stack.back() = std::move(fresh);
      return;
    }
    case ir::PseudoOp::data: {
      at::Tensor data = stack.back().toTensor().variable_data();
      stack.back() = std::move(data);
      return;
    }
    case ir::PseudoOp::set_data: {
      const at::Tensor data = std::move(stack.back()).toTensor();
      stack.pop_back();
      stack.back().toTensor().set_data(data);
      return;
    }
    case ir::PseudoOp::expect_true: {
      const bool expected = stack[1].toBool();
      return expect(at::is_nonzero(stack[0].toTensor()) == expected, stack);
    }
    case ir::PseudoOp::expect_number: {
      const c10::Scalar expected = stack[1].toScalar();
      return expect(same_number(stack[0].toTensor().item(), expected), stack);
    }
    case ir::PseudoOp::expect_values:
      return expect(same_elements(stack[0].toTensor(), stack[1].toTensor()), stack);
    case ir::PseudoOp::expect_sizes: {
      const std::vector<int64_t> sizes = stack[1].toIntVector();
      return expect(stack[0].toTensor().sizes() == at::IntArrayRef(sizes), stack);
    }
    case ir::PseudoOp::expect_dims:
      return expect(stack[0].toTensor().dim() == stack[1].toInt(), stack);
    case ir::PseudoOp::check_range: {
      const at::Tensor values = stack[0].toTensor().to(at::kLong).contiguous();
      const int64_t low = stack[1].toInt(), high = stack[2].toInt();
      const int64_t ignored = stack.size() < 4 || stack[3].isNone() ? low : stack[3].toInt();
      const int64_t* const data = values.const_data_ptr<int64_t>();
      const auto fits = [&](int64_t v) { return (v >= low && v < high) || v == ignored; };
      TORCH_CHECK(std::all_of(data, data + values.numel(), fits), "an index is out of bounds");
      stack.clear();
      return;
    }
    // Numbers travel as a number input does: in a 0-dim tensor.
    case ir::PseudoOp::item_float: {
      at::Tensor number = make_wrapped(stack.back().toTensor().item().toDouble());
      stack.back() = std::move(number);
      return;
    }
    case ir::PseudoOp::item_int: {
      at::Tensor number = make_wrapped(stack.back().toTensor().item().toLong());
      stack.back() = std::move(number);
      return;
    }
    case ir::PseudoOp::number_float:
    case ir::PseudoOp::number_int: {
      at::Tensor number = make_wrapped(compute_number(stack[0].toStringRef(), stack[1], stack[2]));
      stack.clear();
      stack.emplace_back(std::move(number));
      return;
    }
    case ir::PseudoOp::host_call:  // the executor calls these without us
    case ir::PseudoOp::kernel:
    case ir::PseudoOp::update:
      break;
  }
  FP_CHECK(false, "a node without its code");
}

}  // namespace flashpoint::eager
