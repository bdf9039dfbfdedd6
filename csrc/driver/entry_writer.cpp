#include "driver/entry_writer.h"

#include <algorithm>
#include <string_view>

#include "base/check.h"
#include "driver/entry_format.h"
#include "driver/position_key.h"
#include "driver/trace_format.h"
#include "guard/guard_access.h"
#include "ir/parser.h"
#include "ir/printer.h"
#include "portable/library_code.h"
#include "portable/parts.h"
#include "portable/table.h"
#include "py/layout.h"
#include "py/rebuilt_iterators.h"
#include "record/rules/rules.h"
#include "store/bytes.h"

namespace flashpoint {

namespace {

using portable::Table;
using portable::ValueRef;
using store::put_number;

constexpr const char* kStepNames[] = {
#define X(name, portable, text) #name,
#include "guard/steps.def"
#undef X
};
constexpr const char* kCheckNames[] = {
#define X(name, tagged, operands, text) #name,
#include "guard/checks.def"
#undef X
};

constexpr bool kPortable[] = {
#define X(name, portable, text) portable != 0,
#include "guard/steps.def"
#undef X
};
constexpr CheckOperands kOperands[] = {
#define X(name, tagged, operands, text) CheckOperands::k##operands,
#include "guard/checks.def"
#undef X
};

void put_state(std::string& out, const GlobalState& s) {
  const uint8_t flags = static_cast<uint8_t>((s.grad_mode ? 1 : 0) | (s.inference_mode ? 2 : 0) |
                                             (s.torch_function_enabled ? 4 : 0) | (s.autocast_cache ? 8 : 0) |
                                             (s.anomaly_mode ? 16 : 0));
  put_number(out, flags);
  put_number<int32_t>(out, s.recursion_limit);
  put_number<int32_t>(out, s.autocast_nesting);
  put_number<int16_t>(out, s.default_dtype);
  put_number<int16_t>(out, s.autocast_dtype_cpu);
  put_number<int16_t>(out, s.autocast_dtype_cuda);
  put_number<uint64_t>(out, s.tls_included);
  put_number<uint64_t>(out, s.tls_excluded);
  put_number<uint64_t>(out, s.flags);
}

void put_meta(std::string& out, const TensorMeta& m) {
  put_number<uint64_t>(out, m.key_set);
  for (const int16_t number : {m.dtype, m.device_type, m.device_index, m.layout})
    put_number<int16_t>(out, number);
  put_number<uint8_t>(
      out, static_cast<uint8_t>((m.requires_grad ? 1 : 0) | (m.is_leaf ? 2 : 0) | (m.is_inference ? 4 : 0)));
  for (const auto* list : {&m.sizes, &m.strides}) {
    put_number<uint32_t>(out, static_cast<uint32_t>(list->size()));
    for (const int64_t number : *list) put_number<int64_t>(out, number);
  }
}

void put_text(std::string& out, const std::string& text) {
  put_number<uint32_t>(out, static_cast<uint32_t>(text.size()));
  out += text;
}

class Writer {
 public:
  Writer(Entry& entry, std::string_view position)
      : entry_(entry), position_(position), table_(entry.function) {}

  std::string write(std::string* reason) {
    if (!write_all()) {
      *reason = !why_.empty() ? why_ : table_.failure();
      return {};
    }
    std::string content;
    table_.write(content);
    content += body_;
    std::string out(kEntryMagic, 4);
    put_number<uint16_t>(out, kEntryVersion);
    put_number<uint8_t>(out, is_framed());
    if (is_framed()) store::put_digest(out, store::sha256(content));
    return out + content;
  }

 private:
  bool local(std::string why) {
    if (why_.empty()) why_ = std::move(why);
    return false;
  }

