#include "driver/entry_reader.h"

#include <opcode.h>

#include <algorithm>

#include "backend/eager/program.h"
#include "backend/fx/python_program.h"
#include "backend/native/program.h"
#include "base/check.h"
#include "driver/entry_format.h"
#include "driver/frame_reader.h"
#include "driver/fx_backend.h"
#include "driver/guard_reader.h"
#include "driver/recipe_reader.h"
#include "driver/trace_format.h"
#include "eval/thread_context.h"
#include "guard/guard_access.h"
#include "ir/parser.h"
#include "ir/schema.h"
#include "ir/verifier.h"
#include "portable/parts.h"
#include "portable/table.h"
#include "py/torch_bridge.h"
#include "record/rules/rules.h"
#include "replay/scalar_program.h"
#include "store/bytes.h"

namespace flashpoint {

namespace {

using portable::Table;
using portable::ValueRef;

constexpr int kUnaryOperators = 256;  // opcodes

bool is_heap(PyTypeObject* type) { return PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE); }

GlobalState get_state(store::Reader& in) {
  GlobalState s;
  const auto flags = in.number<uint8_t>();
  s.grad_mode = (flags & 1) != 0;
  s.inference_mode = (flags & 2) != 0;
  s.torch_function_enabled = (flags & 4) != 0;
  s.autocast_cache = (flags & 8) != 0;
  s.anomaly_mode = (flags & 16) != 0;
  s.recursion_limit = in.number<int32_t>();
  s.autocast_nesting = in.number<int32_t>();
  s.default_dtype = in.number<int16_t>();
  s.autocast_dtype_cpu = in.number<int16_t>();
  s.autocast_dtype_cuda = in.number<int16_t>();
  s.tls_included = in.number<uint64_t>();
  s.tls_excluded = in.number<uint64_t>();
  s.flags = in.number<uint64_t>();
  return s;
}

class Reader {
 public:
  Reader(std::string_view bytes, const StoredCall& call, const ReadOptions& options)
      : in_(bytes), call_(call), options_(options), table_(call.function) {}

