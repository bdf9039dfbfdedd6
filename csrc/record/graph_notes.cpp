// What a recording notes though no operator shows it: `.data`, values and sizes that the program reads, and
// calls of autograd.Function, which stay calls of the program.
#include <ATen/core/Tensor.h>

#include "ir/tensor_literal.h"
#include "record/graph_recorder.h"

namespace flashpoint {

LoggedCall* GraphRecorder::begin_pseudo(ir::PseudoOp op, size_t arguments, size_t outputs) {
  LoggedCall* call = log_.new_call(arguments, outputs);
  call->op = pseudo_op(op);
  call->state = state_;
  if (options_.positions != nullptr) call->position = options_.positions->current();
  return call;
}

void GraphRecorder::note_operand(const at::Tensor& tensor, LoggedArg& arg) {
  arg.kind = LoggedArg::Kind::kValue;
  arg.integer = value_of(tensor);
}

bool GraphRecorder::check_operand(const at::Tensor& tensor, const char* what) {
  if (broken()) return false;
  const auto index = lookup(tensor);
  if (index == IdentityTable::kNone) {
    break_off(GraphBreak::unknown_tensor, what);
    return false;
  }
  return seal_holds(index, what);
}

void GraphRecorder::note_data(const at::Tensor& tensor, const at::Tensor& data) {
  if (!check_operand(tensor, ".data") || !is_recordable(data, ".data")) return;
  LoggedCall* call = begin_pseudo(ir::PseudoOp::data, 1, 1);
  note_operand(tensor, call->args[0]);
  const int32_t node = log_.append(call);
  const ir::ValueId id = add_value(data, node, has_dynamic_shape(value_of(tensor)));
  call->outputs[0].first = id;
  table_.add(data, id);
}

void GraphRecorder::note_set_data(const at::Tensor& tensor, const at::Tensor& data) {
  if (broken() || !is_recordable(tensor, ".data =")) return;
  LoggedCall* call = begin_pseudo(ir::PseudoOp::set_data, 2, 1);
  note_operand(tensor, call->args[0]);
  note_operand(data, call->args[1]);
  const int32_t node = log_.append(call);
  const auto index = table_.find(tensor.unsafeGetTensorImpl());
  const ir::ValueId id = add_value(tensor, node, has_dynamic_shape(value_of(data)));
  call->outputs[0].first = id;
  table_.reseal(index);
  auto& entry = table_[index];
  entry.value = id;
  if (entry.input < 0) return;
  // What it shared its memory with keeps that.
  log_.add_write(*call, entry.input);
  wrote_input_ = true;
}

bool GraphRecorder::may_expect() const {
  // A run that ends half way may have written nothing that can be seen.
  return options_.may_stop && (options_.expect_values || asserts_) && !broken() && !wrote_input_;
}

bool GraphRecorder::may_expect_number() const {
  // What is asserted behind a write is looked at before it (ir/early_checks.h).
  return may_expect() || (options_.may_stop && asserts_ && !broken());
}

LoggedCall* GraphRecorder::begin_expectation(ir::PseudoOp op, const at::Tensor& tensor) {
  LoggedCall* call = begin_pseudo(op, 3, 0);
  note_operand(tensor, call->args[0]);
  log_.note_constant(static_cast<int64_t>(sites_.size()), call->args[2]);
  sites_.push_back(site_source_ == nullptr ? ProgramPosition{} : site_source_->current());
  return call;
}

void GraphRecorder::expect_number(const at::Tensor& tensor, const c10::IValue& number) {
  const bool truth = number.isBool() && tensor.scalar_type() != c10::kBool;
  LoggedCall* call =
      begin_expectation(truth ? ir::PseudoOp::expect_true : ir::PseudoOp::expect_number, tensor);
  if (!log_.note_constant(number, call->args[1]))
    return break_off(GraphBreak::tensor_data_read, number.tagKind());
  if (wrote_input_) raising_.emplace_back(call->op, sites_.back());
  log_.append(call);
}

bool GraphRecorder::expect_late(ir::ValueId value, const c10::IValue& number) {
  // The outcome of a comparison is computed before the first write, wherever it was met.
  const bool outcome = number.isBool();
  if (!options_.may_stop || broken() || (wrote_input_ && !outcome)) return false;
  LoggedCall* call = begin_pseudo(ir::PseudoOp::expect_number, 3, 0);
  call->args[0].kind = LoggedArg::Kind::kValue;
  call->args[0].integer = value;
  log_.note_constant(outcome ? c10::IValue(static_cast<int64_t>(number.toBool())) : number, call->args[1]);
  log_.note_constant(static_cast<int64_t>(sites_.size()), call->args[2]);
  sites_.push_back(site_source_ == nullptr ? ProgramPosition{} : site_source_->current());
  log_.append(call);
  return true;
}

bool GraphRecorder::expect_values(const at::Tensor& tensor) {
  if (!may_expect() || !check_operand(tensor, "the values of a tensor")) return false;
  const NoTracerDispatchMode hidden;
  LoggedCall* call = begin_expectation(ir::PseudoOp::expect_values, tensor);
  log_.note_constant(ir::make_literal(tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()),
                     call->args[1]);
  log_.append(call);
  return true;
}

bool GraphRecorder::expect_shape(const at::Tensor& tensor, bool only_dims) {
  if (!may_expect() || !check_operand(tensor, "the sizes of a tensor")) return false;
  LoggedCall* call =
      begin_expectation(only_dims ? ir::PseudoOp::expect_dims : ir::PseudoOp::expect_sizes, tensor);
  const std::vector<int64_t> sizes = tensor.sizes().vec();
  log_.note_constant(only_dims ? c10::IValue(tensor.dim()) : c10::IValue(sizes), call->args[1]);
  log_.append(call);
  if (!only_dims || tensor.dim() == 0) dynamic_[static_cast<size_t>(value_of(tensor))] = false;
  return true;
}

void GraphRecorder::begin_hosted() { hosted_from_ = node_count(); }

void GraphRecorder::end_hosted(int64_t function, c10::ArrayRef<at::Tensor> inputs,
                               c10::ArrayRef<at::Tensor> outputs) {
  const int32_t from = std::exchange(hosted_from_, -1);
  if (broken()) return;
  bool dynamic = false;
  const bool is_hook = outputs.empty() && from == node_count();  // of a tensor that was looked at before
  for (const at::Tensor& input : inputs) {
    if (is_hook) {
      table_.reseal(table_.find(input.unsafeGetTensorImpl()));
      continue;
    }
    if (!check_operand(input, "an argument of an autograd.Function")) return;
    dynamic |= has_dynamic_shape(value_of(input));
    for (const at::Tensor& output : outputs) {
      if (output.is_same(input))
        return break_off(GraphBreak::ambiguous_alias, "an autograd.Function that returns its argument");
    }
  }
  // The call does again what it did; what else it made goes, unless something outside took hold of it.
  for (int32_t i = from; i < node_count(); ++i) log_.call(i).no_op = true;
  if (state_reader_.changed() || flags_ != state_flags_) note_state();
  LoggedCall* call = begin_pseudo(ir::PseudoOp::host_call, 2, 1);
  log_.note_constant(function, call->args[0]);
  call->args[1].kind = LoggedArg::Kind::kList;
  call->args[1].count = static_cast<uint32_t>(inputs.size());
  call->args[1].items = log_.new_items(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) note_operand(inputs[i], call->args[1].items[i]);
  const int32_t node = log_.append(call);
  call->outputs[0] = {true, log_.value_count(), static_cast<int32_t>(outputs.size())};
  for (const at::Tensor& output : outputs) {
    if (!is_recordable(output, "a result of an autograd.Function")) return;
    const ir::ValueId id = add_value(output, node, dynamic);
    const auto known = table_.find(output.unsafeGetTensorImpl());
    if (known == IdentityTable::kNone) {
      table_.add(output, id);
    } else {
      table_.reseal(known);
      table_[known].value = id;
    }
  }
}

}  // namespace flashpoint
