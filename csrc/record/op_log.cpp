#include "record/op_log.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "base/check.h"
#include "ir/constants.h"
#include "ir/early_checks.h"
#include "ir/schema.h"

namespace flashpoint {

// Room for a usual model from the start, so that growing tables stay out of the program's way in the heap.
OpLog::OpLog() {
  values_.reserve(4096);
  calls_.reserve(4096);
  inputs_.reserve(1024);
  boxed_.reserve(256);
}

int32_t OpLog::add_op(ir::Op op) {
  ops_.push_back(std::move(op));
  return static_cast<int32_t>(ops_.size()) - 1;
}

uint32_t OpLog::add_state(const ir::NodeState& state) {
  const auto it = std::find(states_.begin(), states_.end(), state);
  if (it != states_.end()) return static_cast<uint32_t>(it - states_.begin());
  states_.push_back(state);
  return static_cast<uint32_t>(states_.size() - 1);
}

uint32_t OpLog::add_callable(std::string_view name) {
  std::string text(name);
  std::replace(text.begin(), text.end(), ' ', '_');
  const auto [it, is_new] = callable_index_.try_emplace(text, static_cast<uint32_t>(callables_.size()));
  if (is_new) callables_.push_back(std::move(text));
  return it->second;
}

ir::ValueId OpLog::add_value(const at::TensorBase& tensor, int32_t call) {
  LoggedValue* value = arena_.make<LoggedValue>();
  value->call = call;
  if (tensor.defined()) {
    value->dtype = tensor.scalar_type();
    value->device = tensor.device();
    value->layout = tensor.layout();
    value->requires_grad = tensor.requires_grad();
    value->conj = tensor.is_conj();
    value->neg = tensor.is_neg();
    const auto sizes = tensor.sizes();
    const auto strides = tensor.strides();
    value->dims = static_cast<int32_t>(sizes.size());
    value->sizes = arena_.make<int64_t>(2 * sizes.size());
    std::copy(sizes.begin(), sizes.end(), value->sizes);
    std::copy(strides.begin(), strides.end(), value->sizes + sizes.size());
  }
  values_.push_back(value);
  return static_cast<ir::ValueId>(values_.size() - 1);
}

ir::ValueId OpLog::add_number(ir::ValueKind kind, int32_t call) {
  LoggedValue* value = arena_.make<LoggedValue>();
  value->call = call;
  value->kind = kind;
  values_.push_back(value);
  return static_cast<ir::ValueId>(values_.size() - 1);
}

int32_t OpLog::add_input(ir::ValueId value, int32_t source) {
  inputs_.push_back({value, source});
  return static_cast<int32_t>(inputs_.size()) - 1;
}

LoggedCall* OpLog::new_call(size_t arguments, size_t outputs) {
  LoggedCall* call = arena_.make<LoggedCall>();
  call->arg_count = static_cast<uint32_t>(arguments);
  call->output_count = static_cast<uint32_t>(outputs);
  call->args = arena_.make<LoggedArg>(arguments);
  call->outputs = arena_.make<LoggedOutput>(outputs);
  return call;
}

int32_t OpLog::append(LoggedCall* call) {
  calls_.push_back(call);
  return call_count() - 1;
}

void OpLog::add_write(LoggedCall& call, int32_t input) {
  for (const LoggedWrite* write = call.writes; write != nullptr; write = write->next) {
    if (write->input == input) return;
  }
  LoggedWrite* write = arena_.make<LoggedWrite>();
  *write = {input, call.writes};
  call.writes = write;
}

bool OpLog::note_constant(const c10::IValue& constant, LoggedArg& arg) {
  using Kind = LoggedArg::Kind;
  if (constant.isNone()) {
    arg.kind = Kind::kNone;
  } else if (constant.isInt()) {
    arg.kind = Kind::kInt;
    arg.integer = constant.toInt();
  } else if (constant.isDouble()) {
    arg.kind = Kind::kDouble;
    arg.real = constant.toDouble();
  } else if (constant.isBool()) {
    arg.kind = Kind::kBool;
    arg.integer = constant.toBool() ? 1 : 0;
  } else if (constant.isIntList() || constant.isBoolList()) {
    const auto items = constant.toListRef();
    const bool ints = constant.isIntList();
    auto* copy = arena_.make<int64_t>(items.size());
    for (size_t i = 0; i < items.size(); ++i) copy[i] = ints ? items[i].toInt() : items[i].toBool() ? 1 : 0;
    arg.kind = ints ? Kind::kInts : Kind::kBools;
    arg.integers = copy;
    arg.count = static_cast<uint32_t>(items.size());
  } else if (constant.isDoubleList()) {
    const auto items = constant.toListRef();
    auto* copy = arena_.make<double>(items.size());
    for (size_t i = 0; i < items.size(); ++i) copy[i] = items[i].toDouble();
    arg.kind = Kind::kDoubles;
    arg.reals = copy;
    arg.count = static_cast<uint32_t>(items.size());
  } else if (ir::is_representable(constant)) {
    arg.kind = Kind::kBoxed;
    arg.integer = static_cast<int64_t>(boxed_.size());
    boxed_.push_back(constant);
  } else {
    return false;
  }
  return true;
}

bool OpLog::outranks_number(ir::ValueId id, bool is_float) const {
  const LoggedValue& value = *values_[static_cast<size_t>(id)];
  if (value.kind != ir::ValueKind::kTensor || value.dims == 0) return false;
  return c10::isFloatingType(value.dtype) || c10::isComplexType(value.dtype) ||
         (!is_float && c10::isIntegralType(value.dtype, true));
}

bool OpLog::is_small(ir::ValueId value) const {
  int budget = ir::kFewNodes;
  return is_small(value, &budget);
}

bool OpLog::is_small(ir::ValueId id, int* budget) const {
  const LoggedValue& value = *values_[static_cast<size_t>(id)];
  int64_t elements = 1;
  for (int32_t i = 0; i < value.dims; ++i) elements *= value.sizes[i];
  if (elements > ir::kFewElements) return false;
  if (value.call == ir::kNoNode) return true;
  if (--*budget < 0) return false;
  const LoggedCall& call = *calls_[static_cast<size_t>(value.call)];
  const auto small = [&](const LoggedArg& arg) {
    return arg.kind != LoggedArg::Kind::kValue || is_small(static_cast<ir::ValueId>(arg.integer), budget);
  };
  for (uint32_t a = 0; a < call.arg_count; ++a) {
    const LoggedArg& arg = call.args[a];
    if (arg.kind == LoggedArg::Kind::kList ? !std::all_of(arg.items, arg.items + arg.count, small)
                                           : !small(arg))
      return false;
  }
  return true;
}

ir::Arg OpLog::build_arg(const LoggedArg& arg, const std::vector<ir::ValueId>& renamed) const {
  using Kind = LoggedArg::Kind;
  c10::IValue constant;
  switch (arg.kind) {
    case Kind::kValue:
      return ir::Arg::of_value(renamed[static_cast<size_t>(arg.integer)]);
    case Kind::kList: {
      std::vector<ir::Arg> items;
      items.reserve(arg.count);
      for (uint32_t i = 0; i < arg.count; ++i) items.push_back(build_arg(arg.items[i], renamed));
      return ir::Arg::of_list(std::move(items));
    }
    case Kind::kNone:
      break;
    case Kind::kInt:
      constant = arg.integer;
      break;
    case Kind::kDouble:
      constant = arg.real;
      break;
    case Kind::kBool:
      constant = arg.integer != 0;
      break;
    case Kind::kBoxed:
      constant = boxed_[static_cast<size_t>(arg.integer)];
      break;
    case Kind::kInts:
      constant = std::vector<int64_t>(arg.integers, arg.integers + arg.count);
      break;
    case Kind::kDoubles:
      constant = std::vector<double>(arg.reals, arg.reals + arg.count);
      break;
    case Kind::kBools: {
      c10::List<bool> list;
      for (uint32_t i = 0; i < arg.count; ++i) list.push_back(arg.integers[i] != 0);
      constant = std::move(list);
      break;
    }
  }
  return arg.wrapped ? ir::Arg::wrapped(std::move(constant)) : ir::Arg::of_constant(std::move(constant));
}

ir::Value OpLog::build_value(const LoggedValue& logged) {
  ir::Value value;
  value.node = logged.call;
  value.kind = logged.kind;
  ir::TensorMeta& meta = value.meta;
  meta.dtype = logged.dtype;
  meta.device = logged.device;
  meta.layout = logged.layout;
  meta.requires_grad = logged.requires_grad;
  meta.conj = logged.conj;
  meta.neg = logged.neg;
  meta.sizes.assign(logged.sizes, logged.sizes + logged.dims);
  meta.strides.assign(logged.sizes + logged.dims, logged.sizes + 2 * logged.dims);
  return value;
}

void OpLog::mark(const LoggedArg& arg, std::vector<bool>& used) {
  if (arg.kind == LoggedArg::Kind::kValue) used[static_cast<size_t>(arg.integer)] = true;
  if (arg.kind != LoggedArg::Kind::kList) return;
  for (uint32_t i = 0; i < arg.count; ++i) mark(arg.items[i], used);
}

// Only what is alive, with values numbered in the order of the text form (see ir/dead_code.h).
ir::Graph OpLog::build(const std::vector<ir::ValueId>& outputs, PositionSource* positions) const {
  std::vector<bool> pure(ops_.size()), used(values_.size()), live(calls_.size());
  for (size_t i = 0; i < ops_.size(); ++i) pure[i] = ir::traits_of(ops_[i]).pure;
  for (const ir::ValueId id : outputs) used[static_cast<size_t>(id)] = true;
  size_t live_count = 0;
  for (size_t i = calls_.size(); i-- > 0;) {
    const LoggedCall& call = *calls_[i];
    bool needed = !pure[static_cast<size_t>(call.op)] && !call.no_op;
    for (uint32_t o = 0; o < call.output_count && !needed; ++o) {
      const int32_t first = call.outputs[o].first, end = first + call.outputs[o].count;
      for (int32_t id = first; id < end && !needed; ++id) needed = used[static_cast<size_t>(id)];
    }
    if (!needed) continue;
    live[i] = true;
    ++live_count;
    for (uint32_t a = 0; a < call.arg_count; ++a) mark(call.args[a], used);
  }

  ir::Graph graph;
  graph.ops = ops_;
  graph.states = states_;
  graph.strings = callables_;
  graph.values.reserve(values_.size());
  std::vector<ir::ValueId> renamed(values_.size(), ir::kNoValue);
  const auto add_value = [&](ir::ValueId id, int32_t node) {
    renamed[static_cast<size_t>(id)] = static_cast<ir::ValueId>(graph.values.size());
    graph.values.push_back(build_value(*values_[static_cast<size_t>(id)]));
    graph.values.back().node = node;
  };
  for (ir::Input input : inputs_) {
    if (!used[static_cast<size_t>(input.value)]) continue;
    add_value(input.value, ir::kNoNode);
    input.value = renamed[static_cast<size_t>(input.value)];
    graph.inputs.push_back(input);
  }
  std::map<std::pair<const void*, int32_t>, uint32_t> locations;
  graph.nodes.reserve(live_count);
  for (size_t i = 0; i < calls_.size(); ++i) {
    if (!live[i]) continue;
    const LoggedCall& call = *calls_[i];
    ir::Node& node = graph.nodes.emplace_back();
    node.op = static_cast<uint32_t>(call.op);
    node.state = call.state;
    node.callable = call.callable;
    if (positions != nullptr) {
      const auto key = std::pair(call.position.code, call.position.instruction);
      const auto [it, is_new] = locations.try_emplace(key, 0);
      if (is_new) it->second = graph.append_string(positions->describe(call.position));
      node.location = it->second;
    }
    node.args.reserve(call.arg_count);
    for (uint32_t a = 0; a < call.arg_count; ++a) node.args.push_back(build_arg(call.args[a], renamed));
    for (uint32_t o = 0; o < call.output_count; ++o) {
      const LoggedOutput& output = call.outputs[o];
      node.outputs.push_back({output.is_list, static_cast<ir::ValueId>(graph.values.size()), output.count});
      for (int32_t k = 0; k < output.count; ++k)
        add_value(output.first + k, static_cast<int32_t>(graph.nodes.size()) - 1);
    }
    // An input that shares memory with what is written, but is itself unused, is no input any more.
    for (const LoggedWrite* write = call.writes; write != nullptr; write = write->next) {
      const ir::ValueId id = renamed[static_cast<size_t>(inputs_[static_cast<size_t>(write->input)].value)];
      if (id != ir::kNoValue) node.mutates.push_back(id);
    }
    std::sort(node.mutates.begin(), node.mutates.end());
  }
  for (const ir::ValueId id : outputs) graph.outputs.push_back(renamed[static_cast<size_t>(id)]);
  return graph;
}

}  // namespace flashpoint
