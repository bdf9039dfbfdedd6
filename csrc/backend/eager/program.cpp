#include "backend/eager/program.h"

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/jit_type.h>
#include <ATen/ops/clone.h>

#include <cstring>
#include <mutex>
#include <stdexcept>

#include "backend/eager/pseudo_ops.h"
#include "base/check.h"
#include "ir/schema.h"

namespace flashpoint::eager {
namespace {

using Stack = std::vector<c10::IValue>;

enum class Load : uint8_t { kCopy, kMove, kConstant, kList, kNumber };

// Where one argument (or list element) comes from.
struct ArgCode {
  Load load;
  uint32_t index;             // register, constant, or first element of the list
  uint32_t count = 0;         // kList: elements
  uint32_t element_type = 0;  // kList: Code::types
};

constexpr int32_t kDropped = -1;

struct OutCode {
  bool is_list;
  uint32_t first;  // Code::out_registers
  uint32_t count;
  bool dropped;  // no element is used
};

struct Instruction {
  const c10::OperatorHandle* op;  // null for a pseudo-operator
  const KernelCode* kernel;       // generated code: arguments are its inputs, outputs its results
  ir::PseudoOp pseudo;
  bool mutates_input;
  bool poison;
  bool has_wrapped;
  uint32_t state;
  uint32_t first_arg;
  uint32_t arg_count;
  uint32_t first_out;
  uint32_t out_count;
};

// A number input where the operator takes no tensor.
c10::IValue unwrap(const at::Tensor& number) {
  const void* data = number.const_data_ptr();
  if (number.scalar_type() == c10::ScalarType::Long) return *static_cast<const int64_t*>(data);
  return *static_cast<const double*>(data);
}

}  // namespace

at::Tensor make_wrapped(const c10::IValue& number, std::optional<c10::ScalarType> dtype) {
  const c10::Scalar scalar = number.toScalar();
  const auto own = number.isDouble() ? c10::ScalarType::Double
                   : number.isInt()  ? c10::ScalarType::Long
                   : number.isBool() ? c10::ScalarType::Bool
                                     : c10::ScalarType::ComplexDouble;
  at::Tensor tensor = at::detail::empty_cpu({}, dtype.value_or(own), false, std::nullopt);
  void* data = tensor.mutable_data_ptr();
  switch (dtype.value_or(own)) {
    case c10::ScalarType::Float:  // from int64 or double, rounded once, as a cast of the tensor would
      *static_cast<float*>(data) =
          number.isInt() ? static_cast<float>(number.toInt()) : static_cast<float>(scalar.toDouble());
      break;
    case c10::ScalarType::Double:
      *static_cast<double*>(data) = number.isInt() ? static_cast<double>(number.toInt()) : scalar.toDouble();
      break;
    case c10::ScalarType::Long:
      *static_cast<int64_t*>(data) = number.toInt();
      break;
    case c10::ScalarType::Bool:
      *static_cast<bool*>(data) = number.toBool();
      break;
    default:
      *static_cast<c10::complex<double>*>(data) = number.toComplexDouble();
      break;
  }
  tensor.unsafeGetTensorImpl()->set_wrapped_number(true);
  return tensor;
}

namespace {

// NaN in every float, -1 in every signed integer, true in every bool: wrong answers that show.
void poison(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.device().is_cpu() || !tensor.has_storage()) return;
  const int byte = tensor.scalar_type() == c10::ScalarType::Bool ? 0x01 : 0xff;
  const size_t size = tensor.storage().nbytes();
  if (size != 0) std::memset(tensor.unsafeGetTensorImpl()->unsafe_storage().mutable_data(), byte, size);
}

bool shares_storage(const c10::IValue& value, const c10::IValue& wrapped) {
  if (!value.isTensor() || !value.toTensor().defined()) return false;
  return value.toTensor().has_storage() &&
         value.toTensor().storage().is_alias_of(wrapped.toTensor().storage());
}

}  // namespace

bool dispatch_is_plain() {
  const auto included = c10::impl::tls_local_dispatch_key_set().included_;
  return (included - c10::default_included_set).empty();
}

struct Program::Code {
  std::vector<Instruction> instructions;
  std::vector<ArgCode> args;
  std::vector<OutCode> outs;
  std::vector<int32_t> out_registers;
  std::vector<c10::OperatorHandle> operators;
  std::vector<c10::IValue> constants;
  std::vector<c10::IValue> converted_constants;  // the same, numbers converted where that is exact
  std::vector<c10::TypePtr> types;
  std::vector<std::shared_ptr<const HostFunction>> functions;
  std::vector<std::shared_ptr<const KernelCode>> kernels;
  std::vector<ir::NodeState> states;
  std::vector<c10::ScalarType> input_dtypes;
  std::vector<int32_t> input_registers;  // kDropped for an input that nothing uses
  std::vector<ArgCode> results;
  size_t registers = 0;