  std::shared_ptr<Entry> read() {
    if (in_.take(4) != std::string_view(kEntryMagic, 4) || in_.number<uint16_t>() != kEntryVersion)
      return malformed("not an entry of this version");
    const auto framed = in_.number<uint8_t>();
    if (framed > 1) return malformed("its head");
    framed_ = framed == 1;
    if (framed_) {
      // Of a value stack the interpreter takes everything for granted.
      const portable::Digest digest = in_.digest();
      if (!in_.ok() || store::sha256(in_.rest()) != digest) return malformed("a snapshot of frames");
      if (!options_.trusted) return end(ReadOutcome::kChanged, "frames, from a file without a signature");
    }
    if (!table_.parse(in_)) return malformed("its objects");
    const auto positional = in_.number<uint32_t>();
    const auto names = in_.number<uint32_t>();
    const auto flags = in_.number<uint8_t>();
    const auto outer_kind = in_.number<uint8_t>();
    const GlobalState state = get_state(in_);
    std::optional<GlobalState> after;
    if (flags & kHasStateAfter) after = get_state(in_);
    if (!in_.ok() || !table_.is_valid(names)) return malformed("its head");
    if ((flags & kHasSnapshot) != 0 && !options_.may_break) return other_call("there may be no graph break");
    if (positional != call_.nargs) return other_call("number of positional arguments");
    if ((names == 0) != (call_.kwnames == nullptr)) return other_call("names of keyword arguments");
    Ref kwnames;
    if (names != 0) {
      kwnames = Ref::share(table_.obtain(names));
      if (!kwnames || !PyTuple_CheckExact(kwnames.get())) return malformed("names of keyword arguments");
      const int same = PyObject_RichCompareBool(kwnames.get(), call_.kwnames, Py_EQ);
      if (same != 1) return PyErr_Clear(), other_call("names of keyword arguments");
    }
    below_autograd_ = (flags & kBelowAutograd) != 0;
    const bool any_limit = (flags & kAnyHigherRecursionLimit) != 0;
    if (!state.holds(call_.now, any_limit)) return other_call("global state: " + state.changes(call_.now));
    if ((flags & kHasOuterKind) != 0 && outer_kind != call_.outer.kind())
      return other_call("whether an exception is being handled");
    if (!read_position() || !guards_.read(in_) || !read_graph() || !read_numbers()) return nullptr;
    RecipeReader recipes(in_, table_, tree_, *graph_, steps_.size(), framed_);
    if (!recipes.read()) return table_.why().empty() ? malformed("its recipes") : changed();
    if ((flags & kHasSnapshot) != 0) {
      const auto reached = [&](NodeId node) -> const Reached& { return guards_.reached(node); };
      snapshot_ = read_frames(
          in_, {recipes, GuardAccess::values(tree_), [&](NodeId node) { return reached(node).function; },
                [&](NodeId node) { return reached(node).fixed; }, call_.frames});
      if (!framed_ || snapshot_ == nullptr)
        return table_.why().empty() ? malformed("its snapshot") : changed();
    }
    if (!read_answers() || !read_codes()) return nullptr;
    if (((flags & kHasTrace) != 0) != static_cast<bool>(options_.compiler)) return malformed("its backend");
    if (options_.compiler &&
        (trace_ = read_trace(in_, table_, GuardAccess::values(tree_), *graph_)) == nullptr)
      return malformed("its calls");
    if (!in_.ok() || in_.left() != 0) return malformed("its end");
    for (NodeId i = 0; i < static_cast<NodeId>(tree_.size()); ++i) {
      if (recipes.needs_fixed(i) && !guards_.reached(i).fixed)
        return malformed("an object of unguarded type is written to");
    }
    return finish(state, after, positional, std::move(kwnames), any_limit,
                  (flags & kHasOuterKind) != 0 ? std::optional<uint8_t>(outer_kind) : std::nullopt, recipes);
  }

  bool is_below_autograd() const { return below_autograd_; }

  const ReadVerdict& verdict() const { return verdict_; }

 private:
  std::nullptr_t end(ReadOutcome how, std::string text) { return verdict_.end(how, std::move(text)); }
  std::nullptr_t malformed(const char* what) { return end(ReadOutcome::kMalformed, what); }
  std::nullptr_t other_call(std::string what) { return end(ReadOutcome::kOtherCall, std::move(what)); }
  std::nullptr_t changed() { return end(ReadOutcome::kChanged, table_.why()); }
  bool bad(const char* what) { return malformed(what) != nullptr; }
  PyObject* object(ValueRef ref, const char* what) { return verdict_.object(table_, ref, what); }

  // The frames at hand are those of the position, or the record would have another name.
  bool read_position() {
    const size_t frames = call_.frames == nullptr ? 0 : call_.frames->size();
    if (in_.number<uint32_t>() != frames || !in_.ok()) return bad("its position");
    for (size_t i = 0; i < frames; ++i) {
      if (!table_.take(in_.number<uint32_t>(), reinterpret_cast<PyObject*>((*call_.frames)[i].code)))
        return table_.why().empty() ? bad("its position") : changed() != nullptr;
    }
    return frames == 0 || framed_ || bad("its position");
  }

  bool read_graph() {
    const std::string_view text = in_.take(in_.number<uint32_t>());
    if (!in_.ok()) return bad("the graph");
    ir::ParseResult parsed = ir::parse(text);
    if (!parsed.graph) return bad("the graph's text");
    graph_ = std::make_unique<ir::Graph>(std::move(*parsed.graph));
    for (const ir::Op& op : graph_->ops) {
      if (!is_portable_operator(op.name)) return bad("an operator that is not kept");
      if (ir::find_schema(op) == nullptr) return bad("an operator that does not exist");
    }
    return ir::verify(*graph_).empty() || bad("the graph");
  }

