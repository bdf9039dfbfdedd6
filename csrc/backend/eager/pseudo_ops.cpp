#include "backend/eager/pseudo_ops.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/clone.h>

#include "base/check.h"

namespace flashpoint::eager {

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
    case ir::PseudoOp::kernel:  // the executor calls it without a stack
      break;
  }
  FP_CHECK(false, "a kernel without its code");
}

}  // namespace flashpoint::eager
