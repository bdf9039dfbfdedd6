#include "record/graph_recorder.h"

#include <ATen/SavedTensorHooks.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/jit_type.h>

#include <string_view>

#include "base/check.h"
#include "base/counters.h"
#include "ir/dead_code.h"
#include "ir/early_checks.h"
#include "ir/tensor_literal.h"
#include "ir/verifier.h"
#include "record/op_info.h"

namespace torch::autograd {
TORCH_API int get_current_graph_task_id();
}

namespace at::detail {
TORCH_API const Generator& getDefaultCPUGenerator();
}

namespace flashpoint {
namespace {

using Rule = OpRule;
using RuleRow = OpRuleRow;

// Lets a row of op_rules.def name either a break or one of the two words that are none.
namespace rule_words {
struct transparent_t {
  operator RuleRow() const { return {Rule::transparent, GraphBreak::none}; }
};
struct query_t {
  operator RuleRow() const { return {Rule::query, GraphBreak::none}; }
};
inline constexpr transparent_t transparent;
struct value_read_t {
  operator RuleRow() const { return {Rule::value_read, GraphBreak::tensor_data_read}; }
};
inline constexpr query_t query;
inline constexpr value_read_t value_read;
#define X(name, text, hint) inline constexpr RuleRow name{Rule::breaks, GraphBreak::name};
#include "record/graph_breaks.def"
#undef X
}  // namespace rule_words

RuleRow rule_of(std::string_view name) {
  static const auto* rows = new std::unordered_map<std::string_view, RuleRow>{
#define X(op, rule) {op, rule_words::rule},
#include "record/op_rules.def"
#undef X
  };
  const auto it = rows->find(name);
  return it == rows->end() ? RuleRow{} : it->second;
}

// Tensors whose meaning hangs on more than their own storage and the plain dispatch of their device.
constexpr c10::DispatchKeySet kForeignKeys({c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot,
                                            c10::DispatchKey::FuncTorchBatched,
                                            c10::DispatchKey::FuncTorchGradWrapper, c10::DispatchKey::Batched,
                                            c10::DispatchKey::Functionalize});

GraphBreak break_for_return(const c10::Type& type) {
  switch (type.kind()) {
    case c10::TypeKind::TensorType:
      return GraphBreak::none;
    case c10::TypeKind::OptionalType:
      return break_for_return(*type.castRaw<c10::OptionalType>()->getElementType());
    case c10::TypeKind::ListType:
      return type.castRaw<c10::ListType>()->getElementType()->kind() == c10::TypeKind::TensorType
                 ? GraphBreak::none
                 : GraphBreak::non_tensor_result;
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType:
    case c10::TypeKind::FloatType:
    case c10::TypeKind::BoolType:
    case c10::TypeKind::NumberType:
      return GraphBreak::tensor_data_read;
    default:
      return GraphBreak::non_tensor_result;
  }
}

// The number a wrapped number holds. Its data is the host's, so this reads nothing from a device.
c10::IValue wrapped_number(const at::TensorBase& tensor) {
  const void* data = tensor.const_data_ptr();
  switch (tensor.scalar_type()) {
    case c10::ScalarType::Double:
      return *static_cast<const double*>(data);
    case c10::ScalarType::Long:
      return *static_cast<const int64_t*>(data);
    case c10::ScalarType::Bool:
      return *static_cast<const bool*>(data);
    case c10::ScalarType::ComplexDouble:
      return *static_cast<const c10::complex<double>*>(data);
    default:
      return {};
  }
}

// Conditions under which an operator's shapes depend on data, where that hangs on the call.
bool indexes_with_mask(const c10::IValue* arguments) {
  for (const c10::IValue& index : arguments[1].toListRef()) {
    if (!index.isTensor() || !index.toTensor().defined()) continue;
    const auto type = index.toTensor().scalar_type();
    if (type == c10::kBool || type == c10::kByte) return true;
  }
  return false;
}

bool counts_classes(const c10::IValue* arguments) { return arguments[1].toInt() < 0; }

bool never(const c10::IValue*) { return false; }

OpCondition dynamic_condition(std::string_view name, std::string_view overload) {
  if (name == "aten::index") return indexes_with_mask;
  if (name == "aten::one_hot") return counts_classes;
  if (name == "aten::repeat_interleave" && overload == "self_int") return never;  // the count is a number
  if (name == "aten::where" && !overload.empty()) return never;  // of a condition alone it is nonzero
  return nullptr;
}

}  // namespace

struct GraphRecorder::Call {
  struct Touched {
    IdentityTable::Index index;
    bool written;
  };
  const OpInfo* info = nullptr;
  LoggedCall* logged = nullptr;
  c10::SmallVector<Touched, 8> touched;
  uint64_t writes = 0;
  bool dynamic = false;
  at::Tensor read;                    // whose value the operator hands out
  bool returned_own_argument = true;  // all outputs so far are unwritten arguments
};

GraphRecorder::GraphRecorder() : GraphRecorder(Options()) {}

GraphRecorder::GraphRecorder(const Options& options)
    : options_(options),
      thread_(std::this_thread::get_id()),
      graph_task_(torch::autograd::get_current_graph_task_id()),
      saved_tensor_hooks_(at::SavedTensorDefaultHooks::get_tls_state().stack.size()),
      global_flags_(ir::global_flags()),
      flags_(global_flags_),
      state_flags_(global_flags_) {
  if (!is_base()) return;
  table_.follow_memory();
  base_inference_ = c10::AutogradState::get_tls_state().get_inference_mode();
  state_reader_.changed();
  note_state();
}

GraphRecorder::~GraphRecorder() = default;

void GraphRecorder::break_off(GraphBreak reason, std::string detail) {
  if (broken()) return;
  break_ = reason;
  break_detail_ = std::move(detail);
  if (options_.positions != nullptr) break_position_ = options_.positions->current();
}

bool GraphRecorder::is_recordable(const at::TensorBase& tensor, const char* what) {
  const c10::TensorImpl& impl = *tensor.unsafeGetTensorImpl();
  const auto refuse = [&](GraphBreak reason) {
    break_off(reason, what);
    return false;
  };
  const auto keys = impl.key_set();
  if (!(keys & kForeignKeys).empty()) return refuse(GraphBreak::tensor_subclass);
  if (impl.has_symbolic_sizes_strides()) return refuse(GraphBreak::unsupported_argument);
  if (tensor.layout() != c10::kStrided || tensor.is_quantized() || tensor.is_nested() ||
      !impl.has_storage()) {
    return refuse(GraphBreak::unsupported_layout);
  }
  if (!is_base() && has_forward_grad(impl)) return refuse(GraphBreak::forward_ad);
  return true;
}

ir::ValueId GraphRecorder::add_value(const at::TensorBase& tensor, int32_t node, bool dynamic) {
  dynamic_.push_back(dynamic);
  return log_.add_value(tensor, node);
}

bool GraphRecorder::register_input(const at::Tensor& tensor, int source) {
  if (broken() || !tensor.defined()) return false;
  if (table_.find(tensor.unsafeGetTensorImpl()) != IdentityTable::kNone) return true;
  if (!is_recordable(tensor, "input")) return false;
  const ir::ValueId id = add_value(tensor, ir::kNoNode, false);
  const auto index = table_.add(tensor, id);
  table_[index].input = log_.add_input(id, source);
  return true;
}

ir::ValueId GraphRecorder::register_constant(const at::Tensor& tensor) {
  if (broken()) return ir::kNoValue;
  if (const auto known = value_of(tensor); known >= 0) return known;
  if (!is_recordable(tensor, "literal")) return ir::kNoValue;
  if (!ir::is_literal_type(tensor) || tensor.requires_grad()) {
    break_off(GraphBreak::unsupported_argument, "tensor literal");
    return ir::kNoValue;
  }
  if (static_cast<int64_t>(tensor.nbytes()) > options_.max_constant_bytes) {
    break_off(GraphBreak::constant_too_large, std::to_string(tensor.nbytes()) + " bytes");
    return ir::kNoValue;
  }
  const NoTracerDispatchMode hidden;  // the copy is made below autograd, where a base level would see it
  const at::Tensor literal = ir::make_literal(tensor);
  LoggedCall* call = begin_pseudo(ir::PseudoOp::constant, 1, 1);
  log_.note_constant(literal, call->args[0]);
  const int32_t node = log_.append(call);
  const ir::ValueId id = add_value(literal, node, false);
  call->outputs[0].first = id;
  table_.add(tensor, id);
  return id;
}

int32_t GraphRecorder::pseudo_op(ir::PseudoOp op) {
  int32_t& index = pseudo_ops_[static_cast<size_t>(op)];
  if (index < 0) {
    index = log_.add_op(ir::op_of(op));
    infos_.push_back(nullptr);
  }
  return index;
}

int32_t GraphRecorder::detach_op() {
  if (detach_op_ < 0) {
    detach_op_ = log_.add_op({"aten::detach", ""});
    infos_.push_back(nullptr);
  }
  return detach_op_;
}

ir::ValueId GraphRecorder::value_of(const at::Tensor& tensor) const {
  const auto index = lookup(tensor);
  return index == IdentityTable::kNone ? ir::kNoValue : const_cast<IdentityTable&>(table_)[index].value;
}

int GraphRecorder::source_of(const at::Tensor& tensor) const {
  const auto index = tensor.defined() ? table_.find(tensor.unsafeGetTensorImpl()) : IdentityTable::kNone;
  if (index == IdentityTable::kNone) return -1;
  const int32_t input = const_cast<IdentityTable&>(table_)[index].input;
  return input < 0 ? -1 : log_.input(input).source;
}

bool GraphRecorder::has_dynamic_shape(ir::ValueId value) const {
  return value >= 0 && static_cast<size_t>(value) < dynamic_.size() && dynamic_[static_cast<size_t>(value)];
}

bool GraphRecorder::seal_holds(IdentityTable::Index index, const char* what) {
  auto& entry = table_[index];
  if (is_base() && !entry.alive()) return true;  // found by its memory
  const Seal now = take_seal(entry.get());
  const char* difference = is_base() ? compare_memory(entry.seal, now) : compare_seals(entry.seal, now);
  // Versions move above us, once for each write we saw.
  if (is_base() && difference == nullptr && now.version > table_.newest_version(entry.storage))
    difference = "version";
  if (difference == nullptr) return true;
  break_off(GraphBreak::seal_broken,
            std::string(what) + ": " + difference + " of value %" + std::to_string(entry.value) + " changed");
  return false;
}

bool GraphRecorder::check_seal(const at::Tensor& tensor) {
  if (broken()) return false;
  const auto index = lookup(tensor);
  if (index == IdentityTable::kNone) {
    break_off(GraphBreak::unknown_tensor, "a tensor that leaves the region");
    return false;
  }
  return seal_holds(index, "a tensor that leaves the region");
}

int GraphRecorder::mark_output(const at::Tensor& tensor) {
  if (!check_seal(tensor)) return -1;
  outputs_.push_back(is_base() ? name_escape(tensor) : value_of(tensor));
  return static_cast<int>(outputs_.size()) - 1;
}

void GraphRecorder::label_node(int32_t index, std::string_view callable) {
  if (index >= 0 && index < node_count()) log_.call(index).callable = log_.add_callable(callable);
}

const ir::OpTraits* GraphRecorder::traits_of_node(int32_t index) const {
  const auto& info = infos_[static_cast<size_t>(log_.call(index).op)];
  return info == nullptr ? nullptr : &info->traits;
}

const GraphRecorder::OpInfo& GraphRecorder::info_of(const c10::OperatorHandle& op) {
  // Operators stay registered while a program runs them, so within one recording the address is a name.
  const auto& name = op.operator_name();
  const auto [it, is_new] = info_index_.try_emplace(&name, static_cast<int32_t>(infos_.size()));
  if (!is_new) return *infos_[static_cast<size_t>(it->second)];
  auto info = std::make_unique<OpInfo>();
  const auto& schema = op.schema();
  info->full_name = name.overload_name.empty() ? name.name : name.name + "." + name.overload_name;
  info->arguments = schema.arguments().size();
  info->returns = schema.returns().size();
  info->rule = rule_of(name.name);
  for (const auto& result : schema.returns()) {
    const GraphBreak reason = break_for_return(*result.real_type());
    if (info->rule.rule == Rule::node && reason != GraphBreak::none) info->rule = {Rule::breaks, reason};
  }
  info->traits = ir::traits_of(op);
  info->lifts = name.name == "aten::lift_fresh";
  info->converts_literals =
      info->traits.fills_nothing || name.name == "aten::to" || name.name == "aten::_to_copy";
  info->factory = std::string_view(name.name).ends_with("_like");
  info->schema = &schema;
  info->dynamic_if = dynamic_condition(name.name, name.overload_name);
  for (const auto& result : schema.returns()) {
    info->counts_results |= result.type()->kind() == c10::TypeKind::ListType;
  }
  bool takes_tensor = false;
  bool takes_options = false;
  for (const auto& argument : schema.arguments()) {
    takes_tensor |= argument.type()->kind() == c10::TypeKind::TensorType;
    takes_options |= argument.name() == "pin_memory";
    info->has_out |= argument.is_out();
    // As many results as tensors in a list: that number is the program's.
    const auto* list = argument.type()->castRaw<c10::ListType>();
    if (list != nullptr && list->getElementType()->kind() == c10::TypeKind::TensorType)
      info->counts_results = false;
  }
  const bool spaced = name.name == "aten::linspace" || name.name == "aten::logspace";
  info->factory |= takes_options && (!takes_tensor || spaced);
  info->op = log_.add_op({name.name, name.overload_name});
  infos_.push_back(std::move(info));
  return *infos_.back();
}

// Plain means: the keys every thread starts with, inference mode and autocast applied, and ours.
void GraphRecorder::check_dispatch_keys(const OpInfo& info) {
  if (is_base()) return check_base_keys(info.full_name);
  const auto keys = c10::impl::tls_local_dispatch_key_set();
  const bool inference = c10::AutogradState::get_tls_state().get_inference_mode();
  auto included = c10::default_included_set | c10::DispatchKeySet(kTracerKey);
  auto excluded = c10::default_excluded_set - c10::autocast_dispatch_keyset;
  if (inference) {
    included = included.remove(c10::DispatchKey::ADInplaceOrView);
    excluded = excluded | c10::autograd_dispatch_keyset;
  }
  const auto seen = keys.excluded_ - c10::autocast_dispatch_keyset;
  if (keys.included_ == included && seen == excluded) return;
  // torch's Python factories run below autograd. It makes no difference to them: their results have no
  // history either way. torch.tensor and its kin work there too, but fill what they make by hand.
  const bool below_autograd =
      keys.included_ == included && seen == (excluded | c10::autograd_dispatch_keyset_with_ADInplaceOrView);
  if (below_autograd && info.factory) return;
  const bool fills = seen.has_all(c10::autograd_dispatch_keyset) && (info.traits.fills_nothing || info.lifts);
  break_off(fills ? GraphBreak::invisible_fill : GraphBreak::dispatch_keys, info.full_name);
}

bool GraphRecorder::ambient_is_plain(const OpInfo& info) {
  if (saw_foreign_op() || std::this_thread::get_id() != thread_) {
    break_off(GraphBreak::foreign_thread, info.full_name);
  } else if (!is_base() && torch::autograd::get_current_graph_task_id() != graph_task_) {
    break_off(GraphBreak::autograd_engine, info.full_name);
  } else if (!is_base() && at::SavedTensorDefaultHooks::get_tls_state().stack.size() != saved_tensor_hooks_ &&
             c10::AutogradState::get_tls_state().get_grad_mode()) {
    break_off(GraphBreak::saved_tensor_hooks, info.full_name);
  } else if (((flags_ = ir::cheap_global_flags(global_flags_)) | ir::kSwitchableFlags) !=
             (global_flags_ | ir::kSwitchableFlags)) {
    break_off(GraphBreak::global_state_changed, info.full_name);
  } else if (node_count() >= options_.max_nodes) {
    break_off(GraphBreak::too_many_nodes, std::to_string(options_.max_nodes) + " nodes");
  } else {
    check_dispatch_keys(info);
  }
  return !broken();
}

bool GraphRecorder::note_tensor(const c10::IValue& value, bool written, Call& call, LoggedArg& arg) {
  c10::TensorImpl* impl = value.unsafeToTensorImpl();
  if (impl == c10::UndefinedTensorImpl::singleton()) return log_.note_constant(value, arg);
  auto index = table_.find(impl);
  if (index == IdentityTable::kNone && is_base()) index = table_.find_alias(value.toTensor());
  if (index != IdentityTable::kNone) {
    if (!seal_holds(index, call.info->full_name.c_str())) return false;
    const auto& entry = table_[index];
    call.touched.push_back({index, written});
    call.dynamic |= dynamic_[static_cast<size_t>(entry.value)];
    arg.kind = LoggedArg::Kind::kValue;
    arg.integer = entry.value;
    return true;
  }
  if (impl->is_wrapped_number() && !written) {
    const c10::IValue number = wrapped_number(value.toTensor());
    arg.wrapped = !number.isNone();
    if (arg.wrapped) return log_.note_constant(number, arg);
  }
  // A kind of tensor we never record is the better explanation, when that is what it is.
  if (is_recordable(value.toTensor(), call.info->full_name.c_str())) {
    break_off(GraphBreak::unknown_tensor, call.info->full_name);
  }
  return false;
}

bool GraphRecorder::note(const c10::IValue& value, bool written, Call& call, LoggedArg& arg) {
  if (value.isTensor()) return note_tensor(value, written, call, arg);
  if (value.isList() && !value.isIntList() && !value.isDoubleList() && !value.isBoolList()) {
    const auto items = value.toListRef();
    arg.kind = LoggedArg::Kind::kList;
    arg.count = static_cast<uint32_t>(items.size());
    arg.items = log_.new_items(items.size());
    for (size_t i = 0; i < items.size(); ++i) {
      if (!note(items[i], written, call, arg.items[i])) return false;
    }
    return true;
  }
  const bool foreign = value.isGenerator() && value.toGenerator() != at::detail::getDefaultCPUGenerator();
  if (!foreign && log_.note_constant(value, arg)) return true;
  break_off(GraphBreak::unsupported_argument, call.info->full_name + " (" + value.tagKind() + ")");
  return false;
}

bool GraphRecorder::is_number_store(const OpInfo& info, const std::vector<c10::IValue>& stack) {
  if (!number_store_ || !info.lifts) return false;
  const at::Tensor& tensor = stack.back().toTensor();
  return tensor.defined() && tensor.device().is_cpu() && !is_known(tensor) && register_constant(tensor) >= 0;
}

// The steps that make a tensor of a list of numbers, before it is lifted: below autograd, on unknown tensors.
bool GraphRecorder::is_literal_fill(const OpInfo& info, const std::vector<c10::IValue>& stack) const {
  if (!number_store_ || !info.converts_literals) return false;
  if (!c10::impl::tls_local_dispatch_key_set().excluded_.has_all(c10::autograd_dispatch_keyset)) return false;
  const c10::IValue* arguments = stack.data() + (stack.size() - info.arguments);
  for (size_t i = 0; i < info.arguments; ++i) {
    if (arguments[i].isTensor() && is_known(arguments[i].toTensor())) return false;
  }
  return true;
}

bool GraphRecorder::begin_call(const c10::OperatorHandle& op, const std::vector<c10::IValue>& stack,
                               Call& call) {
  const OpInfo& info = info_of(op);
  call.info = &info;
  switch (info.rule.rule) {
    case Rule::query:
    case Rule::transparent:
      return false;
    case Rule::value_read: {
      const c10::IValue& tensor = stack[stack.size() - info.arguments];
      if (!may_expect_number() || !tensor.isTensor()) {
        break_off(info.rule.reason, info.full_name);
      } else if (ambient_is_plain(info) && check_operand(tensor.toTensor(), info.full_name.c_str())) {
        call.read = tensor.toTensor();
      }
      return false;
    }
    case Rule::breaks:
      break_off(info.rule.reason, info.full_name);
      return false;
    case Rule::node:
      break;
  }
  if (is_number_store(info, stack)) return false;  // lift_fresh returns its argument, which is known now
  if (is_literal_fill(info, stack)) return false;
  if (!ambient_is_plain(info)) return false;
  const c10::IValue* arguments = stack.data() + (stack.size() - info.arguments);
  call.writes = ir::writes_of_call(info.traits, [&](size_t i) {
    return i < info.arguments && arguments[i].isBool() && arguments[i].toBool();
  });
  call.logged = log_.new_call(info.arguments, info.returns);
  for (size_t i = 0; i < info.arguments; ++i) {
    const bool written = (call.writes >> (i < 63 ? i : 63)) & 1;
    if (!note(arguments[i], written, call, call.logged->args[i])) return false;
  }
  // The data of a fresh `empty` may have been filled by hand: that is how torch.tensor builds its result.
  if (info.lifts && !call.touched.empty()) {
    const int32_t producer = log_.producer(table_[call.touched[0].index].value);
    if (producer != ir::kNoNode &&
        log_.call(producer).op != pseudo_ops_[static_cast<size_t>(ir::PseudoOp::constant)]) {
      break_off(GraphBreak::invisible_fill, info.full_name);
      return false;
    }
  }
  if (state_reader_.changed() || flags_ != state_flags_) note_state();
  call.logged->op = info.op;
  call.logged->state = state_;
  if (options_.positions != nullptr) call.logged->position = options_.positions->current();
  if (call.dynamic && wrote_input_) {
    // Sizes that fit today may not fit at the next call.
    size_t sized = call.touched.size();
    for (size_t i = 0; i < info.arguments; ++i) sized += arguments[i].isIntList() ? 2 : 0;
    if (sized > 1 && !std::exchange(may_misfit_, true)) {
      failing_operator_ = info.full_name;
      if (site_source_ != nullptr) failing_position_ = site_source_->current();
    }
  }
  if (wrote_input_ && info.traits.raises_on_values && site_source_ != nullptr)
    raising_.emplace_back(info.op, site_source_->current());
  if (call.dynamic && info.counts_results) {
    // As many results as the sizes say: those are expected, and then they are no question of data any more.
    bool expected = may_expect();
    for (size_t i = 0; i < call.touched.size() && expected; ++i) {
      const auto& entry = table_[call.touched[i].index];
      if (dynamic_[static_cast<size_t>(entry.value)])
        expected = expect_shape(at::Tensor(entry.impl.lock()), false);
    }
    if (!expected) {
      break_off(GraphBreak::dynamic_count, info.full_name);
      return false;
    }
    call.dynamic = false;
  }
  call.dynamic |= info.traits.dynamic_shape && (info.dynamic_if == nullptr || info.dynamic_if(arguments));
  return true;
}

void GraphRecorder::note_state() {
  ir::NodeState state = state_reader_.state();
  if (flags_ != global_flags_) state.flags = static_cast<uint32_t>(flags_ & ir::kSwitchableFlags);
  if (is_base()) {
    state.base = true;
    state.autocast.clear();
    state.autocast_cache = true;
  }
  state_flags_ = flags_;
  state_ = log_.add_state(state);
}

void GraphRecorder::settle_mutations(Call& call) {
  for (const auto& touched : call.touched) {
    auto& entry = table_[touched.index];
    if (is_base()) {
      // The version moves when the operator is done, above us.
      if (!touched.written) continue;
      ++table_.newest_version(entry.storage);
    }
    // A version that moved tells of a write the schema does not declare.
    if (!touched.written && version_of(entry.get()) == entry.seal.version) continue;
    if (hosted_from_ >= 0 && log_.producer(entry.value) < hosted_from_)
      break_off(GraphBreak::unsupported_argument, "an autograd.Function that writes to its arguments");
    call.returned_own_argument = false;
    const void* storage = entry.storage;
    if (entry.alive() && (!is_base() || call.info->has_out)) table_.reseal(touched.index);
    table_.reseal_sharing(storage, [&](IdentityTable::Index, IdentityTable::Entry& sharing) {
      if (sharing.ambiguous) break_off(GraphBreak::ambiguous_alias, call.info->full_name);
      if (sharing.input >= 0) {
        log_.add_write(*call.logged, sharing.input);
        wrote_input_ = true;
      }
    });
  }
}

void GraphRecorder::add_output_tensor(const at::Tensor& tensor, Call& call, int32_t node) {
  const auto known = tensor.defined() ? table_.find(tensor.unsafeGetTensorImpl()) : IdentityTable::kNone;
  if (tensor.defined() && known == IdentityTable::kNone &&
      !is_recordable(tensor, call.info->full_name.c_str())) {
    return;
  }
  // Only an `out` argument takes on another shape; what is written in place keeps its own.
  const bool keeps_shape = known != IdentityTable::kNone && call.writes != 0 && !call.info->has_out;
  const bool dynamic = keeps_shape ? dynamic_[static_cast<size_t>(table_[known].value)] : call.dynamic;
  const ir::ValueId id = add_value(tensor, node, dynamic);
  if (!tensor.defined()) return;
  if (known == IdentityTable::kNone) {
    call.returned_own_argument = false;
    table_.add(tensor, id);
    return;
  }
  // The operator returned a tensor the graph knows. If it wrote to it, the result names the new state. If
  // not, the call was a no-op (contiguous, to, dropout in eval) and, guards holding, will be one again:
  // the old name stays and the node goes dead. With data-dependent shapes there is no such promise.
  auto& entry = table_[known];
  if (call.writes != 0) {
    entry.value = id;
  } else if (call.dynamic) {
    entry.value = id;
    entry.ambiguous = true;
  }
}

bool GraphRecorder::add_output(const c10::IValue& value, Call& call, int32_t node, LoggedOutput& output) {
  output.first = log_.value_count();
  if (value.isTensor()) {
    add_output_tensor(value.toTensor(), call, node);
  } else if (value.isNone()) {
    add_output_tensor(at::Tensor(), call, node);
  } else if (value.isTensorList()) {
    const auto items = value.toListRef();
    output.is_list = true;
    output.count = static_cast<int32_t>(items.size());
    for (const auto& item : items) add_output_tensor(item.toTensor(), call, node);
  } else {
    break_off(GraphBreak::non_tensor_result, call.info->full_name);
  }
  return !broken();
}

void GraphRecorder::end_call(const std::vector<c10::IValue>& stack, Call& call) {
  const OpInfo& info = *call.info;
  const int32_t node = log_.append(call.logged);
  settle_mutations(call);
  const c10::IValue* results = stack.data() + (stack.size() - info.returns);
  for (size_t i = 0; i < info.returns && !broken(); ++i)
    add_output(results[i], call, node, call.logged->outputs[i]);
  call.logged->no_op = info.returns > 0 && call.writes == 0 && call.returned_own_argument;
}

void GraphRecorder::record(const c10::OperatorHandle& op, c10::DispatchKeySet keys,
                           std::vector<c10::IValue>* stack) {
  const auto guarded = [&](auto&& step) {
    try {
      step();
    } catch (const std::exception& error) {
      const std::string_view text = error.what();
      break_off(GraphBreak::internal_error, std::string(text.substr(0, text.find('\n'))));
    }
  };
  Call call;
  bool recording = false;
  if (!broken() && !finished_) guarded([&] { recording = begin_call(op, *stack, call); });
  // Python code that is part of a kernel is the operator's business, and runs again when it is replayed.
  struct Unobserved {
    explicit Unobserved(bool* flag) : flag(flag), saved(flag != nullptr && *flag) {
      if (flag != nullptr) *flag = false;
    }
    ~Unobserved() {
      if (flag != nullptr) *flag = saved;
    }
    bool* flag;
    bool saved;
  } unobserved(options_.observing);
  if (!recording && !call.read.defined()) return run_untraced(op, keys, stack, options_.level);
  try {
    run_untraced(op, keys, stack, options_.level);
  } catch (...) {
    break_off(GraphBreak::op_raised, call.info->full_name);
    throw;
  }
  guarded([&] { recording ? end_call(*stack, call) : expect_number(call.read, stack->back()); });
}

std::unique_ptr<ir::Graph> GraphRecorder::finish(c10::ArrayRef<at::Tensor> outputs) {
  FP_CHECK(!finished_, "a recording is finished once");
  finished_ = true;
  // Counted here, under the GIL, and not in record().
  counters().ops_recorded += static_cast<uint64_t>(node_count());
  if (break_ == GraphBreak::internal_error) ++counters().internal_errors;
  for (const auto& output : outputs) {
    if (mark_output(output) < 0) return nullptr;
  }
  if (saw_foreign_op()) break_off(GraphBreak::foreign_thread, "end of the recording");
  if (ir::global_flags() != ir::cheap_global_flags(global_flags_))
    break_off(GraphBreak::global_state_changed, "end of the recording");
  for (size_t i = 0; i < table_.size() && !broken(); ++i) {
    const auto index = static_cast<IdentityTable::Index>(i);
    if (table_[index].input >= 0 && table_[index].alive()) seal_holds(index, "an input at the end");
  }
  if (broken()) return nullptr;
  auto graph = std::make_unique<ir::Graph>(log_.build(outputs_, options_.positions));
  // Where nothing comes of it there may be no need for it at all.
  if (graph->outputs.empty() && !graph->nodes.empty()) *graph = ir::without_dead_code(std::move(*graph));
  const bool computes = pseudo_ops_[static_cast<size_t>(ir::PseudoOp::number_float)] >= 0 ||
                        pseudo_ops_[static_cast<size_t>(ir::PseudoOp::number_int)] >= 0;
  const bool raises = ir::raises_after_write(*graph) >= 0;
  std::vector<int32_t> checked;
  if (computes || (raises && options_.may_stop)) {
    ir::EarlyChecks early = ir::with_early_checks(std::move(*graph), raises && options_.may_stop);
    *graph = std::move(early.graph);
    checked = std::move(early.checked);
  }
  const int32_t failing = raises ? ir::raises_after_write(*graph, checked) : -1;
  may_raise_after_write_ = failing >= 0;
  if (may_raise_after_write_ && !may_misfit_) {
    const ir::Op& op = graph->ops[graph->nodes[static_cast<size_t>(failing)].op];
    failing_operator_ = op.overload.empty() ? op.name : op.name + "." + op.overload;
    for (const auto& [recorded, position] : raising_) {
      if (log_.ops()[recorded] != op) continue;
      failing_position_ = position;
      break;
    }
  }
#ifdef FLASHPOINT_DEBUG
  const std::string violation = ir::verify(*graph);
  FP_CHECK(violation.empty(), violation);
#endif
  table_ = IdentityTable();
  return graph;
}

}  // namespace flashpoint