  bool write_all() {
    if (entry_.process_local != nullptr) return local(entry_.process_local);
    FP_CHECK((entry_.function == nullptr) == !position_.empty(), "an entry of another position");
    if (entry_.backend_callable && !entry_.trace) return local("a Python backend compiled it");
    if (entry_.abc_token != 0 && entry_.abc_token != abc_token())
      return local("classes were registered with abstract base classes since");
    put_number<uint32_t>(body_, static_cast<uint32_t>(entry_.positional));
    if (!put_value(entry_.kwnames.get())) return false;
    put_number<uint8_t>(
        body_, static_cast<uint8_t>(
                   (entry_.any_higher_recursion_limit ? kAnyHigherRecursionLimit : 0) |
                   (entry_.state_after ? kHasStateAfter : 0) | (entry_.outer_kind ? kHasOuterKind : 0) |
                   (entry_.suspension ? kHasSnapshot : 0) | (entry_.distinct_tensors ? kBelowAutograd : 0) |
                   (entry_.trace ? kHasTrace : 0)));
    put_number<uint8_t>(body_, entry_.outer_kind.value_or(0));
    if (!write_state(entry_.state()) || (entry_.state_after && !write_state(*entry_.state_after)))
      return false;
    return write_position() && write_guards() && write_graph() && write_numbers() && write_recipes() &&
           (!entry_.suspension || write_frames(*entry_.suspension)) && write_answers() && write_codes() &&
           write_calls();
  }

  bool is_framed() const { return !position_.empty() || entry_.suspension; }

  // The code of its frames is part of the position's name.
  bool write_position() {
    const std::vector<PositionFrame> frames =
        position_.empty() ? std::vector<PositionFrame>{} : frames_of_position(position_);
    put_number<uint32_t>(body_, static_cast<uint32_t>(frames.size()));
    for (const PositionFrame& frame : frames) {
      auto* code = reinterpret_cast<PyObject*>(frame.code);
      codes_.insert(code);
      if (!put_taken(code)) return false;
    }
    return true;
  }

  bool write_frames(const Suspension& plan) {
    put_number<int32_t>(body_, plan.common);
    put_number<uint32_t>(body_, static_cast<uint32_t>(plan.frames.size()));
    for (size_t i = 0; i < plan.frames.size(); ++i) {
      const FramePlan& frame = plan.frames[i];
      const FrameLink link = i == 0 ? FrameLink::kOpaque : frame.link;  // nothing is said of the outermost
      if (link != FrameLink::kOpaque && link != FrameLink::kResult && link != FrameLink::kInit)
        return local("a generator's frame at a graph break");
      put_number<int32_t>(body_, frame.position);
      put_number<uint8_t>(body_, static_cast<uint8_t>(frame.link));
      put_number<uint32_t>(body_, static_cast<uint32_t>(frame.slots.size()));
      if (!put_recipe(frame.function) || !put_recipe(frame.self)) return false;
      for (const RecipeValue& slot : frame.slots) {
        if (!put_recipe(slot, true)) return false;
      }
    }
    if (plan.handled.kind != RecipeValue::Kind::kKeep && plan.handled.kind != RecipeValue::Kind::kNull)
      return local("an exception that is being handled at a graph break");
    return put_recipe(plan.handled, true);
  }

  bool write_state(const GlobalState& state) {
    if (state.modes[0] != nullptr) return local("a torch-function mode was on");
    put_state(body_, state);
    return true;
  }

  // A value that the reader can have when it comes to it.
  bool put_value(PyObject* object) {
    if (object != nullptr && PyFrozenSet_CheckExact(object))
      return local("a set whose order differs between processes");
    const ValueRef ref = table_.add(object);
    if (object != nullptr && ref == 0) return local(table_.failure());
    if (!table_.is_obtainable(ref))
      return local(portable::name_of_value(table_.value(ref)) + " cannot be found by name");
    put_number<uint32_t>(body_, ref);
    return true;
  }
  bool put_taken(PyObject* object) {
    const ValueRef ref = table_.add(object);
    if (ref == 0) return local(table_.failure());
    if (!portable::has_identity(table_.value(ref).kind)) return local("a value that is told by its address");
    table_.mark_taken(ref);
    put_number<uint32_t>(body_, ref);
    return true;
  }

  // Objects that the recording came by and nothing refers to: they are left out.
  std::vector<bool> unused_constants(const GuardTree& tree) const {
    std::vector<bool> unused(tree.size());
    const auto use = [&](int32_t node) {
      if (node >= 0 && static_cast<size_t>(node) < unused.size()) unused[static_cast<size_t>(node)] = false;
    };
    for (size_t i = 0; i < tree.size(); ++i) {
      const auto id = static_cast<NodeId>(i);
      unused[i] = tree.node(id).step == Step::kConst;
      use(tree.node(id).parent);
      GuardAccess::for_each_check(tree, id, [&](const Check& check) {
        use(id);
        if (check.kind == CheckKind::kSameAs || check.kind == CheckKind::kNotSameAs) use(check.number);
      });
    }
    for (const NodeId node : EntryAccess::kept_nodes(entry_)) use(node);
    const auto use_operand = [&](const ScalarOperand& operand) {
      if (operand.kind == ScalarOperand::Kind::kNode) use(operand.index);
    };
    for (const ScalarStep& step : entry_.scalar_steps) {
      for (const ScalarOperand& operand : step.operands) use_operand(operand);
    }
    for (const NumberInput& input : entry_.numbers) use_operand(input.from);
    return unused;
  }