  bool read_operand(ScalarOperand& operand, size_t steps) {
    const auto kind = in_.number<uint8_t>();
    operand.index = in_.number<int32_t>();
    const auto constant = in_.number<uint32_t>();
    if (!in_.ok() || operand.index < 0) return bad("a number");
    operand.kind = static_cast<ScalarOperand::Kind>(kind);
    switch (operand.kind) {
      case ScalarOperand::Kind::kConstant: {
        PyObject* value = object(constant, "a number");
        if (value == nullptr) return false;
        operand.constant = Ref::share(value);
        return is_primitive(value) || bad("a number");
      }
      case ScalarOperand::Kind::kNode:
        return is_scalar_node(operand.index) || bad("a number's source");
      case ScalarOperand::Kind::kStep:
        return static_cast<size_t>(operand.index) < steps || bad("a number's source");
      case ScalarOperand::Kind::kLate:
        break;
    }
    return bad("a number");
  }
  bool is_scalar_node(int32_t node) const {
    return static_cast<size_t>(node) < tree_.size() && guards_.reached(node).fixed &&
           is_primitive(GuardAccess::values(tree_)[static_cast<size_t>(node)]);
  }

  bool read_numbers() {
    const auto steps = in_.number<uint32_t>();
    if (!in_.ok() || steps > in_.left()) return bad("the numbers");
    for (uint32_t i = 0; i < steps; ++i) {
      if (!read_step()) return false;
    }
    const auto inputs = in_.number<uint32_t>();
    if (!in_.ok() || inputs > in_.left()) return bad("the numbers");
    numbers_.resize(inputs);
    for (NumberInput& input : numbers_) {
      input.is_float = in_.number<uint8_t>() != 0;
      if (!read_operand(input.from, steps_.size())) return false;
    }
    const auto pinned = in_.number<uint32_t>();
    if (!in_.ok() || pinned > in_.left()) return bad("the numbers");
    for (uint32_t i = 0; i < pinned; ++i) {
      const auto argument = in_.number<int32_t>();
      PyObject* value = object(in_.number<uint32_t>(), "a number");
      if (value == nullptr) return false;
      if (argument < 0 || static_cast<size_t>(argument) >= call_.count() || !is_primitive(value))
        return bad("a number");
      pinned_.emplace_back(argument, Ref::share(value));
    }
    for (auto* nodes : {&tensors_, &mutated_}) {
      const auto count = in_.number<uint32_t>();
      if (!in_.ok() || count > in_.left()) return bad("the tensors");
      for (uint32_t i = 0; i < count; ++i) {
        const auto node = in_.number<int32_t>();
        if (!is_tensor_node(node)) return bad("the tensors");
        nodes->push_back(node);
      }
    }
    // Which tensors it writes to follows from the graph.
    std::vector<NodeId> written;
    for (const ir::ValueId value : graph_->mutated_inputs()) {
      for (const ir::Input& input : graph_->inputs) {
        if (input.value == value) written.push_back(input.source);
      }
    }
    if (written != mutated_) return bad("the tensors that are written to");
    for (const ir::Input& input : graph_->inputs) {
      const bool tensor = graph_->values[static_cast<size_t>(input.value)].kind == ir::ValueKind::kTensor;
      const bool good = tensor ? is_tensor_node(input.source)
                               : input.source >= 0 && static_cast<size_t>(input.source) < numbers_.size();
      if (!good) return bad("the graph's inputs");
    }
    return true;
  }
  bool is_tensor_node(int32_t node) const {
    return node >= 0 && static_cast<size_t>(node) < tree_.size() && guards_.reached(node).tensor;
  }

