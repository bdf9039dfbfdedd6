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
#include "driver/recipe_reader.h"
#include "driver/trace_format.h"
#include "eval/thread_context.h"
#include "guard/guard_access.h"
#include "ir/parser.h"
#include "ir/schema.h"
#include "ir/verifier.h"
#include "portable/parts.h"
#include "portable/table.h"
#include "py/layout.h"
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

bool get_meta(store::Reader& in, TensorMeta& m) {
  m.key_set = in.number<uint64_t>();
  for (int16_t* number : {&m.dtype, &m.device_type, &m.device_index, &m.layout})
    *number = in.number<int16_t>();
  const auto flags = in.number<uint8_t>();
  m.requires_grad = (flags & 1) != 0;
  m.is_leaf = (flags & 2) != 0;
  m.is_inference = (flags & 4) != 0;
  for (auto* list : {&m.sizes, &m.strides}) {
    const auto size = in.number<uint32_t>();
    if (size > 1024) return false;
    for (uint32_t i = 0; i < size; ++i) list->push_back(in.number<int64_t>());
  }
  return in.ok() && m.dtype >= 0 && m.dtype < static_cast<int16_t>(c10::ScalarType::NumOptions);
}

// Instead of names: how the guard before a node makes sure that its type stays what it is now.
struct Reached {
  bool fixed = false;     // its type, or itself, is guarded
  bool tensor = false;    // it is a tensor of guarded metadata
  bool function = false;  // it is a function whose code is guarded
};

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
    if (!read_position() || !read_guards() || !read_graph() || !read_numbers()) return nullptr;
    RecipeReader recipes(in_, table_, tree_, *graph_, steps_.size(), framed_);
    if (!recipes.read()) return table_.why().empty() ? malformed("its recipes") : changed();
    if ((flags & kHasSnapshot) != 0) {
      const auto reached = [&](NodeId node) -> const Reached& { return reached_[static_cast<size_t>(node)]; };
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
    for (size_t i = 0; i < reached_.size(); ++i) {
      if (recipes.needs_fixed(static_cast<NodeId>(i)) && !reached_[i].fixed)
        return malformed("an object of unguarded type is written to");
    }
    return finish(state, after, positional, std::move(kwnames), any_limit,
                  (flags & kHasOuterKind) != 0 ? std::optional<uint8_t>(outer_kind) : std::nullopt, recipes);
  }

  bool is_below_autograd() const { return below_autograd_; }

  ReadOutcome outcome = ReadOutcome::kRead;
  std::string why;

 private:
  std::nullptr_t end(ReadOutcome how, std::string text) {
    if (outcome != ReadOutcome::kRead) return nullptr;
    outcome = how;
    why = std::move(text);
    return nullptr;
  }
  std::nullptr_t malformed(const char* what) { return end(ReadOutcome::kMalformed, what); }
  std::nullptr_t other_call(std::string what) { return end(ReadOutcome::kOtherCall, std::move(what)); }
  std::nullptr_t changed() { return end(ReadOutcome::kChanged, table_.why()); }
  bool bad(const char* what) { return malformed(what) != nullptr; }

  // Null with an outcome where there must be an object and is none.
  PyObject* object(ValueRef ref, const char* what) {
    if (ref == 0 || !table_.is_valid(ref)) return malformed(what), nullptr;
    PyObject* found = table_.obtain(ref);
    if (found == nullptr) changed();
    return found;
  }

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

  bool read_guards() {
    const auto count = in_.number<uint32_t>();
    if (!in_.ok() || count > kMaxEntryNodes || count > in_.left()) return bad("the number of guards");
    nargs_ = call_.nargs + (call_.kwnames == nullptr ? 0 : PyTuple_GET_SIZE(call_.kwnames));
    reached_.resize(count);
    for (uint32_t i = 0; i < count; ++i) {
      if (!read_node(static_cast<NodeId>(i))) return false;
    }
    return true;
  }

  bool read_node(NodeId id) {
    const auto step_number = in_.number<uint8_t>();
    const auto parent = in_.number<int32_t>();
    const auto index = in_.number<int32_t>();
    const auto key_ref = in_.number<uint32_t>();
    const auto checks = in_.number<uint32_t>();
    if (!in_.ok() || step_number >= kSteps || index < 0 || !table_.is_valid(key_ref)) return bad("a guard");
    const auto step = static_cast<Step>(step_number);
    const bool root = step == Step::kArg || step == Step::kConst || step == Step::kTypeRoot;
    if (root ? parent != kNoNode : parent < 0 || parent >= id) return bad("a guard's parent");
    PyObject* key = nullptr;
    if (key_ref != 0 && (key = object(key_ref, "a key")) == nullptr) return false;
    if (!root && GuardAccess::values(tree_)[parent] == nullptr) return bad("a guard's parent");
    if (!may_step(step, parent, key)) return bad("a guard that cannot be followed");
    if (step == Step::kDictValue) bind_operator(parent, key);
    GuardAccess::add_node(tree_, parent, step, key, index);
    PyObject* value = GuardAccess::reach_last(tree_, call_.args, nargs_);
    if (value == nullptr) return other_call(tree_.path(id) + ": not there") != nullptr;
    reached_[id].fixed = step == Step::kConst || step == Step::kTypeRoot || step == Step::kTypeOf;
    for (uint32_t c = 0; c < checks; ++c) {
      if (!read_check(id, value)) return false;
    }
    return true;
  }

  // The call would bind it when it came to read it.
  void bind_operator(NodeId dict, PyObject* name) const {
    const Node& node = tree_.node(dict);
    if (node.step != Step::kInstanceDict || !PyUnicode_CheckExact(name)) return;
    PyObject* holder = GuardAccess::values(tree_)[node.parent];
    if (holder != nullptr && rules().holds_operators(Py_TYPE(holder))) rules().bind_operator(holder, name);
  }

  // Steps that take their parent's type for granted need a guard that makes sure of it.
  bool may_step(Step step, NodeId parent, PyObject* key) const {
    PyObject* p = parent == kNoNode ? nullptr : GuardAccess::values(tree_)[parent];
    const bool fixed = parent != kNoNode && reached_[parent].fixed;
    switch (step) {
      case Step::kArg:
      case Step::kListItem:
      case Step::kTupleItem:
      case Step::kCellContents:
      case Step::kFuncClosure:
      case Step::kFuncDefault:
      case Step::kFuncKwDefaults:
      case Step::kFuncAnnotations:
      case Step::kFuncGlobals:
      case Step::kMethodFunc:
      case Step::kMethodSelf:
      case Step::kProxyDict:
      case Step::kTypeDict:
      case Step::kPropertyGet:
      case Step::kInstanceDict:
      case Step::kTypeOf:
      case Step::kWeakTarget:
      case Step::kContextValue:
        return key == nullptr;
      case Step::kConst:
        return key != nullptr;
      case Step::kTypeRoot:
        return key != nullptr && PyType_Check(key);
      case Step::kDictValue:
        return key != nullptr;
      case Step::kSlot:
        return key != nullptr && Py_IS_TYPE(key, &PyMemberDescr_Type);
      case Step::kTypeLookup:
        return fixed && PyType_Check(p) && key != nullptr && PyUnicode_CheckExact(key);
      case Step::kSuperLookup:
        return fixed && PyType_Check(p) && is_class_and_name(key);
      case Step::kDequeItem:
        return fixed && rules().is_deque(p) && !is_heap(Py_TYPE(p));
      case Step::kDescrFunc:
        return fixed &&
               (PyObject_TypeCheck(p, &PyStaticMethod_Type) || PyObject_TypeCheck(p, &PyClassMethod_Type));
      case Step::kPartialFunc:
      case Step::kPartialArgs:
      case Step::kPartialKeywords:
        return fixed && rules().is_partial(p);
      case Step::kIteratorSource:
        return key == nullptr;
      case Step::kTensorGrad:
        return key == nullptr && parent != kNoNode && reached_[parent].tensor;
      case Step::kGeneratorFunction:
      case Step::kGeneratorSlot:
      case Step::kTraceback:
      case Step::kThreadLocalDict:
        return false;
    }
    return false;
  }

  static bool is_class_and_name(PyObject* key) {
    return key != nullptr && PyTuple_CheckExact(key) && PyTuple_GET_SIZE(key) == 2 &&
           PyType_Check(PyTuple_GET_ITEM(key, 0)) && PyUnicode_CheckExact(PyTuple_GET_ITEM(key, 1));
  }

  bool read_check(NodeId id, PyObject* value) {
    const auto kind_number = in_.number<uint8_t>();
    auto number = in_.number<int32_t>();
    const auto first = in_.number<uint32_t>();
    const auto other = in_.number<uint32_t>();
    if (!in_.ok() || kind_number >= kCheckKinds || !table_.is_valid(first) || !table_.is_valid(other))
      return bad("a check");
    const auto kind = static_cast<CheckKind>(kind_number);
    Reached& reached = reached_[id];
    if (kind == CheckKind::kFuncState) return read_function_state(id, value, number, first, other);
    if (kind == CheckKind::kTypeIs || kind == CheckKind::kIs) {
      if (kind == CheckKind::kTypeIs && table_.is_another_class(first, Py_TYPE(value)))
        return other_call(tree_.path(id) + ": an object of another class") != nullptr;
      PyObject* what = kind == CheckKind::kIs ? value : reinterpret_cast<PyObject*>(Py_TYPE(value));
      if (!table_.take(first, what)) return table_.why().empty() ? bad("an object") : changed() != nullptr;
      reached.fixed = true;
      return add(id, kind, number, Ref::share(what), Ref(), value);
    }
    if (kind == CheckKind::kBases) {
      // The class was compared with its description, which names its bases.
      if (tree_.node(id).step != Step::kTypeRoot) return bad("the bases of no class");
      return add(id, kind, 0, py::bases_of(reinterpret_cast<PyTypeObject*>(value)), Ref(), value);
    }
    PyObject *operand = nullptr, *second = nullptr;
    if (first != 0 && (operand = object(first, "an operand")) == nullptr) return false;
    if (other != 0 && (second = object(other, "an operand")) == nullptr) return false;
    if (kind == CheckKind::kTensor) {
      TensorMeta meta;
      if (!get_meta(in_, meta)) return bad("a tensor's metadata");
      reached.tensor = true;
      number = GuardAccess::add_meta(tree_, std::move(meta));
    } else if (kind == CheckKind::kPlainCall) {
      number = GuardAccess::add_plain_call(tree_);
    } else if (!may_check(kind, id, value, number, operand, second)) {
      return bad("a check that cannot be made");
    }
    if (kind == CheckKind::kValue) reached.fixed = true;
    return add(id, kind, number, Ref::share(operand), Ref::share(second), value);
  }

  bool add(NodeId id, CheckKind kind, int32_t number, Ref operand, Ref second, PyObject* value) {
    if (GuardAccess::add(tree_, id, kind, number, std::move(operand), std::move(second), value)) return true;
    return other_call(tree_.path(id) + ": expected " + tree_.text_of(GuardAccess::last_check(tree_))) !=
           nullptr;
  }

  bool read_function_state(NodeId id, PyObject* value, int32_t number, ValueRef code, ValueRef globals) {
    if (!PyFunction_Check(value)) return other_call(tree_.path(id) + ": no function") != nullptr;
    auto* f = reinterpret_cast<PyFunctionObject*>(value);
    if (!table_.take(code, f->func_code) || !table_.take(globals, f->func_globals))
      return table_.why().empty() ? bad("a function") : changed() != nullptr;
    PyObject* builtins = PyDict_GetItemString(PyImport_GetModuleDict(), "builtins");
    if (builtins == nullptr || !PyModule_Check(builtins) || f->func_builtins != PyModule_GetDict(builtins))
      return other_call(tree_.path(id) + ": other builtins") != nullptr;
    const int32_t defaults = number / 2;
    Ref state = Ref::steal(Py_BuildValue("(OiOO)", f->func_code, defaults,
                                         number % 2 != 0 ? Py_True : Py_False, f->func_globals));
    if (!state || number < 0) return PyErr_Clear(), bad("a function");
    reached_[id].function = true;
    return add(id, CheckKind::kFuncState, 0, std::move(state), Ref(), value);
  }

  // Whether the check's C code may meet this object and these operands.
  bool may_check(CheckKind kind, NodeId id, PyObject* v, int32_t number, PyObject* operand,
                 PyObject* second) const {
    const bool fixed = reached_[id].fixed;
    const auto tuple = [&](Py_ssize_t size) {
      return operand != nullptr && PyTuple_CheckExact(operand) &&
             (size < 0 || PyTuple_GET_SIZE(operand) == size);
    };
    const auto text = [](PyObject* o) { return o != nullptr && PyUnicode_CheckExact(o); };
    const auto value = [](PyObject* o) { return o != nullptr && is_primitive(o); };
    switch (kind) {
      case CheckKind::kLen:
      case CheckKind::kNonEmpty:
        return !is_heap(Py_TYPE(v)) || PyList_Check(v) || PyTuple_Check(v) || PyAnySet_Check(v) ||
               PyDict_Check(v);
      case CheckKind::kCellEmpty:
      case CheckKind::kStorageOffset:
      case CheckKind::kDictLen:
      case CheckKind::kDictNonEmpty:
        return true;
      case CheckKind::kSameAs:
      case CheckKind::kNotSameAs:
        return number >= 0 && number < id;
      case CheckKind::kValue:
      case CheckKind::kCellValue:
        return value(operand);
      case CheckKind::kEquals:
        return operand != nullptr && (is_primitive(operand) || rules().is_value_type(Py_TYPE(operand)));
      case CheckKind::kListItemValue:
      case CheckKind::kTupleItemValue:
      case CheckKind::kDefaultValue:
        return number >= 0 && value(second);
      case CheckKind::kSetContains:
        return value(operand) && second != nullptr;
      case CheckKind::kSlotValue:
        return operand != nullptr && Py_IS_TYPE(operand, &PyMemberDescr_Type) && value(second);
      case CheckKind::kSetOrder:
      case CheckKind::kOrderedKeys:
      case CheckKind::kKeys:
        return tuple(-1);
      case CheckKind::kInstanceLacks:
        return text(operand);
      case CheckKind::kFunctionAttribute:
        return text(operand) && value(second);
      case CheckKind::kRangeIs:
      case CheckKind::kSliceIs:
        return tuple(3);
      case CheckKind::kIteratorAt:
        return tuple(-1);
      case CheckKind::kNoGrad:
      case CheckKind::kNoHooks:
        return reached_[id].tensor;
      case CheckKind::kDequeBound:
        return fixed && rules().is_deque(v) && !is_heap(Py_TYPE(v)) && value(operand);
      case CheckKind::kGetterIs:
        return fixed && rules().is_getter(v) && tuple(-1);
      case CheckKind::kKeyAbsent:
      case CheckKind::kKeyPresent:
        return operand != nullptr;
      case CheckKind::kItemValue:
        return operand != nullptr && value(second);
      case CheckKind::kLookupValue:
        return fixed && PyType_Check(v) && text(operand) && value(second);
      case CheckKind::kLookupAbsent:
        return fixed && PyType_Check(v) && text(operand);
      case CheckKind::kSuperAbsent:
        return fixed && PyType_Check(v) && is_class_and_name(operand);
      default:
        return false;
    }
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
    return static_cast<size_t>(node) < reached_.size() && reached_[static_cast<size_t>(node)].fixed &&
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
      if (argument < 0 || static_cast<size_t>(argument) >= nargs_ || !is_primitive(value))
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
    return node >= 0 && static_cast<size_t>(node) < reached_.size() &&
           reached_[static_cast<size_t>(node)].tensor;
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
    const RecordedCall call{call_.function, nargs_ == 0 ? nullptr : call_.args[0], positional, kwnames};
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
  size_t nargs_ = 0;
  bool framed_ = false;
  bool below_autograd_ = false;
  bool asked_ = false;  // abstract base classes
  std::unique_ptr<Suspension> snapshot_;
  GuardTree tree_;
  std::vector<Reached> reached_;
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
    result.outcome = reader.outcome;
    result.why = std::move(reader.why);
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