  void load(const ArgCode& arg, const c10::IValue* values, std::vector<c10::IValue>& frame,
            Stack& stack) const {
    switch (arg.load) {
      case Load::kCopy:
        stack.push_back(frame[arg.index]);
        return;
      case Load::kMove:
        stack.push_back(std::move(frame[arg.index]));
        return;
      case Load::kConstant:
        stack.push_back(values[arg.index]);
        return;
      case Load::kNumber:
        stack.push_back(unwrap(frame[arg.index].toTensor()));
        return;
      case Load::kList: {
        c10::impl::GenericList list(types[arg.element_type]);
        list.reserve(arg.count);
        Stack items;
        items.reserve(arg.count);
        for (uint32_t i = 0; i < arg.count; ++i) load(args[arg.index + i], values, frame, items);
        for (auto& item : items) list.push_back(std::move(item));
        stack.emplace_back(std::move(list));
        return;
      }
    }
  }

  // An operator that hands a wrapped number on would share our constant with the program.
  void unshare_wrapped(const Instruction& instruction, const c10::IValue* values, Stack& stack) const {
    for (uint32_t i = 0; i < instruction.arg_count; ++i) {
      const ArgCode& arg = args[instruction.first_arg + i];
      if (arg.load != Load::kConstant || !values[arg.index].isTensor()) continue;
      for (auto& result : stack) {
        if (shares_storage(result, values[arg.index])) result = at::clone(result.toTensor());
      }
    }
  }

  void run_kernel(const Instruction& instruction, std::vector<c10::IValue>& frame) const {
    c10::SmallVector<const at::Tensor*, 8> inputs;
    for (uint32_t i = 0; i < instruction.arg_count; ++i) {
      inputs.push_back(&frame[args[instruction.first_arg + i].index].toTensor());
    }
    const OutCode& out = outs[instruction.first_out];
    c10::SmallVector<at::Tensor, 4> results(out.count);
    c10::SmallVector<at::Tensor*, 4> slots;
    for (at::Tensor& result : results) slots.push_back(&result);
    instruction.kernel->run(inputs, slots);
    for (uint32_t i = 0; i < instruction.arg_count; ++i) {
      const ArgCode& arg = args[instruction.first_arg + i];
      if (arg.load == Load::kMove) frame[arg.index] = c10::IValue();
    }
    for (uint32_t k = 0; k < out.count; ++k) {
      const int32_t target = out_registers[out.first + k];
      if (target != kDropped) frame[static_cast<size_t>(target)] = std::move(results[k]);
    }
  }

  void call_host(Stack& stack) const {
    const std::vector<at::Tensor> inputs = std::move(stack[1]).toTensorVector();
    const auto index = static_cast<size_t>(stack[0].toInt());
    stack.clear();
    c10::List<at::Tensor> results;
    for (at::Tensor& result : functions.at(index)->call(inputs)) results.push_back(std::move(result));
    stack.emplace_back(std::move(results));
  }

  void store(const Instruction& instruction, Stack& stack, std::vector<c10::IValue>& frame) const {
    FP_CHECK(stack.size() == instruction.out_count, "operator left an unexpected number of results");
    for (uint32_t i = 0; i < instruction.out_count; ++i) {
      const OutCode& out = outs[instruction.first_out + i];
      if (out.dropped) continue;
      if (!out.is_list) {
        frame[static_cast<size_t>(out_registers[out.first])] = std::move(stack[i]);
        continue;
      }
      const auto items = stack[i].toListRef();
      if (items.size() != out.count) {
        throw std::runtime_error("[flashpoint] an operator returned " + std::to_string(items.size()) +
                                 " tensors where " + std::to_string(out.count) + " were recorded");
      }
      for (uint32_t k = 0; k < out.count; ++k) {
        const int32_t target = out_registers[out.first + k];
        if (target != kDropped) frame[static_cast<size_t>(target)] = items[k];
      }
    }
    stack.clear();
  }
};