  bool write_guards() {
    const GuardTree& tree = entry_.guards();
    const std::vector<bool> unused = unused_constants(tree);
    put_number<uint32_t>(body_, static_cast<uint32_t>(tree.size()));
    for (size_t i = 0; i < tree.size(); ++i) {
      const auto id = static_cast<NodeId>(i);
      const Node& node = tree.node(id);
      if (!kPortable[static_cast<int>(node.step)])
        return local(std::string("a guard of kind ") + kStepNames[static_cast<int>(node.step)]);
      put_number<uint8_t>(body_, static_cast<uint8_t>(node.step));
      put_number<int32_t>(body_, node.parent);
      put_number<int32_t>(body_, node.index);
      if (!put_value(unused[i] ? Py_None : node.key.get())) return local_at(tree, id);
      const size_t count_at = body_.size();
      uint32_t count = 0;
      put_number<uint32_t>(body_, 0);
      bool good = true;
      GuardAccess::for_each_check(tree, id, [&](const Check& check) {
        good = good && write_check(tree, check);
        ++count;
      });
      if (!good) return local_at(tree, id);
      std::string bytes;
      put_number(bytes, count);
      body_.replace(count_at, bytes.size(), bytes);
    }
    return true;
  }

  bool local_at(const GuardTree& tree, NodeId id) {
    why_ = tree.path(id) + ": " + (why_.empty() ? table_.failure() : why_);
    return false;
  }

  bool write_check(const GuardTree& tree, const Check& check) {
    const CheckOperands operands = kOperands[static_cast<int>(check.kind)];
    if (operands == CheckOperands::kLocal)
      return local(std::string("a guard of kind ") + kCheckNames[static_cast<int>(check.kind)]);
    put_number<uint8_t>(body_, static_cast<uint8_t>(check.kind));
    const bool counts = operands == CheckOperands::kTensor || operands == CheckOperands::kPlainCall;
    if (operands == CheckOperands::kFunction) return write_function_state(check.operand.get());
    put_number<int32_t>(body_, counts ? 0 : check.number);
    if (operands == CheckOperands::kClass) {
      put_number<uint32_t>(body_, 0);
      put_number<uint32_t>(body_, 0);
      return true;
    }
    switch (operands) {
      case CheckOperands::kType:
      case CheckOperands::kItself:
        if (!put_taken(check.operand.get())) return false;
        break;
      default:
        if (!put_value(check.operand.get())) return false;
    }
    if (!put_value(check.second.get())) return false;
    if (operands == CheckOperands::kTensor) put_meta(body_, GuardAccess::meta(tree, check.number));
    return true;
  }

  // (code, number of defaults, has keyword defaults, globals)
  bool write_function_state(PyObject* state) {
    PyObject* has_keywords = PyTuple_GET_ITEM(state, 2);
    const auto defaults = static_cast<int32_t>(PyLong_AsLong(PyTuple_GET_ITEM(state, 1)));
    put_number<int32_t>(body_, defaults * 2 + (has_keywords == Py_True ? 1 : 0));
    PyObject* code = PyTuple_GET_ITEM(state, 0);
    codes_.insert(code);
    return put_taken(code) && put_taken(PyTuple_GET_ITEM(state, 3));
  }

  bool write_graph() {
    const ir::Graph& graph = entry_.graph();
    for (const ir::Op& op : graph.ops) {
      if (!is_portable_operator(op.name)) return local("the operator " + op.name);
    }
    const std::string text = ir::print(graph);
    if (strict_mode()) {
      const ir::ParseResult back = ir::parse(text);
      FP_CHECK(back.graph && *back.graph == graph, "a graph's text says something else");
    }
    put_number<uint32_t>(body_, static_cast<uint32_t>(text.size()));
    body_ += text;
    return true;
  }

