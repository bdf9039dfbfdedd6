// Numbers that enter tensor operations: inputs of the graph instead of constants behind a guard.
//
// Which argument of the operator a number became shows only once the operation has run. When none can be
// found, the number is guarded after all, or, where it is known to change, the recording ends late and the
// next one stops before the instruction.
#include <algorithm>

#include "py/torch_bridge.h"
#include "record/recorder.h"
#include "record/rules/rules.h"
#include "record/shadow.h"

namespace flashpoint {

namespace {

bool is_number(PyObject* o) { return PyFloat_CheckExact(o) || PyLong_CheckExact(o); }

// The tensor operation's own C function, and how many arguments stand before those of the call.
Rule tensor_operation(PyObject* callable, int* bound) {
  PyMethodDef* def = nullptr;
  *bound = 0;
  if (PyCFunction_Check(callable)) {
    auto* c = reinterpret_cast<PyCFunctionObject*>(callable);
    def = c->m_ml;
    PyObject* self = PyCFunction_GET_SELF(callable);
    if (self != nullptr && is_tensor(self)) *bound = 1;
  } else if (Py_IS_TYPE(callable, &PyMethodDescr_Type)) {
    def = reinterpret_cast<PyMethodDescrObject*>(callable)->d_method;
  }
  return def == nullptr ? Rule::kNone : rules().function(def).rule;
}

}  // namespace

bool Shadow::plan_feed(Tag tag, PyObject* number, int argument, const char* keyword, bool literal) {
  tag = table_.resolve(tag);
  if (tag == 0 || !is_number(number) || table_.value(tag) != number || !table_.is_open(tag)) return false;
  if (table_.is_late(tag) && !recorder_.graph().may_feed_numbers()) return false;
  if (exports_graph && (literal || !table_.changed(tag))) return false;
  GraphRecorder::NumberUse use;
  use.as_tensor = exports_graph;
  use.argument = argument;
  use.keyword = keyword;
  use.literal = literal;
  if (PyFloat_CheckExact(number)) {
    use.is_float = true;
    use.real = PyFloat_AS_DOUBLE(number);
  } else {
    int overflow = 0;
    use.integer = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (overflow != 0) return false;
  }
  planned_.push_back({tag, use});
  return true;
}

void Shadow::plan_call_feeds(const Operands& o) {
  int bound = 0;
  if (call_tags_.empty()) return;
  const Rule rule = tensor_operation(o.a, &bound);
  if (rule == Rule::kTorchTensor || rule == Rule::kAsTensor) {
    if (o.nargs > 0 && is_number(o.args[0])) plan_feed(call_tags_[0], o.args[0], 0, nullptr, true);
    return;
  }
  if (rule != Rule::kTorch) return;
  const auto total = static_cast<Py_ssize_t>(call_tags_.size());
  for (Py_ssize_t i = 0; i < total; ++i) {
    PyObject* const number = o.args[i];
    if (call_tags_[i] == 0) continue;
    if (table_.is_carrier(call_tags_[i]) && PyList_CheckExact(number)) {
      const char* name = i < o.nargs ? nullptr : PyUnicode_AsUTF8(PyTuple_GET_ITEM(o.kwnames, i - o.nargs));
      plan_list_feed(call_tags_[i], number, static_cast<int>(i) + bound, name);
      continue;
    }
    if (!is_number(number)) continue;
    // Another argument of the same value could be the one that is found.
    const bool unique = std::none_of(o.args, o.args + total, [&](PyObject* const& other) {
      return &other != &o.args[i] && is_number(other) &&
             table_.resolve(call_tags_[&other - o.args]) != table_.resolve(call_tags_[i]) &&
             PyFloat_AsDouble(other) == PyFloat_AsDouble(number);
    });
    if (PyErr_Occurred() != nullptr) PyErr_Clear();
    const char* keyword = i < o.nargs ? nullptr : PyUnicode_AsUTF8(PyTuple_GET_ITEM(o.kwnames, i - o.nargs));
    if (unique) plan_feed(call_tags_[i], number, static_cast<int>(i) + bound, keyword);
  }
}

// Takes the tags that the operation may feed into the graph out of `used_`.
void Shadow::plan_feeds(EvalFrame& frame, const Operands& o) {
  if (o.event == Event::kCall) {
    plan_call_feeds(o);
  } else if (o.event == Event::kBinary || o.event == Event::kCompare) {
    const bool first = is_number(o.a);
    PyObject* const number = first ? o.a : o.b;
    PyObject* const other = first ? o.b : o.a;
    if (!is_tensor(other) || !is_plain_tensor(other)) return;
    const Tag tag = tag_at(frame, frame.stack_pointer - (first ? 2 : 1));
    if (plan_feed(tag, number, -1, nullptr)) used_.clear();
    return;
  } else if (o.event == Event::kStoreSubscr && o.c != nullptr && is_number(o.c) && is_tensor(o.a)) {
    plan_feed(tag_at(frame, frame.stack_pointer - 3), o.c, 0, nullptr, true);
  }
  std::erase_if(used_, [&](Tag tag) {
    return std::any_of(planned_.begin(), planned_.end(),
                       [&](const Feed& feed) { return feed.tag == table_.resolve(tag); });
  });
}

void Shadow::settle_feeds(PyObject* result) {
  const FeedingCall call = std::move(feeding_.back());
  feeding_.pop_back();
  for (const Feed& feed : call.feeds) {
    LoggedArg* arg = result == nullptr ? nullptr : recorder_.graph().find_number(call.first_node, feed.use);
    if (arg == nullptr) {
      if (settles_late && table_.is_late(feed.tag)) guard(feed.tag);
      if (result != nullptr && table_.varies(feed.tag)) return recorder_.end(Break::k_changing_value);
      guard(feed.tag);
      continue;
    }
    const bool is_float = arg->kind == LoggedArg::Kind::kDouble;
    if (table_.is_late(feed.tag)) {
      // As another kind of number it would have to be converted before the operator.
      const bool converts = is_float != PyFloat_CheckExact(table_.value(feed.tag));
      if (converts && settles_late) {
        guard(feed.tag);
        continue;
      }
      if (converts) return recorder_.end(Break::k_changing_value);
      recorder_.graph().bind_number(*arg, table_.operand(feed.tag).index);
      continue;
    }
    recorder_.graph().bind_number(*arg, number_input(feed.tag, is_float));
  }
}

ir::ValueId Shadow::number_input(Tag tag, bool is_float) {
  tag = table_.resolve(tag);
  for (const Number& known : numbers_) {
    if (known.tag == tag && known.is_float == is_float) return known.value;
  }
  const auto source = static_cast<int32_t>(numbers_.size());
  numbers_.push_back({tag, is_float, recorder_.graph().number_input(is_float, source)});
  return numbers_.back().value;
}

PyObject* Shadow::number_value(int32_t source) const {
  return table_.value(numbers_[static_cast<size_t>(source)].tag);
}

std::vector<NumberInput> Shadow::numbers() const {
  std::vector<NumberInput> result;
  for (const Number& number : numbers_) result.push_back({table_.operand(number.tag), number.is_float});
  return result;
}

}  // namespace flashpoint