namespace {

// Lays a graph out as code; all the bookkeeping that run() need not do.
class Builder {
 public:
  Builder(const ir::Graph& graph, const Options& options, auto& code)
      : graph_(graph),
        options_(options),
        last_use_(graph.values.size(), kNever),
        register_(graph.values.size(), kDropped) {
    for (size_t i = 0; i < graph.nodes.size(); ++i) {
      for (const auto& arg : graph.nodes[i].args) {
        ir::for_each_value(
            arg, [&](ir::ValueId id) { last_use_[static_cast<size_t>(id)] = static_cast<int64_t>(i); });
      }
    }
    for (ir::ValueId id : graph.outputs) last_use_[static_cast<size_t>(id)] = kAtEnd;
    build(code);
  }

 private:
  static constexpr int64_t kNever = -1;
  static constexpr int64_t kAtEnd = INT64_MAX;

  int32_t allocate(ir::ValueId id, auto& code) {
    if (last_use_[static_cast<size_t>(id)] == kNever) return kDropped;
    int32_t reg;
    if (free_.empty()) {
      reg = static_cast<int32_t>(code.registers++);
    } else {
      reg = free_.back();
      free_.pop_back();
    }
    return register_[static_cast<size_t>(id)] = reg;
  }

  // The last mention of a value in its last node moves it; `mentions_` counts those still to come.
  ArgCode load_value(ir::ValueId id, int64_t node) {
    const auto reg = static_cast<uint32_t>(register_[static_cast<size_t>(id)]);
    if (last_use_[static_cast<size_t>(id)] != node || --mentions_[id] > 0) return {Load::kCopy, reg};
    dying_.push_back(static_cast<int32_t>(reg));
    return {Load::kMove, reg};
  }

  ArgCode constant(c10::IValue value, auto& code) { return constant(value, value, code); }

  ArgCode constant(c10::IValue value, c10::IValue converted, auto& code) {
    code.constants.push_back(std::move(value));
    code.converted_constants.push_back(std::move(converted));
    return {Load::kConstant, static_cast<uint32_t>(code.constants.size() - 1)};
  }

  ArgCode argument(const ir::Arg& arg, const c10::Type& type, int64_t node, auto& code) {
    switch (arg.kind) {
      case ir::Arg::Kind::kValue: {
        const c10::Type* taken = &type;
        while (auto* optional = taken->castRaw<c10::OptionalType>()) taken = optional->getElementType().get();
        const bool is_number = graph_.values[static_cast<size_t>(arg.value)].kind != ir::ValueKind::kTensor;
        ArgCode code = load_value(arg.value, node);
        if (is_number && taken->kind() != c10::TypeKind::TensorType) code.load = Load::kNumber;
        return code;
      }
      case ir::Arg::Kind::kConstant:
        return constant(arg.constant, code);
      case ir::Arg::Kind::kWrapped:
        has_wrapped_ = true;
        return constant(make_wrapped(arg.constant, std::nullopt), make_wrapped(arg.constant, number_dtype_),
                        code);
      case ir::Arg::Kind::kList:
        break;
    }
    const c10::Type* plain = &type;
    while (auto* optional = plain->castRaw<c10::OptionalType>()) plain = optional->getElementType().get();
    const auto& element = plain->castRaw<c10::ListType>()->getElementType();
    std::vector<ArgCode> items;
    bool all_constant = true;
    for (const auto& item : arg.list) {
      all_constant &= item.kind == ir::Arg::Kind::kConstant;
      items.push_back(argument(item, *element, node, code));
    }
    if (all_constant) {
      c10::impl::GenericList list(element);
      for (const auto& item : items) list.push_back(code.constants[item.index]);
      return constant(std::move(list), code);
    }
    code.types.push_back(element);
    const auto first = static_cast<uint32_t>(code.args.size());
    code.args.insert(code.args.end(), items.begin(), items.end());
    return {Load::kList, first, static_cast<uint32_t>(items.size()),
            static_cast<uint32_t>(code.types.size() - 1)};
  }

  // The dtype that + - * / will convert a number to, when that is sure and exact: the other operand is a
  // float tensor whose dtype the graph knows, and no autocast changes it. bf16 and half compute with the
  // unrounded number, so they are left alone.
  std::optional<c10::ScalarType> number_dtype(const ir::Node& node) const {
    const ir::Op& op = graph_.ops[node.op];
    const bool arithmetic = op.overload == "Tensor" && (op.name == "aten::add" || op.name == "aten::sub" ||
                                                        op.name == "aten::mul" || op.name == "aten::div");
    if (!arithmetic || !graph_.states[node.state].autocast.empty()) return std::nullopt;
    const ir::Arg& a = node.args[0];
    const ir::Arg& b = node.args[1];
    const ir::Arg& number = a.kind == ir::Arg::Kind::kWrapped ? a : b;
    const ir::Arg& other = a.kind == ir::Arg::Kind::kWrapped ? b : a;
    if (number.kind != ir::Arg::Kind::kWrapped || other.kind != ir::Arg::Kind::kValue) return std::nullopt;
    if (!number.constant.isDouble() && !number.constant.isInt()) return std::nullopt;
    const auto& meta = graph_.values[static_cast<size_t>(other.value)].meta;
    const auto dtype = meta.dtype;
    if (!meta.device.is_cpu()) return std::nullopt;
    const bool exact = dtype == c10::ScalarType::Float || dtype == c10::ScalarType::Double;
    return exact ? std::optional(dtype) : std::nullopt;
  }