  bool put_operand(const ScalarOperand& operand) {
    if (operand.kind == ScalarOperand::Kind::kLate) return local("a number that a tensor gave");
    put_number<uint8_t>(body_, static_cast<uint8_t>(operand.kind));
    put_number<int32_t>(body_, operand.index);
    return put_value(operand.constant.get());
  }

  bool write_numbers() {
    put_number<uint32_t>(body_, static_cast<uint32_t>(entry_.scalar_steps.size()));
    for (const ScalarStep& step : entry_.scalar_steps) {
      put_number<uint8_t>(body_, static_cast<uint8_t>(step.kind));
      put_number<int32_t>(body_, step.detail);
      put_number<uint8_t>(body_, step.expected);
      if (!put_value(step.callable.get()) || !put_value(reinterpret_cast<PyObject*>(step.type))) return false;
      put_number<uint32_t>(body_, static_cast<uint32_t>(step.operands.size()));
      for (const ScalarOperand& operand : step.operands) {
        if (!put_operand(operand)) return false;
      }
    }
    put_number<uint32_t>(body_, static_cast<uint32_t>(entry_.numbers.size()));
    for (const NumberInput& input : entry_.numbers) {
      put_number<uint8_t>(body_, input.is_float);
      if (!put_operand(input.from)) return false;
    }
    put_number<uint32_t>(body_, static_cast<uint32_t>(entry_.pinned.size()));
    for (const auto& [argument, value] : entry_.pinned) {
      put_number<int32_t>(body_, argument);
      if (!put_value(value.get())) return false;
    }
    for (const auto* nodes : {&entry_.tensor_nodes, &entry_.mutated_nodes}) {
      put_number<uint32_t>(body_, static_cast<uint32_t>(nodes->size()));
      for (const NodeId node : *nodes) put_number<int32_t>(body_, node);
    }
    return true;
  }

  // Constants of code are found through the code that was evaluated.
  bool put_constant(PyObject* object) {
    const bool nested = PyCode_Check(object) || PyFrozenSet_CheckExact(object) || PyTuple_CheckExact(object);
    if (!nested || (PyCode_Check(object) && codes_.contains(object))) return put_value(object);
    const ValueRef ref = find_constant(object, 0);
    if (ref == 0) return local("a constant of unknown code");
    put_number<uint32_t>(body_, ref);
    return true;
  }
  ValueRef find_constant(PyObject* object, int depth) {
    for (const auto& [code, nothing] : codes_) {
      if (const ValueRef found = find_in(table_.add(code), code, object, depth)) return found;
    }
    return 0;
  }
  ValueRef find_in(ValueRef parent, PyObject* code, PyObject* object, int depth) {
    PyObject* constants = reinterpret_cast<PyCodeObject*>(code)->co_consts;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(constants); ++i) {
      PyObject* constant = PyTuple_GET_ITEM(constants, i);
      if (constant == object) return table_.add_constant(parent, i, object);
      if (!PyCode_Check(constant) || depth > 16 || !holds(constant, object, depth + 1)) continue;
      return find_in(table_.add_constant(parent, i, constant), constant, object, depth + 1);
    }
    return 0;
  }
  static bool holds(PyObject* code, PyObject* object, int depth) {
    PyObject* constants = reinterpret_cast<PyCodeObject*>(code)->co_consts;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(constants); ++i) {
      PyObject* constant = PyTuple_GET_ITEM(constants, i);
      if (constant == object) return true;
      if (PyCode_Check(constant) && depth < 16 && holds(constant, object, depth + 1)) return true;
    }
    return false;
  }

  bool put_recipe(const RecipeValue& value, bool in_frame = false) {
    switch (value.kind) {
      case RecipeValue::Kind::kKeep:
        FP_CHECK(in_frame, "a dead slot outside of frames");
        break;
      case RecipeValue::Kind::kSaved:
      case RecipeValue::Kind::kHandled:
        return local("an exception that the caller is handling");
      default:
        break;
    }
    put_number<uint8_t>(body_, static_cast<uint8_t>(value.kind));
    put_number<int32_t>(body_, value.index);
    if (value.kind == RecipeValue::Kind::kConstant) return put_constant(value.constant.get());
    put_number<uint32_t>(body_, 0);
    return true;
  }
  bool put_recipes(const std::vector<RecipeValue>& values) {
    put_number<uint32_t>(body_, static_cast<uint32_t>(values.size()));
    return std::all_of(values.begin(), values.end(), [&](const RecipeValue& v) { return put_recipe(v); });
  }

