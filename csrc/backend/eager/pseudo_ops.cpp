#include "backend/eager/pseudo_ops.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/clone.h>

namespace flashpoint::eager {

void run_pseudo_op(ir::PseudoOp op, std::vector<c10::IValue>& stack) {
  switch (op) {
    case ir::PseudoOp::constant: {
      at::Tensor fresh = at::clone(stack.back().toTensor());
      stack.back() = std::move(fresh);
      return;
    }
  }
}

}  // namespace flashpoint::eager