  void build(auto& code) {
    code.states = graph_.states;
    code.functions = options_.functions;
    code.kernels = options_.kernels;
    for (const auto& input : graph_.inputs) {
      const ir::Value& value = graph_.values[static_cast<size_t>(input.value)];
      code.input_dtypes.push_back(value.kind == ir::ValueKind::kInt     ? c10::ScalarType::Long
                                  : value.kind == ir::ValueKind::kFloat ? c10::ScalarType::Double
                                                                        : value.meta.dtype);
    }
    std::vector<int64_t> op_index(graph_.ops.size(), -1);
    code.operators.reserve(graph_.ops.size());  // instructions point into it
    for (const auto& input : graph_.inputs) code.input_registers.push_back(allocate(input.value, code));
    for (size_t i = 0; i < graph_.nodes.size(); ++i) build_node(static_cast<int64_t>(i), op_index, code);
    for (ir::ValueId id : graph_.outputs) ++mentions_[id];
    for (ir::ValueId id : graph_.outputs) code.results.push_back(load_value(id, kAtEnd));
  }

  void build_node(int64_t i, std::vector<int64_t>& op_index, auto& code) {
    const ir::Node& node = graph_.nodes[static_cast<size_t>(i)];
    const ir::Op& op = graph_.ops[node.op];
    Instruction instruction{};
    const c10::FunctionSchema* schema = nullptr;
    if (const auto pseudo = ir::pseudo_op(op)) {
      instruction.pseudo = *pseudo;
      schema = ir::find_schema(op);
    } else {
      if (op_index[node.op] < 0) {
        auto handle = ir::find_operator(op);
        if (!handle) throw std::invalid_argument("[flashpoint] operator " + op.name + " is not registered");
        op_index[node.op] = static_cast<int64_t>(code.operators.size());
        code.operators.push_back(*handle);
      }
      instruction.op = &code.operators[static_cast<size_t>(op_index[node.op])];
      schema = &instruction.op->schema();
    }
    has_wrapped_ = false;
    dying_.clear();
    for (const auto& arg : node.args) {
      ir::for_each_value(arg, [&](ir::ValueId id) { ++mentions_[id]; });
    }
    number_dtype_ = number_dtype(node);
    std::vector<ArgCode> args;
    if (instruction.op == nullptr &&
        (instruction.pseudo == ir::PseudoOp::kernel || instruction.pseudo == ir::PseudoOp::update)) {
      instruction.kernel = code.kernels.at(static_cast<size_t>(node.args[0].constant.toInt())).get();
      for (const auto& item : node.args[1].list) args.push_back(load_value(item.value, i));
    }
    for (size_t a = 0; a < node.args.size() && instruction.kernel == nullptr; ++a) {
      args.push_back(argument(node.args[a], *schema->arguments()[a].type(), i, code));
    }
    for (const auto& arg : node.args) {
      ir::for_each_value(arg, [&](ir::ValueId id) { mentions_.erase(id); });
    }
    instruction.first_arg = static_cast<uint32_t>(code.args.size());
    instruction.arg_count = static_cast<uint32_t>(args.size());
    code.args.insert(code.args.end(), args.begin(), args.end());
    free_.insert(free_.end(), dying_.begin(), dying_.end());
    instruction.first_out = static_cast<uint32_t>(code.outs.size());
    instruction.out_count = static_cast<uint32_t>(node.outputs.size());
    for (const auto& output : node.outputs) {
      OutCode out{output.is_list, static_cast<uint32_t>(code.out_registers.size()),
                  static_cast<uint32_t>(output.count), true};
      for (int32_t k = 0; k < output.count; ++k) {
        const int32_t reg = allocate(output.first + k, code);
        out.dropped &= reg == kDropped;
        code.out_registers.push_back(reg);
      }
      code.outs.push_back(out);
    }
    instruction.state = node.state;
    instruction.mutates_input = !node.mutates.empty();
    instruction.has_wrapped = has_wrapped_;
    instruction.poison = options_.poison_empty && ir::traits_of(op).fills_nothing;
    code.instructions.push_back(instruction);
  }

