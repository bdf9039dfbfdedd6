#include "record/shadow.h"

#include <opcode.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "eval/liveness.h"
#include "py/frame.h"
#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/recorder.h"

namespace flashpoint {

namespace {

constexpr size_t kMostSteps = 2000;

// Where the argument lands, or -1.
int parameter_slot(PyCodeObject* code, Py_ssize_t argument, Py_ssize_t positional, PyObject* kwnames) {
  if (argument < positional) return argument < code->co_argcount ? static_cast<int>(argument) : -1;
  PyObject* name = PyTuple_GET_ITEM(kwnames, argument - positional);
  const int end = code->co_argcount + code->co_kwonlyargcount;
  for (int i = code->co_posonlyargcount; i < end; ++i) {
    PyObject* parameter = PyTuple_GET_ITEM(code->co_localsplusnames, i);
    if (parameter == name || PyUnicode_Compare(parameter, name) == 0) return i;
  }
  return -1;
}

// The tuple of what no other parameter takes, or -1. Elements of it are places -2, -3, ...
int varargs_slot(PyCodeObject* code) {
  return (code->co_flags & CO_VARARGS) != 0 ? code->co_argcount + code->co_kwonlyargcount : -1;
}

int keywords_slot(PyCodeObject* code) {
  if ((code->co_flags & CO_VARKEYWORDS) == 0) return -1;
  return code->co_argcount + code->co_kwonlyargcount + ((code->co_flags & CO_VARARGS) != 0 ? 1 : 0);
}

bool is_generator(PyCodeObject* code) {
  return (code->co_flags & (CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR)) != 0;
}

bool keeps_tags(PyCodeObject* code) {
  return !is_generator(code) && (code->co_flags & CO_OPTIMIZED) != 0 && !sees_all_locals(code);
}

bool is_getattr(PyObject* o) {
  return PyCFunction_Check(o) &&
         rules().function(reinterpret_cast<PyCFunctionObject*>(o)->m_ml).rule == Rule::kGetAttr;
}

// Methods of dicts that return what lies under a key, bound or not.
bool is_dict_get(PyObject* o) {
  const auto method = [](const char* name) {
    return reinterpret_cast<PyMethodDescrObject*>(PyDict_GetItemString(PyDict_Type.tp_dict, name))->d_method;
  };
  static const PyMethodDef* const get = method("get");
  static const PyMethodDef* const set_default = method("setdefault");
  const PyMethodDef* const called = PyCFunction_Check(o) ? reinterpret_cast<PyCFunctionObject*>(o)->m_ml
                                    : Py_IS_TYPE(o, &PyMethodDescr_Type)
                                        ? reinterpret_cast<PyMethodDescrObject*>(o)->d_method
                                        : nullptr;
  return called == get || called == set_default;
}

bool in_frame(const EvalFrame& frame, PyObject* const* slot) {
  return slot >= py::frame_slots(frame.frame) && slot < frame.stack_pointer;
}

bool is_singleton(PyObject* o) { return o == Py_None || PyBool_Check(o) || o == Py_Ellipsis; }

}  // namespace

void Shadow::add_argument(size_t index, NodeId node, PyObject* value, bool varies) {
  if (arguments_.size() <= index) arguments_.resize(index + 1);
  arguments_[index] = table_.add_source(node, value);
  if (varies) table_.set_varies(arguments_[index]);
}

void Shadow::add_opaque_argument(size_t index, NodeId node, PyObject* object) {
  if (arguments_.size() <= index) arguments_.resize(index + 1);
  arguments_[index] = table_.add_opaque(node, object);
}

void Shadow::set_changed(size_t argument) {
  if (argument < arguments_.size() && arguments_[argument] != 0) table_.set_changed(arguments_[argument]);
}

void Shadow::starts_with(PyObject* function, size_t positional, PyObject* kwnames) {
  first_function_ = function;
  first_positional_ = positional;
  first_kwnames_ = kwnames;
}

void Shadow::attach(EvalFrame& frame, size_t slot, size_t argument) {
  if (argument >= arguments_.size() || arguments_[argument] == 0) return;
  frame.tags[slot] = std::exchange(arguments_[argument], 0);
}

void Shadow::attached() {
  const bool breaks = std::exchange(breaks_late_, false);  // no instruction is to blame
  for (Tag& tag : arguments_) guard(std::exchange(tag, 0));
  breaks_late_ = breaks;
}

static c10::IValue number_of(PyObject* number) {
  if (PyFloat_CheckExact(number)) return PyFloat_AS_DOUBLE(number);
  return static_cast<int64_t>(PyLong_AsLongLong(number));
}

void Shadow::guard(Tag tag, bool identity) {
  if (tag == 0) return;
  tag = table_.resolve(tag);
  // A guard of this value would hold for no other call. It stays open, for what is finished up to here; what
  // is noticed late makes the next recording end before it.
  if (breaks_late_ && tag != 0 && table_.varies(tag) && !table_.is_late(tag) && !table_.is_carrier(tag) &&
      !table_.is_tuple(tag) && is_scalar(table_.value(tag)))
    return recorder_.end(Break::k_changing_value);
  table_.pin(tag, [&](NodeId node, PyObject* value, int32_t late) {
    if (late >= 0 && settles_late && recorder_.graph().expect_late(late, number_of(value))) return;
    if (node == kNoNode) return recorder_.end(Break::k_changing_value, "a number read from a tensor");
    // Numbers of numpy are pinned by value like any other; nothing else of what is carried about can be.
    if (!is_primitive(value)) return recorder_.end(Break::k_unsupported_argument, Py_TYPE(value)->tp_name);
    const bool nan = identity && PyFloat_CheckExact(value) && std::isnan(PyFloat_AS_DOUBLE(value));
    recorder_.tree().check(node, nan ? CheckKind::kIs : CheckKind::kValue, value);
  });
}

// What cannot be followed of the numbers that the graph made is checked where they are used.
void Shadow::settle_late() {
  for (const Tag used : used_) {
    if (table_.is_late(used)) guard(used);
  }
}

void Shadow::finish() {
  breaks_late_ = false;
  drop_transit();
  drop_read();
  attached();
  table_.for_each_source([&](NodeId node, PyObject* value, bool pinned) {
    if (!pinned)
      recorder_.tree().check(node, CheckKind::kTypeIs, reinterpret_cast<PyObject*>(Py_TYPE(value)));
  });
}

// What was on its way did not arrive where it was expected.
void Shadow::drop_transit() {
  for (const Move& move : moves_) guard(move.tag);
  moves_.clear();
  guard(std::exchange(returned_, 0));
  if (returned_to_ != nullptr) {
    returned_to_->tag_returned = false;
    returned_to_ = nullptr;
  }
}

void Shadow::enter(EvalFrame& frame) {
  if (first_function_ != nullptr) {
    PyObject* const function = std::exchange(first_function_, nullptr);
    if (py::frame_function(frame.frame) == function) {
      moves_caller_ = frame.caller;
      move_arguments(function, frame.caller, arguments_, 0, static_cast<Py_ssize_t>(first_positional_),
                     first_kwnames_);
      std::fill(arguments_.begin(), arguments_.end(), 0);
    }
    attached();
  }
  if (!moves_.empty() && frame.caller == moves_caller_ &&
      py::frame_function(frame.frame) == moves_function_) {
    apply_moves(frame);
  }
  drop_transit();
}

void Shadow::apply_moves(EvalFrame& frame) {
  PyCodeObject* const code = py::frame_code(frame.frame);
  const int varargs = varargs_slot(code);
  PyObject* const rest = varargs < 0 ? nullptr : py::frame_local(frame.frame, varargs);
  const int keywords = keywords_slot(code);
  PyObject* const named = keywords < 0 ? nullptr : py::frame_local(frame.frame, keywords);
  std::vector<Tag> elements;
  for (const Move& move : moves_) {
    if (move.slot == kKeyword) {
      PyObject* const held = named != nullptr && PyDict_CheckExact(named)
                                 ? PyDict_GetItemWithError(named, move.keyword)
                                 : nullptr;
      if (held == nullptr || held != table_.value(table_.resolve(move.tag)) ||
          !PyUnicode_CHECK_INTERNED(move.keyword)) {
        guard(move.tag);
      } else {
        put(follow_new(named), move.keyword, move.tag);
      }
      continue;
    }
    if (move.slot < 0) {
      const auto index = static_cast<size_t>(-2 - move.slot);
      if (rest != nullptr && PyTuple_CheckExact(rest) &&
          index < static_cast<size_t>(PyTuple_GET_SIZE(rest)) &&
          PyTuple_GET_ITEM(rest, index) == table_.value(table_.resolve(move.tag))) {
        elements.resize(static_cast<size_t>(PyTuple_GET_SIZE(rest)));
        elements[index] = move.tag;
      } else {
        guard(move.tag);
      }
      continue;
    }
    if (py::frame_local(frame.frame, move.slot) == table_.value(table_.resolve(move.tag))) {
      frame.tags[move.slot] = move.tag;
    } else {
      guard(move.tag);
    }
  }
  if (!elements.empty()) {
    Container& container = follow_new(rest);
    for (size_t i = 0; i < elements.size(); ++i) {
      if (elements[i] != 0) put(container, index_key(static_cast<Py_ssize_t>(i)), elements[i]);
    }
  }
  moves_.clear();
}

// Plans where tagged arguments of a Python call go. Those that no parameter takes are guarded.
bool Shadow::move_arguments(PyObject* function, const EvalFrame* caller, const std::vector<Tag>& tags,
                            Py_ssize_t offset, Py_ssize_t positional, PyObject* kwnames) {
  auto* code = reinterpret_cast<PyCodeObject*>(PyFunction_GET_CODE(function));
  if (!keeps_tags(code)) {
    for (const Tag tag : tags) guard(tag);
    return true;
  }
  moves_caller_ = caller;
  moves_function_ = function;
  for (size_t i = 0; i < tags.size(); ++i) {
    if (table_.resolve(tags[i]) == 0) continue;
    const auto argument = static_cast<Py_ssize_t>(i) + offset;
    int slot = parameter_slot(code, argument, positional + offset, kwnames);
    const bool rest = slot < 0 && argument < positional + offset && varargs_slot(code) >= 0;
    if (rest) slot = static_cast<int>(-2 - (argument - code->co_argcount));
    if (slot >= 0 || rest) {
      moves_.push_back({slot, tags[i]});
    } else if (argument >= positional + offset && keywords_slot(code) >= 0) {
      moves_.push_back({kKeyword, tags[i], PyTuple_GET_ITEM(kwnames, argument - positional - offset)});
    } else {
      guard(tags[i]);
    }
  }
  return true;
}

void Shadow::leave(EvalFrame& frame, PyObject* result) {
  drop_transit();
  // Where a generator is created, the frame's locals are gone already.
  if (result == nullptr || frame.tags_of != recorder_.serial || is_generator(py::frame_code(frame.frame)))
    return;
  const Tag tag = table_.resolve(tag_at(frame, frame.stack_pointer));
  if (tag == 0) return;
  if (table_.value(tag) != result) return guard(tag);
  if (frame.serial == outermost_) {
    result_tag_ = tag;
  } else if (frame.link == FrameLink::kResult && frame.caller != nullptr) {
    returned_ = tag;
    returned_to_ = frame.caller;
    returned_to_->tag_returned = true;
  } else {
    guard(tag);
  }
}

Tag Shadow::returned(EvalFrame& frame, PyObject* value) {
  const Tag tag = std::exchange(returned_, 0);
  const bool here = std::exchange(returned_to_, nullptr) == &frame;
  if (here && tag != 0 && table_.value(tag) == value) return tag;
  guard(tag);
  return 0;
}

Tag Shadow::tag_at(const EvalFrame& frame, PyObject* const* slot) const {
  PyObject** const base = py::frame_slots(frame.frame);
  if (frame.tags == nullptr || slot < base || slot > frame.stack_pointer) return 0;
  return frame.tags[slot - base];
}

// Collects the tags of an operand, which lies in one of the topmost slots of the stack, or in any slot of the
// frame. Equal numbers may be one object in several slots: then it may be any of them.
void Shadow::use(const EvalFrame& frame, PyObject* value, bool anywhere) {
  PyObject** const base = py::frame_slots(frame.frame);
  PyObject** const end = anywhere ? base : std::max(base, frame.stack_pointer - 4);
  for (PyObject** slot = frame.stack_pointer; slot-- > end;) {
    if (*slot == value && frame.tags[slot - base] != 0) used_.push_back(frame.tags[slot - base]);
  }
}

void Shadow::collect(EvalFrame& frame, const Operands& o) {
  used_.clear();
  call_tags_.clear();
  if (frame.tags_of != recorder_.serial) return;
  if (o.event == Event::kBinary || o.event == Event::kCompare) {
    // Another slot may hold the same number.
    for (int depth : {2, 1}) {
      const Tag tag = tag_at(frame, frame.stack_pointer - depth);
      if (tag != 0) used_.push_back(tag);
    }
    return;
  }
  for (PyObject* value : {o.a, o.b, o.c}) {
    if (value != nullptr) use(frame, value, o.event == Event::kStoreCell);
  }
  const Py_ssize_t total = o.nargs + (o.kwnames == nullptr ? 0 : PyTuple_GET_SIZE(o.kwnames));
  if (o.event == Event::kCall && total > 0 && !in_frame(frame, o.args)) {
    if (!containers_.empty()) spread(frame, o);
    return;
  }
  for (Py_ssize_t i = 0; i < total; ++i) {
    const Tag tag = tag_at(frame, o.args + i);
    if (tag == 0) continue;
    call_tags_.resize(static_cast<size_t>(total));
    call_tags_[i] = tag;
    used_.push_back(tag);
  }
  if (o.event == Event::kYield) {
    // A generator's frame loses its tags when it is left.
    PyObject** const base = py::frame_slots(frame.frame);
    for (PyObject** slot = base; slot < frame.stack_pointer; ++slot) {
      if (frame.tags[slot - base] != 0) used_.push_back(frame.tags[slot - base]);
    }
  }
}

void Shadow::compute(ScalarStep step, std::vector<Tag> tags, std::vector<PyObject*> values) {
  // A loop that counts in Python: what it makes is not worth making again at each call.
  if (table_.step_count() >= kMostSteps) return;
  bool open = false;
  for (size_t i = 0; i < values.size(); ++i) {
    if (!is_scalar(values[i]) && !is_singleton(values[i])) return;
    open = open || table_.is_open(tags[i]);
  }
  if (!open || (is_late(tags) && !computes_late(step))) return;
  computing_ = true;
  step_ = std::move(step);
  step_tags_ = std::move(tags);
  step_values_ = std::move(values);
}

bool Shadow::follow_call(EvalFrame& frame, const Operands& o) {
  if (call_tags_.empty()) return false;
  const Rules& known = rules();
  PyObject* function = o.a;
  Py_ssize_t offset = 0;
  if (PyMethod_Check(function)) {
    function = PyMethod_GET_FUNCTION(function);
    offset = 1;
  } else if (PyType_HasFeature(Py_TYPE(function), Py_TPFLAGS_HEAPTYPE) && !PyType_Check(function)) {
    // An object of a class of the program.
    static PyObject* const name = PyUnicode_InternFromString("__call__");
    PyObject* const method = _PyType_Lookup(Py_TYPE(function), name);
    if (method != nullptr && PyFunction_Check(method)) {
      function = method;
      offset = 1;
    }
  }
  if (PyObject* init = constructor_of(function)) {
    function = init;
    offset = 1;
  }
  if (PyFunction_Check(function))
    return runs_as_itself(function) &&
           move_arguments(function, &frame, call_tags_, offset, o.nargs, o.kwnames);
  if (Py_IS_TYPE(function, &PyMethodDescr_Type) && o.nargs == 2 && o.kwnames == nullptr &&
      PyList_CheckExact(o.args[0])) {
    static PyObject* const append = PyDict_GetItemString(PyList_Type.tp_dict, "append");
    return function == append && call_tags_[0] == 0 &&
           put_item(frame, o.args[0], nullptr, call_tags_[1], o.args[1]);
  }
  if (offset != 0 || o.kwnames != nullptr) return false;
  Rule rule = Rule::kNone;
  if (Py_IS_TYPE(function, &PyWrapperDescr_Type) || Py_IS_TYPE(function, &_PyMethodWrapper_Type)) {
    auto* descriptor = Py_IS_TYPE(function, &PyWrapperDescr_Type)
                           ? reinterpret_cast<PyWrapperDescrObject*>(function)
                           : reinterpret_cast<py::MethodWrapperLayout*>(function)->descriptor;
    const bool only_last =
        std::all_of(call_tags_.begin(), call_tags_.end() - 1, [](Tag t) { return t == 0; });
    return known.slot(descriptor).rule == Rule::kSetAttribute && only_last &&
           (store_through_setattr(function, o) || store(call_tags_.back(), o.args[o.nargs - 1]));
  }
  if (PyCFunction_Check(function)) {
    PyObject* self = PyCFunction_GET_SELF(function);
    if (self == nullptr || PyModule_Check(self)) {
      rule = known.function(reinterpret_cast<PyCFunctionObject*>(function)->m_ml).rule;
    }
  } else if (function == reinterpret_cast<PyObject*>(&PyFloat_Type) ||
             function == reinterpret_cast<PyObject*>(&PyLong_Type) ||
             function == reinterpret_cast<PyObject*>(&PyBool_Type) ||
             (function == reinterpret_cast<PyObject*>(&PyUnicode_Type) && o.nargs == 1)) {
    rule = Rule::kPure;
  } else if (function == reinterpret_cast<PyObject*>(&PyType_Type) && o.nargs == 1) {
    rule = Rule::kTypeOf;
  }
  if (rule == Rule::kIsInstance || rule == Rule::kTypeOf) return true;  // types are guarded
  // min and max of several arguments.
  bool extremum = false;
  if (rule == Rule::kIterate && o.nargs > 1 && PyCFunction_Check(function)) {
    const std::string_view name = reinterpret_cast<PyCFunctionObject*>(function)->m_ml->ml_name;
    extremum = name == "min" || name == "max";
  }
  if (rule != Rule::kPure && !extremum) return false;
  compute({ScalarStep::Kind::kCall, 0, Ref::share(function)}, call_tags_, {o.args, o.args + o.nargs});
  return decides_ = computing_;
}

// True when the event keeps its operands open.
bool Shadow::follow(EvalFrame& frame, const Operands& o) {
  if (table_.has_late() && follow_carrier(frame, o)) return true;
  // Of the operand that lies so deep on the stack. Two operands may be one object with different tags.
  const auto tag = [&](int depth) { return table_.resolve(tag_at(frame, frame.stack_pointer - depth)); };
  switch (o.event) {
    case Event::kBinary:
      compute({ScalarStep::Kind::kBinary, o.detail}, {tag(2), tag(1)}, {o.a, o.b});
      return computing_;
    case Event::kCompare:
      compute({ScalarStep::Kind::kCompare, o.detail}, {tag(2), tag(1)}, {o.a, o.b});
      return decides_ = computing_;
    case Event::kStoreAttr: {
      const Tag stored = tag(2);
      if (stored == 0 || o.b == nullptr || is_tensor(o.a)) return false;
      static PyObject* const name = PyUnicode_InternFromString("__setattr__");
      PyObject* set = _PyType_Lookup(Py_TYPE(o.a), name);
      if (set != nullptr && PyFunction_Check(set))
        return move_arguments(set, &frame, {0, 0, stored}, 0, 3, nullptr);
      return put_attribute(o.a, o.name, stored, o.b) || store(stored, o.b);
    }
    case Event::kStoreSubscr:
      if (o.c != nullptr && recorder_.node_of(o.a) == kNoNode)
        return tag(1) == 0 && tag(2) == 0 && put_item(frame, o.a, o.b, tag(3), o.c);
      return o.c != nullptr && tag(1) == 0 &&
             ((PyDict_CheckExact(o.a) && PyUnicode_CheckExact(o.b)) ||
              (PyList_CheckExact(o.a) && PyLong_CheckExact(o.b))) &&
             store(tag(3), o.c);
    case Event::kStoreCell:
      // Where a local becomes a cell its value is not on the stack; that cell is new.
      // A float of the graph is told by what it is when it is read there.
      if (recorder_.node_of(o.a) == kNoNode) {
        if (o.b == nullptr) return false;
        if (PyFloat_CheckExact(o.b) && table_.has_late() && table_.late_of(o.b) != 0) return true;
        const Tag known = o.detail > 0 ? frame.tags[o.detail - 1] : tag_at(frame, frame.stack_pointer - 1);
        return table_.resolve(known) != 0 ? put_cell(o.a, known, o.b) : false;
      }
      [[fallthrough]];
    case Event::kStoreGlobal:
      return o.b != nullptr && store(tag(1), o.b);
    case Event::kTruth:
      compute({ScalarStep::Kind::kTruth}, {tag(1)}, {o.a});
      return decides_ = computing_;
    case Event::kUnary:
      if (o.detail == UNARY_NOT) {
        compute({ScalarStep::Kind::kTruth, o.detail}, {tag(1)}, {o.a});
        return decides_ = computing_;
      }
      compute({ScalarStep::Kind::kUnary, o.detail}, {tag(1)}, {o.a});
      return computing_;
    case Event::kFormat:
      if (o.b == nullptr) {
        compute({ScalarStep::Kind::kFormat, o.detail}, {tag(1)}, {o.a});
      } else {
        compute({ScalarStep::Kind::kFormat, o.detail}, {tag(2), tag(1)}, {o.a, o.b});
      }
      return computing_;
    case Event::kJoin:
      call_tags_.resize(static_cast<size_t>(o.nargs));
      compute({ScalarStep::Kind::kJoin}, call_tags_, {o.args, o.args + o.nargs});
      return computing_;
    case Event::kIs:
      // What is no singleton of this type is none at any call.
      return is_singleton(o.b) && !is_singleton(o.a);
    case Event::kCall:
      return follow_call(frame, o);
    case Event::kAppend:
      // LIST_APPEND, MAP_ADD.
      return o.c == nullptr ? put_item(frame, o.a, nullptr, tag(1), o.b)
                            : tag(2) == 0 && put_item(frame, o.a, o.b, tag(1), o.c);
    default:
      return false;
  }
}

void Shadow::before(EvalFrame& frame, const Operands& o) {
  drop_transit();
  drop_read();
  pushes_ = o.event == Event::kAttr || o.event == Event::kGlobal || o.event == Event::kCell ||
            o.event == Event::kSubscr ||
            (o.event == Event::kCall && has_places() && (is_getattr(o.a) || is_dict_get(o.a)));
  storing_ = 0;
  computing_ = decides_ = carries_ = false;
  while (!container_events_.empty() && container_events_.back().frame == &frame) container_events_.pop_back();
  planned_.clear();
  uses_ = false;
  builds_ = o.event == Event::kBuild;
  used_containers_.clear();
  follows_event_ = false;
  collect(frame, o);
  if (o.event == Event::kCell && table_.has_late() && recorder_.node_of(o.a) == kNoNode) {
    PyObject* const content = PyCell_GET(o.a);
    const Tag late = content != nullptr && PyFloat_CheckExact(content) ? table_.late_of(content) : 0;
    if (late != 0 && frame.tags_of != recorder_.serial) return guard(late);
    carries_ = late != 0;
  }
  collect_containers(frame, o);
  if (frame.tags_of == recorder_.serial && (!used_.empty() || !used_containers_.empty())) {
    if (o.event == Event::kCall && follow_method(frame, o)) {
      used_.clear();
      used_containers_.clear();
      follows_event_ = true;
    } else if (!used_containers_.empty()) {
      follow_objects(frame, o);
      follows_event_ = used_containers_.empty() || follow_containers(frame, o);
      if (follows_event_) used_containers_.clear();
    }
  }
  if (!used_.empty() && follow(frame, o)) used_.clear();
  if (!used_.empty()) plan_feeds(frame, o);
  for (PyObject* const used : used_containers_) collect_inside(used, used_);
  if (used_.empty()) return;
  uses_ = true;
  if (settles_late) settle_late();
  const bool varies = std::any_of(used_.begin(), used_.end(), [&](Tag t) { return table_.varies(t); });
  if (!varies || o.event == Event::kYield) return;
  for (const Tag used : used_) {
    const Tag tag = table_.resolve(used);
    if (tag == 0) continue;
    PyObject* value = table_.value(tag);
    if (table_.is_carrier(tag)) break;
    if (!is_scalar(value)) return recorder_.end(Break::k_unsupported_argument, Py_TYPE(value)->tp_name);
  }
  recorder_.end(Break::k_changing_value);
}

bool Shadow::settle_uses() {
  if (uses_) {
    for (const Tag tag : used_) guard(tag, builds_ || !used_containers_.empty());
  }
  for (PyObject* const used : used_containers_) containers_.find(used)->live = false;
  used_containers_.clear();
  guard(std::exchange(storing_, 0));  // it went where it is not followed
  if (read_.tag != 0) return true;
  if (!planned_.empty()) {
    feeding_.push_back({recorder_.innermost(), recorder_.graph().node_count(), std::move(planned_)});
    planned_.clear();
    return true;
  }
  return computing_ || carries_ ||
         (!container_events_.empty() && container_events_.back().frame == recorder_.innermost());
}

Tag Shadow::after(const EvalFrame& frame, PyObject* result) {
  const Tag tag = after_event(frame, result);
  if (tag == 0 || !sees_all_locals(py::frame_code(frame.frame))) return tag;
  guard(tag);  // locals() would show it without a tag
  return 0;
}

Tag Shadow::after_event(const EvalFrame& frame, PyObject* result) {
  if (late_ != 0) return std::exchange(late_, 0);
  if (std::exchange(carries_, false)) {
    if (result == nullptr) return 0;
    return Py_IS_TYPE(result, &PyListIter_Type) ? table_.add_carrier(result) : table_.late_of(result);
  }
  if (!feeding_.empty() && feeding_.back().frame == &frame) {
    settle_feeds(result);
    return 0;
  }
  if (read_.tag != 0 && read_.frame == &frame) {
    const Tag tag = std::exchange(read_.tag, 0);
    if (table_.value(table_.resolve(tag)) == result) return tag;
    guard(tag);
    return 0;
  }
  if (!container_events_.empty() && container_events_.back().frame == &frame) return after_container(result);
  if (!std::exchange(computing_, false)) return 0;
  if (is_late(step_tags_)) return compute_late(result);
  if (decides_ && result != nullptr && PyBool_Check(result)) {
    table_.add_decision(std::move(step_), step_tags_, step_values_,
                        (result == Py_True) != (step_.kind == ScalarStep::Kind::kTruth && step_.detail != 0));
    return 0;
  }
  if (result != nullptr && is_scalar(result)) {
    return table_.add_computed(std::move(step_), step_tags_, step_values_, result);
  }
  for (const Tag tag : step_tags_) guard(tag);
  return 0;
}

}  // namespace flashpoint
