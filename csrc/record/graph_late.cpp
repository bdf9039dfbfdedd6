// Numbers that the program reads from tensors while it runs (`t.item()`), and what it computes from them.
//
// An entry cannot know them beforehand, so they are nodes: `flashpoint.item_float` and its like read, the
// `flashpoint.number_*` nodes compute as Python does. Those may raise, which is a restart only as long as
// nothing visible has happened; ir/early_checks.h moves them before the first write.
#include <ATen/core/Tensor.h>

#include "record/graph_recorder.h"

namespace flashpoint {

bool GraphRecorder::may_note_item(const at::Tensor& tensor) const {
  if (broken() || tensor.numel() != 1 || !is_known(tensor)) return false;
  // Arithmetic on it may raise, which must come before anything that shows.
  if (wrote_input_ && !log_.is_small(value_of(tensor))) return false;
  const auto type = tensor.scalar_type();
  return c10::isFloatingType(type) || c10::isIntegralType(type, false);
}

ir::ValueId GraphRecorder::note_item(const at::Tensor& tensor, bool is_float) {
  if (!check_operand(tensor, "item")) return ir::kNoValue;
  LoggedCall* call = begin_pseudo(is_float ? ir::PseudoOp::item_float : ir::PseudoOp::item_int, 1, 1);
  note_operand(tensor, call->args[0]);
  const int32_t node = log_.append(call);
  call->outputs[0].first = log_.add_number(is_float ? ir::ValueKind::kFloat : ir::ValueKind::kInt, node);
  dynamic_.push_back(false);
  return call->outputs[0].first;
}

ir::ValueId GraphRecorder::note_number(const char* operation, bool is_float,
                                       c10::ArrayRef<NumberOperand> operands) {
  if (broken()) return ir::kNoValue;
  LoggedCall* call = begin_pseudo(is_float ? ir::PseudoOp::number_float : ir::PseudoOp::number_int, 3, 1);
  log_.note_constant(std::string(operation), call->args[0]);
  for (size_t i = 0; i < operands.size(); ++i) {
    LoggedArg& arg = call->args[i + 1];
    if (operands[i].value < 0) {
      log_.note_constant(operands[i].constant, arg);
      continue;
    }
    arg.kind = LoggedArg::Kind::kValue;
    arg.integer = operands[i].value;
  }
  const int32_t node = log_.append(call);
  call->outputs[0].first = log_.add_number(is_float ? ir::ValueKind::kFloat : ir::ValueKind::kInt, node);
  dynamic_.push_back(false);
  return call->outputs[0].first;
}

ir::ValueId GraphRecorder::number_input(bool is_float, int32_t source) {
  const ir::ValueId value = log_.add_number(is_float ? ir::ValueKind::kFloat : ir::ValueKind::kInt);
  dynamic_.push_back(false);
  log_.add_input(value, source);
  return value;
}

int GraphRecorder::mark_number(ir::ValueId value) {
  if (broken()) return -1;
  outputs_.push_back(value);
  return static_cast<int>(outputs_.size()) - 1;
}

}  // namespace flashpoint
