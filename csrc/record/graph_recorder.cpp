#include "record/graph_recorder.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/jit_type.h>

#include <algorithm>
#include <map>
#include <string_view>

#include "base/check.h"
#include "base/counters.h"
#include "ir/constants.h"
#include "ir/dead_code.h"
#include "ir/printer.h"
#include "ir/tensor_literal.h"
#include "ir/verifier.h"

namespace torch::autograd {
TORCH_API int get_current_graph_task_id();
}

namespace at::detail {
TORCH_API const Generator& getDefaultCPUGenerator();
}

namespace flashpoint {
namespace {

enum class Rule : uint8_t { node, transparent, query, breaks };

struct RuleRow {
  Rule rule = Rule::node;
  GraphBreak reason = GraphBreak::none;
};

// Lets a row of op_rules.def name either a break or one of the two words that are none.
namespace rule_words {
struct transparent_t {
  operator RuleRow() const { return {Rule::transparent, GraphBreak::none}; }
};
struct query_t {
  operator RuleRow() const { return {Rule::query, GraphBreak::none}; }
};
inline constexpr transparent_t transparent;
inline constexpr query_t query;
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

}  // namespace

struct GraphRecorder::OpInfo {
  std::string full_name;
  uint32_t op = 0;
  size_t arguments = 0;
  size_t returns = 0;
  RuleRow rule;
  ir::OpTraits traits;
};

struct GraphRecorder::Call {
  struct Touched {
    IdentityTable::Index index;
    bool written;
  };
  const OpInfo* info = nullptr;
  ir::Node node;
  c10::SmallVector<Touched, 8> touched;
  uint64_t writes = 0;
  bool dynamic = false;
  bool returned_own_argument = true;  // all outputs so far are unwritten arguments
};

GraphRecorder::GraphRecorder() : GraphRecorder(Options()) {}

GraphRecorder::GraphRecorder(const Options& options)
    : options_(options),
      thread_(std::this_thread::get_id()),
      graph_task_(torch::autograd::get_current_graph_task_id()),
      global_flags_(ir::global_flags()) {}

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
  if (has_forward_grad(impl)) return refuse(GraphBreak::forward_ad);
  return true;
}

ir::ValueId GraphRecorder::add_value(ir::Value value, bool dynamic) {
  dynamic_.push_back(dynamic);
  return graph_.add_value(std::move(value));
}

bool GraphRecorder::register_input(const at::Tensor& tensor, int source) {
  if (broken() || !tensor.defined()) return false;
  if (table_.find(tensor.unsafeGetTensorImpl()) != IdentityTable::kNone) return true;
  if (!is_recordable(tensor, "input")) return false;
  ir::Value value;
  value.meta = ir::meta_of(tensor);
  const ir::ValueId id = add_value(std::move(value), false);
  const auto index = table_.add(tensor, id);
  table_[index].input = static_cast<int32_t>(graph_.inputs.size());
  graph_.inputs.push_back({id, source});
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
  ir::Node node;
  node.op = graph_.intern_op(ir::op_of(ir::PseudoOp::constant));
  op_infos_.resize(graph_.ops.size(), -1);
  node.state = state_;
  node.args.push_back(ir::Arg::of_constant(ir::make_literal(tensor)));
  ir::Value value;
  value.meta = ir::meta_of(tensor);
  value.meta.strides = ir::contiguous_strides(value.meta.sizes);
  value.node = node_count();
  const ir::ValueId id = add_value(std::move(value), false);
  node.outputs.push_back({false, id, 1});
  graph_.nodes.push_back(std::move(node));
  keep_impure_.push_back(true);
  node_positions_.push_back(options_.positions != nullptr ? options_.positions->current()
                                                          : ProgramPosition());
  table_.add(tensor, id);
  return id;
}

ir::ValueId GraphRecorder::value_of(const at::Tensor& tensor) const {
  const auto index = tensor.defined() ? table_.find(tensor.unsafeGetTensorImpl()) : IdentityTable::kNone;
  return index == IdentityTable::kNone ? ir::kNoValue : const_cast<IdentityTable&>(table_)[index].value;
}

int GraphRecorder::source_of(const at::Tensor& tensor) const {
  const auto index = tensor.defined() ? table_.find(tensor.unsafeGetTensorImpl()) : IdentityTable::kNone;
  if (index == IdentityTable::kNone) return -1;
  const int32_t input = const_cast<IdentityTable&>(table_)[index].input;
  return input < 0 ? -1 : graph_.inputs[static_cast<size_t>(input)].source;
}

bool GraphRecorder::has_dynamic_shape(ir::ValueId value) const {
  return value >= 0 && static_cast<size_t>(value) < dynamic_.size() && dynamic_[static_cast<size_t>(value)];
}

bool GraphRecorder::seal_holds(IdentityTable::Index index, const char* what) {
  const auto& entry = table_[index];
  const char* difference = compare_seals(entry.seal, take_seal(entry.get()));
  if (difference == nullptr) return true;
  break_off(GraphBreak::seal_broken,
            std::string(what) + ": " + difference + " of value %" + std::to_string(entry.value) + " changed");
  return false;
}

bool GraphRecorder::check_seal(const at::Tensor& tensor) {
  if (broken()) return false;
  const auto index = tensor.defined() ? table_.find(tensor.unsafeGetTensorImpl()) : IdentityTable::kNone;
  if (index == IdentityTable::kNone) {
    break_off(GraphBreak::unknown_tensor, "a tensor that leaves the region");
    return false;
  }
  return seal_holds(index, "a tensor that leaves the region");
}

int GraphRecorder::mark_output(const at::Tensor& tensor) {
  if (!check_seal(tensor)) return -1;
  graph_.outputs.push_back(value_of(tensor));
  return static_cast<int>(graph_.outputs.size()) - 1;
}

void GraphRecorder::label_node(int32_t index, std::string_view callable) {
  if (index < 0 || index >= node_count()) return;
  std::string name(callable);
  for (char& c : name) {
    if (c == ' ') c = '_';
  }
  graph_.nodes[static_cast<size_t>(index)].callable = graph_.intern_string(name);
}

const ir::OpTraits* GraphRecorder::traits_of_node(int32_t index) const {
  const int32_t info = op_infos_[graph_.nodes[static_cast<size_t>(index)].op];
  return info < 0 ? nullptr : &infos_[static_cast<size_t>(info)]->traits;
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
  info->op = graph_.intern_op({name.name, name.overload_name});
  op_infos_.resize(graph_.ops.size(), -1);
  op_infos_[info->op] = it->second;
  infos_.push_back(std::move(info));
  return *infos_.back();
}

bool GraphRecorder::ambient_is_plain(const OpInfo& info) {
  if (saw_foreign_op() || std::this_thread::get_id() != thread_) {
    break_off(GraphBreak::foreign_thread, info.full_name);
  } else if (torch::autograd::get_current_graph_task_id() != graph_task_) {
    break_off(GraphBreak::autograd_engine, info.full_name);
  } else if (ir::global_flags() != global_flags_) {
    break_off(GraphBreak::global_state_changed, info.full_name);
  } else if (node_count() >= options_.max_nodes) {
    break_off(GraphBreak::too_many_nodes, std::to_string(options_.max_nodes) + " nodes");
  } else {
    // Plain means: the keys every thread starts with, inference mode and autocast applied, and ours.
    const auto keys = c10::impl::tls_local_dispatch_key_set();
    const bool inference = c10::AutogradState::get_tls_state().get_inference_mode();
    auto included = c10::default_included_set | c10::DispatchKeySet(kTracerKey);
    auto excluded = c10::default_excluded_set - c10::autocast_dispatch_keyset;
    if (inference) {
      included = included.remove(c10::DispatchKey::ADInplaceOrView);
      excluded = excluded | c10::autograd_dispatch_keyset;
    }
    if (keys.included_ != included || (keys.excluded_ - c10::autocast_dispatch_keyset) != excluded) {
      // torch.tensor and its kin build their result below autograd, and fill it by hand.
      const bool builds = info.traits.fills_nothing || info.full_name == "aten::lift_fresh";
      break_off(builds ? GraphBreak::invisible_fill : GraphBreak::dispatch_keys, info.full_name);
    }
  }
  return !broken();
}

bool GraphRecorder::convert_tensor(const c10::IValue& value, bool written, Call& call, ir::Arg& arg) {
  c10::TensorImpl* impl = value.unsafeToTensorImpl();
  if (impl == c10::UndefinedTensorImpl::singleton()) {
    arg = ir::Arg::of_constant(value);
    return true;
  }
  const auto index = table_.find(impl);
  if (index != IdentityTable::kNone) {
    if (!seal_holds(index, call.info->full_name.c_str())) return false;
    const auto& entry = table_[index];
    call.touched.push_back({index, written});
    call.dynamic |= dynamic_[static_cast<size_t>(entry.value)];
    arg = ir::Arg::of_value(entry.value);
    return true;
  }
  if (impl->is_wrapped_number() && !written) {
    c10::IValue number = wrapped_number(value.toTensor());
    if (!number.isNone()) {
      arg = ir::Arg::wrapped(std::move(number));
      return true;
    }
  }
  break_off(GraphBreak::unknown_tensor, call.info->full_name);
  return false;
}

bool GraphRecorder::convert(const c10::IValue& value, bool written, Call& call, ir::Arg& arg) {
  if (value.isTensor()) return convert_tensor(value, written, call, arg);
  if (value.isGenerator()) {
    if (value.toGenerator() != at::detail::getDefaultCPUGenerator()) {
      break_off(GraphBreak::unsupported_argument, call.info->full_name + " (generator)");
      return false;
    }
  } else if (value.isList() && !value.isIntList() && !value.isDoubleList() && !value.isBoolList()) {
    const auto items = value.toListRef();
    std::vector<ir::Arg> list(items.size());
    for (size_t i = 0; i < items.size(); ++i) {
      if (!convert(items[i], written, call, list[i])) return false;
    }
    arg = ir::Arg::of_list(std::move(list));
    return true;
  }
  if (!ir::is_representable(value)) {
    break_off(GraphBreak::unsupported_argument, call.info->full_name + " (" + value.tagKind() + ")");
    return false;
  }
  arg = ir::Arg::of_constant(value);
  return true;
}

bool GraphRecorder::is_number_store(const OpInfo& info, const std::vector<c10::IValue>& stack) {
  if (!number_store_ || info.full_name != "aten::lift_fresh") return false;
  const at::Tensor& tensor = stack.back().toTensor();
  return tensor.defined() && tensor.dim() == 0 && tensor.device().is_cpu() && register_constant(tensor) >= 0;
}

bool GraphRecorder::begin_call(const c10::OperatorHandle& op, const std::vector<c10::IValue>& stack,
                               Call& call) {
  const OpInfo& info = info_of(op);
  call.info = &info;
  switch (info.rule.rule) {
    case Rule::query:
    case Rule::transparent:
      return false;
    case Rule::breaks:
      break_off(info.rule.reason, info.full_name);
      return false;
    case Rule::node:
      break;
  }
  if (is_number_store(info, stack)) return false;  // lift_fresh returns its argument, which is known now
  if (!ambient_is_plain(info)) return false;
  const c10::IValue* arguments = stack.data() + (stack.size() - info.arguments);
  call.writes = ir::writes_of_call(info.traits, [&](size_t i) {
    return i < info.arguments && arguments[i].isBool() && arguments[i].toBool();
  });
  call.node.args.resize(info.arguments);
  for (size_t i = 0; i < info.arguments; ++i) {
    const bool written = (call.writes >> (i < 63 ? i : 63)) & 1;
    if (!convert(arguments[i], written, call, call.node.args[i])) return false;
  }
  // The data of a fresh `empty` may have been filled by hand: that is how torch.tensor builds its result.
  if (info.full_name == "aten::lift_fresh" && !call.touched.empty()) {
    const auto& entry = table_[call.touched[0].index];
    const int32_t producer = graph_.values[static_cast<size_t>(entry.value)].node;
    const bool literal =
        producer != ir::kNoNode && op_infos_[graph_.nodes[static_cast<size_t>(producer)].op] < 0;
    if (producer != ir::kNoNode && !literal) {
      break_off(GraphBreak::invisible_fill, info.full_name);
      return false;
    }
  }
  if (state_reader_.changed()) state_ = graph_.intern_state(state_reader_.state());
  call.node.op = info.op;
  call.node.state = state_;
  call.dynamic |= info.traits.dynamic_shape;
  return true;
}

void GraphRecorder::settle_mutations(Call& call, int32_t node) {
  for (const auto& touched : call.touched) {
    auto& entry = table_[touched.index];
    // A version that moved tells of a write the schema does not declare.
    if (!touched.written && version_of(entry.get()) == entry.seal.version) continue;
    call.returned_own_argument = false;
    if (entry.ambiguous) {
      break_off(GraphBreak::ambiguous_alias, call.info->full_name);
      return;
    }
    const void* storage = entry.storage;
    if (entry.alive()) table_.reseal(touched.index);
    auto& mutates = graph_.nodes[static_cast<size_t>(node)].mutates;
    table_.reseal_sharing(storage, [&](IdentityTable::Index, IdentityTable::Entry& sharing) {
      if (sharing.ambiguous) break_off(GraphBreak::ambiguous_alias, call.info->full_name);
      if (sharing.input < 0) return;
      const ir::ValueId input = graph_.inputs[static_cast<size_t>(sharing.input)].value;
      const auto at = std::lower_bound(mutates.begin(), mutates.end(), input);
      if (at == mutates.end() || *at != input) mutates.insert(at, input);
    });
  }
}

void GraphRecorder::add_output_tensor(const at::Tensor& tensor, Call& call, int32_t node) {
  ir::Value value;
  value.node = node;
  if (tensor.defined()) value.meta = ir::meta_of(tensor);
  const ir::ValueId id = add_value(std::move(value), call.dynamic);
  if (!tensor.defined()) return;
  const auto known = table_.find(tensor.unsafeGetTensorImpl());
  if (known == IdentityTable::kNone) {
    if (!is_recordable(tensor, call.info->full_name.c_str())) return;
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

bool GraphRecorder::add_output(const c10::IValue& value, Call& call, int32_t node, ir::Output& output) {
  output.first = static_cast<ir::ValueId>(graph_.values.size());
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
  const int32_t node = node_count();
  graph_.nodes.push_back(std::move(call.node));
  node_positions_.push_back(options_.positions != nullptr ? options_.positions->current()
                                                          : ProgramPosition());
  keep_impure_.push_back(true);
  settle_mutations(call, node);
  c10::SmallVector<ir::Output, 1> outputs(info.returns);
  const c10::IValue* results = stack.data() + (stack.size() - info.returns);
  for (size_t i = 0; i < info.returns && !broken(); ++i) add_output(results[i], call, node, outputs[i]);
  graph_.nodes[static_cast<size_t>(node)].outputs = std::move(outputs);
  if (info.returns > 0 && call.writes == 0 && call.returned_own_argument) keep_impure_.back() = false;
  ++counters().ops_recorded;
}

void GraphRecorder::record(const c10::OperatorHandle& op, c10::DispatchKeySet keys,
                           std::vector<c10::IValue>* stack) {
  const auto guarded = [&](auto&& step) {
    try {
      step();
    } catch (const std::exception& error) {
      break_off(GraphBreak::internal_error, error.what());
      ++counters().internal_errors;
    }
  };
  Call call;
  bool recording = false;
  if (!broken() && !finished_) guarded([&] { recording = begin_call(op, *stack, call); });
  if (!recording) return run_untraced(op, keys, stack);
  try {
    run_untraced(op, keys, stack);
  } catch (...) {
    break_off(GraphBreak::op_raised, call.info->full_name);
    throw;
  }
  guarded([&] { end_call(*stack, call); });
}

void GraphRecorder::describe_positions() {
  std::map<std::pair<const void*, int32_t>, uint32_t> known;
  for (size_t i = 0; i < graph_.nodes.size(); ++i) {
    const ProgramPosition& position = node_positions_[i];
    const auto [it, is_new] = known.try_emplace({position.code, position.instruction}, 0);
    if (is_new) it->second = graph_.append_string(options_.positions->describe(position));
    graph_.nodes[i].location = it->second;
  }
}

std::unique_ptr<ir::Graph> GraphRecorder::finish(c10::ArrayRef<at::Tensor> outputs) {
  FP_CHECK(!finished_, "a recording is finished once");
  finished_ = true;
  for (const auto& output : outputs) {
    if (mark_output(output) < 0) return nullptr;
  }
  if (saw_foreign_op()) break_off(GraphBreak::foreign_thread, "end of the recording");
  for (size_t i = 0; i < table_.size() && !broken(); ++i) {
    const auto index = static_cast<IdentityTable::Index>(i);
    if (table_[index].input >= 0 && table_[index].alive()) seal_holds(index, "an input at the end");
  }
  if (broken()) return nullptr;
  if (options_.positions != nullptr) describe_positions();
  auto graph = std::make_unique<ir::Graph>(ir::without_dead_code(std::move(graph_), keep_impure_));
#ifdef FLASHPOINT_DEBUG
  const std::string violation = ir::verify(*graph);
  FP_CHECK(violation.empty(), violation);
#endif
  table_ = IdentityTable();
  return graph;
}

}  // namespace flashpoint