  // Elements whose hashes are the same in every process.
  static bool has_fixed_hashes(const std::vector<RecipeValue>& items) {
    return std::all_of(items.begin(), items.end(), [](const RecipeValue& v) {
      return v.kind == RecipeValue::Kind::kConstant &&
             (PyLong_Check(v.constant.get()) || PyFloat_CheckExact(v.constant.get()));
    });
  }

  bool write_recipes() {
    std::vector<MadeObject>& recipes = EntryAccess::recipes(entry_);
    put_number<uint32_t>(body_, static_cast<uint32_t>(recipes.size()));
    for (const MadeObject& made : recipes) {
      if (!write_made(made)) return false;
    }
    std::vector<PlannedEffect>& effects = EntryAccess::effects(entry_);
    put_number<uint32_t>(body_, static_cast<uint32_t>(effects.size()));
    for (const PlannedEffect& effect : effects) {
      if (!write_effect(effect)) return false;
    }
    if (!put_recipe(EntryAccess::result(entry_))) return false;
    put_number<uint32_t>(body_, static_cast<uint32_t>(entry_.histories.size()));
    for (const SpentHistory& history : entry_.histories) {
      put_number<int32_t>(body_, history.output);
      put_text(body_, history.name);
    }
    return true;
  }

  bool write_made(const MadeObject& made) {
    uint8_t base = 0;
    switch (made.kind) {
      case MadeObject::Kind::kSet:
      case MadeObject::Kind::kFrozenSet:
        if (!has_fixed_hashes(made.items)) return local("a set whose order differs between processes");
        break;
      case MadeObject::Kind::kInstance:
        while (instance_bases()[base] != made.base && instance_bases()[base] != nullptr) ++base;
        if (instance_bases()[base] == nullptr) return local("an instance of a type of C code");
        break;
      case MadeObject::Kind::kList:
      case MadeObject::Kind::kTuple:
      case MadeObject::Kind::kStruct:
      case MadeObject::Kind::kDict:
      case MadeObject::Kind::kDefaultDict:
      case MadeObject::Kind::kSlice:
      case MadeObject::Kind::kMethod:
      case MadeObject::Kind::kDeque:
      case MadeObject::Kind::kCell:
      case MadeObject::Kind::kFunction:
      case MadeObject::Kind::kDictIterator:
      case MadeObject::Kind::kTensor:
        break;
      case MadeObject::Kind::kReduced:
        if (!is_framed()) return local("it returns or stores an iterator that it made");
        if (made.type) return local("an iterator over a set, whose order differs between processes");
        if (!py::makes_iterators(made.items[0].constant.get()))
          return local("an iterator, a partial function or a getter of C code that it made");
        break;
      case MadeObject::Kind::kBuiltinMethod:
        return local("a bound method of C code that it made");
      case MadeObject::Kind::kException:
      case MadeObject::Kind::kInferenceRegion:
      case MadeObject::Kind::kGenerator:
      case MadeObject::Kind::kTraceback:
        return local("an exception, a generator or a region that it made");
    }
    put_number<uint8_t>(body_, static_cast<uint8_t>(made.kind));
    put_number<uint8_t>(body_, base);
    if (!put_value(made.type.get()) || !put_recipes(made.items)) return false;
    for (const auto* list : {&made.attributes, &made.slots}) {
      put_number<uint32_t>(body_, static_cast<uint32_t>(list->size()));
      for (const auto& [name, value] : *list) {
        if (!put_value(name.get()) || !put_recipe(value)) return false;
      }
    }
    return true;
  }

  bool write_effect(const PlannedEffect& effect) {
    switch (effect.kind) {
      case EffectKind::kSetContents:
        if (!has_fixed_hashes(effect.items)) return local("a set whose order differs between processes");
        break;
      case EffectKind::kDictItem:
      case EffectKind::kDictContents:
      case EffectKind::kListContents:
      case EffectKind::kListAppend:
      case EffectKind::kListItem:
      case EffectKind::kCell:
      case EffectKind::kDequeContents:
      case EffectKind::kSlot:
      case EffectKind::kTypeAttr:
      case EffectKind::kTensorAttr:
      case EffectKind::kTensorGrad:
      case EffectKind::kIteratorSteps:
        break;
      case EffectKind::kContextVar:
        return local("it sets a context variable");
      case EffectKind::kCachedCall:
        return local("it asks a cache of functools");
      case EffectKind::kGenerator:
        return local("it runs a generator on");
    }
    put_number<uint8_t>(body_, static_cast<uint8_t>(effect.kind));
    put_number<int32_t>(body_, effect.owner);
    put_number<uint8_t>(body_, effect.moved);
    return put_value(effect.key.get()) && put_recipes(effect.items);
  }