  bool read_step() {
    const auto kind = in_.number<uint8_t>();
    const auto detail = in_.number<int32_t>();
    const bool expected = in_.number<uint8_t>() != 0;
    const auto callable = in_.number<uint32_t>();
    PyObject* type = object(in_.number<uint32_t>(), "the type of a number");
    const auto count = in_.number<uint32_t>();
    if (type == nullptr) return false;
    if (!in_.ok() || kind > static_cast<uint8_t>(ScalarStep::Kind::kTruth) || count > in_.left() ||
        !PyType_Check(type) || is_heap(reinterpret_cast<PyTypeObject*>(type)))
      return bad("a step");
    ScalarStep step{static_cast<ScalarStep::Kind>(kind)};
    step.detail = detail;
    step.expected = expected;
    step.type = reinterpret_cast<PyTypeObject*>(type);
    step.operands.resize(count);
    for (ScalarOperand& operand : step.operands) {
      if (!read_operand(operand, steps_.size())) return false;
    }
    const auto operands = [&](uint32_t least, uint32_t most) { return count >= least && count <= most; };
    bool good = false;
    switch (step.kind) {
      case ScalarStep::Kind::kBinary:
        good = operands(2, 2) && detail >= 0 && detail <= NB_INPLACE_XOR;
        break;
      case ScalarStep::Kind::kUnary:
        good = operands(1, 1) && detail >= 0 && detail < kUnaryOperators;
        break;
      case ScalarStep::Kind::kFormat:
        good = operands(1, 2) && detail >= 0 && detail < 8;
        break;
      case ScalarStep::Kind::kJoin:
        good = std::all_of(step.operands.begin(), step.operands.end(),
                           [&](const ScalarOperand& o) { return is_text(o); });
        break;
      case ScalarStep::Kind::kCompare:
        good = operands(2, 2) && detail >= Py_LT && detail <= Py_GE;
        break;
      case ScalarStep::Kind::kTruth:
        good = operands(1, 1);
        break;
      case ScalarStep::Kind::kCall: {
        PyObject* f = object(callable, "the function of a step");
        if (f == nullptr) return false;
        step.callable = Ref::share(f);
        good = PyType_Check(f) ? !is_heap(reinterpret_cast<PyTypeObject*>(f)) &&
                                     rules().type(reinterpret_cast<PyTypeObject*>(f)).rule != Rule::kNone
                               : PyCFunction_Check(f) || Py_IS_TYPE(f, &PyMethodDescr_Type);
        good = good && (detail == 0 || detail == 1);
        break;
      }
    }
    if (!good) return bad("a step");
    steps_.push_back(std::move(step));
    return true;
  }
  bool is_text(const ScalarOperand& o) const {
    switch (o.kind) {
      case ScalarOperand::Kind::kConstant:
        return PyUnicode_CheckExact(o.constant.get());
      case ScalarOperand::Kind::kNode:
        return PyUnicode_CheckExact(GuardAccess::values(tree_)[static_cast<size_t>(o.index)]);
      case ScalarOperand::Kind::kStep:
        return steps_[static_cast<size_t>(o.index)].type == &PyUnicode_Type;
      case ScalarOperand::Kind::kLate:
        break;
    }
    return false;
  }

  // The classes answer as they would answer the program.
  bool read_answers() {
    const auto count = in_.number<uint32_t>();
    if (!in_.ok() || count > in_.left()) return bad("questions to classes");
    asked_ = count != 0;
    for (uint32_t i = 0; i < count; ++i) {
      PyObject* abstract = object(in_.number<uint32_t>(), "an abstract class");
      if (abstract == nullptr) return false;
      PyObject* asked = object(in_.number<uint32_t>(), "a class");
      if (asked == nullptr) return false;
      const bool recorded = in_.number<uint8_t>() != 0;
      if (!in_.ok() || !PyType_Check(abstract) || !PyType_Check(asked)) return bad("questions to classes");
      const int answer = PyObject_IsSubclass(asked, abstract);
      if (answer < 0) PyErr_Clear();
      if (answer != (recorded ? 1 : 0))
        return other_call(std::string("is ") + reinterpret_cast<PyTypeObject*>(asked)->tp_name + " a " +
                          reinterpret_cast<PyTypeObject*>(abstract)->tp_name) != nullptr;
    }
    return true;
  }

