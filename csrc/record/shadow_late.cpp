// Numbers that the program reads from tensors: values of the graph, and so is arithmetic on them.
//
// They cannot be guarded, as nothing is known of them when an entry begins. So what is not followed (a
// comparison, a size, a container) ends the recording before it. In torch's optimizers, and where no break
// may be, a run is expected to compare as the recording did. In code of the program that is wanted only where
// the setting capture_scalar_outputs says so; torch's optimizers read their step counters this way.
#include <opcode.h>

#include <string_view>

#include "py/frame.h"
#include "py/torch_bridge.h"
#include "record/recorder.h"
#include "record/rules/rules.h"
#include "record/shadow.h"

namespace flashpoint {

namespace {

const char* binary_operation(int detail) {
  switch (detail) {
    case NB_ADD:
    case NB_INPLACE_ADD:
      return "add";
    case NB_SUBTRACT:
    case NB_INPLACE_SUBTRACT:
      return "sub";
    case NB_MULTIPLY:
    case NB_INPLACE_MULTIPLY:
      return "mul";
    case NB_TRUE_DIVIDE:
    case NB_INPLACE_TRUE_DIVIDE:
      return "div";
    case NB_FLOOR_DIVIDE:
    case NB_INPLACE_FLOOR_DIVIDE:
      return "floordiv";
    case NB_REMAINDER:
    case NB_INPLACE_REMAINDER:
      return "mod";
    case NB_POWER:
    case NB_INPLACE_POWER:
      return "pow";
    default:
      return nullptr;
  }
}

const char* called_operation(PyObject* callable) {
  if (callable == reinterpret_cast<PyObject*>(&PyFloat_Type)) return "float";
  if (callable == reinterpret_cast<PyObject*>(&PyLong_Type)) return "int";
  if (!PyCFunction_Check(callable)) return nullptr;
  const std::string_view name = reinterpret_cast<PyCFunctionObject*>(callable)->m_ml->ml_name;
  const PyObject* module = PyCFunction_GET_SELF(callable);
  const char* from =
      module != nullptr && PyModule_Check(module) ? PyModule_GetName(const_cast<PyObject*>(module)) : nullptr;
  if (from == nullptr) return nullptr;
  if (name == "abs" && std::string_view(from) == "builtins") return "abs";
  if (name == "sqrt" && std::string_view(from) == "math") return "sqrt";
  return nullptr;
}

// min and max hand back one of their operands: which one is a decision.
bool is_extremum(const ScalarStep& step) {
  if (step.kind != ScalarStep::Kind::kCall || !PyCFunction_Check(step.callable.get())) return false;
  const std::string_view name = reinterpret_cast<PyCFunctionObject*>(step.callable.get())->m_ml->ml_name;
  return name == "min" || name == "max";
}

const char* decision_of(const ScalarStep& step) {
  static const char* const kComparisons[] = {"lt", "le", "eq", "ne", "gt", "ge"};  // Py_LT ...
  if (step.kind == ScalarStep::Kind::kCompare) return kComparisons[step.detail];
  if (!is_extremum(step)) return nullptr;
  const std::string_view name = reinterpret_cast<PyCFunctionObject*>(step.callable.get())->m_ml->ml_name;
  return name == "min" ? "lt" : "gt";  // of the second operand and the first
}

// What the step is called in the graph; null for what has no node.
const char* operation_of(const ScalarStep& step) {
  switch (step.kind) {
    case ScalarStep::Kind::kBinary:
      return binary_operation(step.detail);
    case ScalarStep::Kind::kUnary:
      return step.detail == UNARY_NEGATIVE ? "neg" : nullptr;
    case ScalarStep::Kind::kCall:
      return called_operation(step.callable.get());
    default:
      return nullptr;
  }
}

bool fits(PyObject* number) {
  if (PyFloat_CheckExact(number)) return true;
  if (!PyLong_CheckExact(number)) return false;
  int overflow = 0;
  PyLong_AsLongLongAndOverflow(number, &overflow);
  return overflow == 0;
}

}  // namespace

// int() of a tensor of floats would be a conversion that may raise.
bool Shadow::may_follow_item(PyObject* tensor, bool to_float) const {
  if (exports_graph || !is_plain_tensor(tensor) || function_mode_answers()) return false;
  const EvalFrame* frame = recorder_.innermost();
  if (!captures_scalars && !rules().computes_otherwise(frame)) return false;
  // Only frames whose slots have tags.
  if (frame->tags_of != recorder_.serial) return false;
  const at::Tensor& read = unpack_tensor(tensor);
  if (to_float && !read.is_floating_point()) return false;
  return recorder_.graph().may_note_item(read);
}

void Shadow::add_late(ir::ValueId value, PyObject* number) {
  if (value >= 0) late_ = table_.add_late(value, number);
}

bool Shadow::is_late(const std::vector<Tag>& tags) const {
  for (const Tag tag : tags) {
    if (table_.is_late(tag)) return true;
  }
  return false;
}

bool Shadow::computes_late(const ScalarStep& step) const {
  if (operation_of(step) != nullptr) return true;
  // The outcome is expected of each run; elsewhere a break serves all values.
  return decision_of(step) != nullptr && (settles_late || rules().computes_otherwise(recorder_.innermost()));
}

// Called once the operation has run.
Tag Shadow::compute_late(PyObject* result) {
  if (result == nullptr) return 0;
  const char* const decision = decision_of(step_);
  // Some hand back their operand.
  for (size_t i = 0; decision == nullptr && i < step_values_.size(); ++i) {
    if (step_values_[i] == result && PyFloat_CheckExact(result) && table_.is_late(step_tags_[i]))
      return table_.resolve(step_tags_[i]);
  }
  const auto give_up = [&] {
    for (const Tag tag : step_tags_) guard(tag);
    return Tag{0};
  };
  if ((decision == nullptr && !fits(result)) || step_values_.size() > 2) return give_up();
  std::vector<GraphRecorder::NumberOperand> operands;
  for (size_t i = 0; i < step_values_.size(); ++i) {
    PyObject* const number = step_values_[i];
    if (!fits(number)) return give_up();
    GraphRecorder::NumberOperand& operand = operands.emplace_back();
    const bool is_float = PyFloat_CheckExact(number);
    const Tag tag = table_.resolve(step_tags_[i]);
    if (table_.is_late(tag)) {
      operand.value = table_.operand(tag).index;
    } else if (tag != 0 && table_.is_open(tag)) {
      operand.value = number_input(tag, is_float);
    } else if (is_float) {
      operand.constant = PyFloat_AS_DOUBLE(number);
    } else {
      operand.constant = static_cast<int64_t>(PyLong_AsLongLong(number));
    }
  }
  if (decision != nullptr) {
    const bool extremum = is_extremum(step_);
    if (operands.size() != 2) return give_up();
    const size_t chosen = step_values_[0] == result ? 0 : 1;
    if (extremum) std::swap(operands[0], operands[1]);
    const ir::ValueId outcome = recorder_.graph().note_number(decision, false, operands);
    if (outcome < 0 || !recorder_.graph().expect_late(outcome, extremum ? chosen == 1 : result == Py_True))
      return give_up();
    return extremum ? table_.resolve(step_tags_[chosen]) : 0;
  }
  const ir::ValueId value =
      recorder_.graph().note_number(operation_of(step_), PyFloat_CheckExact(result), operands);
  return value < 0 ? 0 : table_.add_late(value, result);
}

// Lists of late floats: made by a comprehension or `[*a, x]`, where nothing but one slot of the stack refers
// to them; iterated, indexed, measured.
bool Shadow::follow_carrier(EvalFrame& frame, const Operands& o) {
  const Tag tag = table_.resolve(tag_at(frame, frame.stack_pointer - 1));
  switch (o.event) {
    case Event::kAppend: {
      if (!table_.is_late(tag) || table_.late_of(o.b) != tag || o.c != nullptr || !PyList_CheckExact(o.a) ||
          recorder_.node_of(o.a) != kNoNode)
        return false;
      PyObject** const base = py::frame_slots(frame.frame);
      for (PyObject** slot = frame.stack_pointer; slot-- > base;) {
        if (*slot != o.a) continue;
        Tag& known = frame.tags[slot - base];
        if (known == 0) known = table_.add_carrier(o.a);
        return true;
      }
      return false;
    }
    case Event::kIter:
      return carries_ = table_.is_carrier(tag) && PyList_CheckExact(o.a);
    case Event::kNext:
      return carries_ = table_.is_carrier(tag) && o.b == nullptr;
    case Event::kSubscr:
      return carries_ = tag == 0 && PyLong_CheckExact(o.b) && PyList_CheckExact(o.a) &&
                        table_.is_carrier(tag_at(frame, frame.stack_pointer - 2));
    default:
      return false;
  }
}

void Shadow::plan_list_feed(Tag tag, PyObject* list, int argument, const char* keyword) {
  const size_t before = planned_.size();
  bool all = true;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list) && all; ++i) {
    PyObject* const item = PyList_GET_ITEM(list, i);
    const Tag late = table_.late_of(item);
    if (late == 0) continue;
    all = plan_feed(late, item, argument, keyword);
    if (all) planned_.back().use.element = static_cast<int>(i);
  }
  if (!all) {
    planned_.resize(before);
  } else {
    std::erase_if(used_, [&](Tag used) { return table_.resolve(used) == table_.resolve(tag); });
  }
}

}  // namespace flashpoint