  // What abstract base classes say now is what they said to the recording: nothing was registered since.
  bool write_answers() {
    put_number<uint32_t>(body_, static_cast<uint32_t>(entry_.class_questions.size()));
    for (const auto& [abstract, asked] : entry_.class_questions) {
      if (!put_value(abstract.get()) || !put_value(asked.get())) return false;
      const int answer = PyObject_IsSubclass(asked.get(), abstract.get());
      if (answer < 0) return PyErr_Clear(), local("an abstract base class that does not answer");
      put_number<uint8_t>(body_, answer != 0);
    }
    return true;
  }

  bool is_known(PyObject* code) const {
    return codes_.contains(code) || std::any_of(codes_.begin(), codes_.end(),
                                                [&](const auto& row) { return holds(row.key, code, 0); });
  }

  // Special methods that C code called: the guards lead to their classes only.
  bool write_special_methods() {
    struct Method {
      PyObject *type, *name, *function;
    };
    std::vector<Method> methods;
    std::vector<PyObject*> found;
    PyObject* tensor = portable::find_by_name("torch", "Tensor");
    for (const Ref& code : entry_.codes) {
      if (is_known(code.get())) continue;
      const size_t before = methods.size();
      const auto look = [&](PyObject* type) {
        // One wrapper's code may be that of many methods.
        PyObject *name, *value;
        PyObject* dict = reinterpret_cast<PyTypeObject*>(type)->tp_dict;
        for (Py_ssize_t at = 0; dict != nullptr && PyDict_Next(dict, &at, &name, &value);) {
          PyObject* function = function_of_method(value);
          if (function != nullptr && PyFunction_GET_CODE(function) == code.get() && is_special_name(name))
            methods.push_back({type, name, function});
        }
      };
      table_.for_each_class(look);
      // Of plain tensors only the metadata are told.
      if (methods.size() == before && tensor != nullptr && PyType_Check(tensor)) look(tensor);
      if (methods.size() != before) found.push_back(code.get());
    }
    for (PyObject* code : found) codes_.insert(code);
    put_number<uint32_t>(body_, static_cast<uint32_t>(methods.size()));
    for (const Method& method : methods) {
      if (!put_value(method.type) || !put_value(method.name) || !put_taken(method.function)) return false;
    }
    return true;
  }

  // Every code object that ran is one that the reader checks, part of one, or found again by name.
  bool write_codes() {
    std::string bytes;
    uint32_t count = 0;
    const auto learn = [&](PyObject* code) { codes_.insert(code); };
    table_.for_each_taken_code(learn);
    if (!write_special_methods()) return false;
    table_.for_each_taken_code(learn);  // what those methods wrap
    for (const Ref& code : entry_.codes) {
      if (is_known(code.get())) continue;
      std::string module, path;
      portable::Digest digest;
      if (portable::find_library_code(code.get(), &module, &path) && count < kMaxNamedFunctions &&
          portable::fingerprint_code(code.get(), &digest)) {
        put_text(bytes, module);
        put_text(bytes, path);
        store::put_digest(bytes, digest);
        ++count;
        continue;
      }
      const char* name = PyUnicode_AsUTF8(reinterpret_cast<PyCodeObject*>(code.get())->co_qualname);
      if (name == nullptr) PyErr_Clear();
      return local(std::string("no guard leads to the code of ") + (name == nullptr ? "?" : name));
    }
    put_number(body_, count);
    body_ += bytes;
    return true;
  }

  bool write_calls() {
    if (!entry_.trace) return true;
    write_trace(
        *entry_.trace, table_,
        [&](PyObject* code) { return codes_.contains(code) ? table_.add(code) : find_constant(code, 0); },
        body_);
    return true;
  }

  Entry& entry_;
  std::string_view position_;
  Table table_;
  std::string body_;
  std::string why_;
  FlatSet<PyObject*> codes_;  // that guards lead to
};

}  // namespace

std::string write_entry(Entry& entry, std::string_view position, std::string* reason) {
  return Writer(entry, position).write(reason);
}

}  // namespace flashpoint