  const ir::Graph& graph_;
  const Options& options_;
  std::vector<int64_t> last_use_;
  std::vector<int32_t> register_;
  std::vector<int32_t> free_;
  std::vector<int32_t> dying_;
  std::unordered_map<ir::ValueId, int> mentions_;
  bool has_wrapped_ = false;
  std::optional<c10::ScalarType> number_dtype_;
};

}  // namespace

Program::Program(std::unique_ptr<Code> code) : code_(std::move(code)) {}
Program::Program(Program&&) noexcept = default;
Program& Program::operator=(Program&&) noexcept = default;
Program::~Program() = default;

size_t Program::node_count() const { return code_->instructions.size(); }

Program compile(const ir::Graph& graph, const Options& options) {
  auto code = std::make_unique<Program::Code>();
  Builder(graph, options, *code);
  return Program(std::move(code));
}

std::vector<at::Tensor> Program::run(c10::ArrayRef<at::Tensor> inputs, RunStatus* status) const {
  const Code& code = *code_;
  RunStatus ignored;
  RunStatus& progress = status != nullptr ? *status : ignored;
  progress = RunStatus();
  if (inputs.size() != code.input_registers.size()) {
    throw std::invalid_argument("[flashpoint] a graph of " + std::to_string(code.input_registers.size()) +
                                " inputs got " + std::to_string(inputs.size()));
  }
  std::vector<c10::IValue> frame(code.registers);
  bool numbers_fit = dispatch_is_plain();
  for (size_t i = 0; i < inputs.size(); ++i) {
    numbers_fit &= inputs[i].defined() && inputs[i].scalar_type() == code.input_dtypes[i] &&
                   !inputs[i].unsafeGetTensorImpl()->is_python_dispatch();
    if (code.input_registers[i] != kDropped) frame[static_cast<size_t>(code.input_registers[i])] = inputs[i];
  }
  const c10::IValue* constants = (numbers_fit ? code.converted_constants : code.constants).data();
  Stack stack;
  stack.reserve(32);
  ir::StateSwitcher ambient;
  uint32_t state = UINT32_MAX;
  for (const Instruction& instruction : code.instructions) {
    ++progress.node;
    if (instruction.state != state) {
      state = instruction.state;
      ambient.apply(code.states[state]);
    }
    if (instruction.kernel != nullptr) {
      code.run_kernel(instruction, frame);  // what it throws, it throws before it writes
      progress.visible_mutation |= instruction.mutates_input;
      ++progress.kernels;
      continue;
    }
    for (uint32_t i = 0; i < instruction.arg_count; ++i) {
      code.load(code.args[instruction.first_arg + i], constants, frame, stack);
    }
    if (instruction.mutates_input) progress.visible_mutation = true;
    if (instruction.op != nullptr) [[likely]] {
      instruction.op->callBoxed(stack);
    } else if (instruction.pseudo == ir::PseudoOp::host_call) {
      code.call_host(stack);
    } else {
      run_pseudo_op(instruction.pseudo, stack);
    }
    if (instruction.has_wrapped) code.unshare_wrapped(instruction, constants, stack);
    if (instruction.poison && stack.back().isTensor()) poison(stack.back().toTensor());
    code.store(instruction, stack, frame);
  }
  std::vector<at::Tensor> outputs;
  outputs.reserve(code.results.size());
  for (const ArgCode& result : code.results) {
    code.load(result, constants, frame, stack);
    outputs.push_back(std::move(stack.back()).toTensor());
    stack.pop_back();
  }
  return outputs;
}

namespace {

class LaterProgram final : public GraphProgram {
 public:
  LaterProgram(const ir::Graph& graph, const Options& options) : graph_(graph), options_(options) {}

  std::vector<at::Tensor> run(c10::ArrayRef<at::Tensor> inputs, RunStatus* status) const override {
    std::call_once(once_, [&] { program_ = std::make_unique<Program>(compile(graph_, options_)); });
    return program_->run(inputs, status);
  }

  size_t node_count() const override { return graph_.nodes.size(); }

 private:
  const ir::Graph& graph_;
  const Options options_;
  mutable std::once_flag once_;
  mutable std::unique_ptr<Program> program_;
};

}  // namespace

std::unique_ptr<GraphProgram> compile_later(const ir::Graph& graph, const Options& options) {
  return std::make_unique<LaterProgram>(graph, options);
}

}  // namespace flashpoint::eager