  bool read_special_methods() {
    const auto count = in_.number<uint32_t>();
    if (!in_.ok() || count > in_.left()) return bad("special methods");
    for (uint32_t i = 0; i < count; ++i) {
      PyObject* type = object(in_.number<uint32_t>(), "a class");
      if (type == nullptr) return false;
      PyObject* name = object(in_.number<uint32_t>(), "a name");
      if (name == nullptr) return false;
      const auto function = in_.number<uint32_t>();
      if (!in_.ok() || !PyType_Check(type) || !PyUnicode_CheckExact(name) ||
          !table_.is_kind(function, portable::ValueKind::kFunction))
        return bad("special methods");
      PyObject* dict = reinterpret_cast<PyTypeObject*>(type)->tp_dict;
      PyObject* found = dict == nullptr ? nullptr : PyDict_GetItemWithError(dict, name);
      if (found != nullptr) found = function_of_method(found);
      if (found == nullptr || !table_.take(function, found))
        return end(ReadOutcome::kChanged, std::string(reinterpret_cast<PyTypeObject*>(type)->tp_name) +
                                              ": a special method is another one") != nullptr;
    }
    return true;
  }

  bool read_codes() {
    if (!read_special_methods()) return false;
    const auto count = in_.number<uint32_t>();
    if (!in_.ok() || count > kMaxNamedFunctions) return bad("functions by name");
    for (uint32_t i = 0; i < count; ++i) {
      const std::string module(in_.take(in_.number<uint32_t>()));
      const std::string path(in_.take(in_.number<uint32_t>()));
      const portable::Digest recorded = in_.digest();
      if (!in_.ok()) return bad("functions by name");
      PyObject* function = portable::find_by_name(module, path);
      portable::Digest digest;
      const bool same = function != nullptr && PyFunction_Check(function) &&
                        portable::fingerprint_code(PyFunction_GET_CODE(function), &digest) &&
                        digest == recorded;
      if (!same) return end(ReadOutcome::kChanged, module + "." + path + ": is another function") != nullptr;
    }
    return true;
  }

  std::shared_ptr<Entry> finish(const GlobalState& state, const std::optional<GlobalState>& after,
                                size_t positional, Ref kwnames, bool any_limit,
                                std::optional<uint8_t> outer_kind, RecipeReader& recipes) {
    Ref compiled = Ref::share(Py_None);
    if (options_.compiler && !graph_->nodes.empty()) {
      compiled = compile(state, positional, kwnames.get());
      if (!compiled) return nullptr;
    }
    std::unique_ptr<GraphProgram> program = make_program(compiled.get());
    GuardAccess::forget_values(tree_);
    auto entry = std::make_shared<Entry>(std::move(tree_), state, std::move(graph_), std::move(program),
                                         std::move(recipes.made), std::move(recipes.effects),
                                         std::move(recipes.result));
    entry->positional = positional;
    entry->kwnames = std::move(kwnames);
    entry->any_higher_recursion_limit = any_limit;
    entry->state_after = after;
    entry->outer_kind = outer_kind;
    entry->function = call_.function;
    entry->suspension = std::move(snapshot_);
    if (asked_) entry->abc_token = abc_token();
    entry->scalar_steps = std::move(steps_);
    entry->numbers = std::move(numbers_);
    entry->pinned = std::move(pinned_);
    entry->histories = std::move(recipes.histories);
    entry->distinct_tensors = below_autograd_;
    entry->tensor_nodes = std::move(tensors_);
    entry->mutated_nodes = std::move(mutated_);
    if (compiled.get() != Py_None) entry->backend_callable = std::move(compiled);
    entry->finish();
    return entry;
  }

  // What the Python backend makes of the graph; null with an outcome.
  Ref compile(const GlobalState& state, size_t positional, PyObject* kwnames) {
    std::vector<Ref> scalars;
    if (run_scalars(steps_, GuardAccess::values(tree_), scalars) != ScalarOutcome::kDone) {
      other_call("a decision by a number");
      return Ref();
    }
    const auto number = [&](int32_t source) {
      const ScalarOperand& from = numbers_[static_cast<size_t>(source)].from;
      const auto index = static_cast<size_t>(from.index);
      return from.kind == ScalarOperand::Kind::kConstant ? from.constant.get()
             : from.kind == ScalarOperand::Kind::kNode   ? GuardAccess::values(tree_)[index]
                                                         : scalars[index].get();
    };
    for (const ir::Input& input : graph_->inputs) {
      if (graph_->values[static_cast<size_t>(input.value)].kind == ir::ValueKind::kTensor) continue;
      if (!PyLong_CheckExact(number(input.source)) && !PyFloat_CheckExact(number(input.source))) {
        malformed("a number");
        return Ref();
      }
    }
    const auto object = [&](NodeId node) { return GuardAccess::values(tree_)[static_cast<size_t>(node)]; };
    const RecordedGraph recorded{*graph_, tree_, *trace_, {}, numbers_, object, number};
    const RecordedCall call{call_.function, call_.count() == 0 ? nullptr : call_.args[0], positional,
                            kwnames};
    const DisarmedScope disarmed;
    Ref compiled = compile_graph(options_.compiler.get(), recorded, call, state, state);
    if (!compiled) end(ReadOutcome::kRaised, "its backend raised");
    return compiled;
  }

  std::unique_ptr<GraphProgram> make_program(PyObject* compiled) const {
    if (!options_.compiler && options_.backend == Backend::kNative) {
      native::ScheduleOptions program_options;
      program_options.poison_empty = options_.poison_empty;
      return native::compile(*graph_, program_options);
    }
    const auto replay = [&] {
      eager::Options program_options;
      program_options.poison_empty = options_.poison_empty;
      return eager::compile_later(*graph_, program_options);
    };
    if (compiled == Py_None) return replay();
    return fx::make_program(*graph_, compiled, fx::compiles_later(compiled) ? replay() : nullptr);
  }

  store::Reader in_;
  const StoredCall& call_;
  const ReadOptions& options_;
  Table table_;
  ReadVerdict verdict_;
  GuardTree tree_;
  GuardReader guards_{call_, table_, tree_, verdict_};
  bool framed_ = false;
  bool below_autograd_ = false;
  bool asked_ = false;  // abstract base classes
  std::unique_ptr<Suspension> snapshot_;
  std::unique_ptr<ir::Graph> graph_;
  std::vector<ScalarStep> steps_;
  std::vector<NumberInput> numbers_;
  std::vector<std::pair<int32_t, Ref>> pinned_;
  std::vector<NodeId> tensors_, mutated_;
  std::unique_ptr<KeptTrace> trace_;  // for a Python backend
};

}  // namespace

ReadResult read_entry(std::string_view bytes, const StoredCall& call, const ReadOptions& options) {
  Reader reader(bytes, call, options);
  ReadResult result;
  try {
    result.entry = reader.read();
    result.outcome = reader.verdict().outcome;
    result.why = reader.verdict().why;
    result.below_autograd = reader.is_below_autograd();
  } catch (const std::exception& e) {  // no memory; an operator that cannot be compiled
    result = {nullptr, ReadOutcome::kMalformed, e.what()};
  }
  if (result.outcome == ReadOutcome::kRaised) return result;
  if (PyErr_Occurred() != nullptr) PyErr_Clear();  // the caller had none
  if (result.entry == nullptr && result.outcome == ReadOutcome::kRead)
    result.outcome = ReadOutcome::kMalformed;
  return result;
}

}  // namespace flashpoint
