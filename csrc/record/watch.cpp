// What the evaluator's events mean for a recording: before each instruction, and after those whose result
// counts.
#include "base/check.h"
#include "py/frame.h"
#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/call_trace.h"
#include "record/graph_recorder.h"
#include "record/guarded.h"
#include "record/read_generator.h"
#include "record/recorder.h"
#include "record/rules/rules.h"
#include "record/unobserved.h"

namespace flashpoint {

namespace {

// A class of the program with keys() and a subscript in Python, as `**` asks for.
bool is_mapping_of_python(PyObject* o) {
  PyTypeObject* type = Py_TYPE(o);
  if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) || PyType_Check(o) || is_tensor(o)) return false;
  for (const char* name : {"keys", "__getitem__"}) {
    Ref interned = Ref::steal(PyUnicode_InternFromString(name));
    PyObject* found = _PyType_Lookup(type, interned.get());
    if (found == nullptr || !PyFunction_Check(found)) return false;
  }
  return true;
}

// The events of which watch_after() looks at the result.
constexpr bool wants_after(Event event) {
  switch (event) {
    case Event::kCall:
    case Event::kStoreSubscr:
    case Event::kImport:
    case Event::kAttr:
    case Event::kSubscr:
    case Event::kBinary:
    case Event::kUnary:
    case Event::kCompare:
    case Event::kNext:
    case Event::kUnpackMapping:
      return true;
    default:
      return false;
  }
}

// The events that may find an object which cannot be recorded, as long as it is only pushed.
constexpr bool pushes_what_it_reads(Event event) {
  return event == Event::kAttr || event == Event::kMethod || event == Event::kGlobal || event == Event::kCell;
}

}  // namespace

// Events that nothing is recorded of: reads that are recorded already, and primitives among themselves.
bool Recorder::is_settled(const Operands& o) const {
  switch (o.event) {
    case Event::kAttr:
    case Event::kMethod:
      return already_read(o.a, o.name);
    case Event::kGlobal:
      return o.name != nullptr && already_read(py::frame_globals(frame_->frame), o.name);
    case Event::kTruth:
    case Event::kUnary:
      return is_primitive(o.a);
    case Event::kIs:
      return o.b == Py_None;
    case Event::kCompare:
    case Event::kBinary:
      return is_primitive(o.a) && is_primitive(o.b);
    default:
      return false;
  }
}

// While a rule looks: Python code that an object runs then (a hash, a length) is no part of the program. The
// instruction itself runs it again, watched.
using Looking = Unobserved;

Pending Recorder::before(EvalFrame& frame, const Operands& o) {
  Pending pending;  // filled in place
  frame_ = &frame;
  if (ended_) return pending;
  if (trace != nullptr) trace->event(frame, o);
  expected_ = {};
  if (fail_at_event != 0 || break_at_event != 0 || break_before != nullptr || !shadow_.idle() ||
      !opaque_.empty()) {
    before_with_care(frame, o, pending);
    return pending;
  }
  if (is_settled(o)) {
    pending.done = o.event != Event::kAttr;  // an attribute may be what Python code gives
    return pending;
  }
  in_before_ = true;
  takes_opaque_ = pushes_what_it_reads(o.event);
  bool followed = false;
  guarded([&] {
    const Looking looking(graph_);
    watch_before(frame, o, pending);
    followed = (!ended_ && !shadow_.idle() && shadow_.settle_uses()) || !opaque_.empty() || graph_.asserts();
  });
  takes_opaque_ = false;
  settle_before(frame, o, followed, pending);
  return pending;
}

// With numbers that are followed, or told where to end.
void Recorder::before_with_care(EvalFrame& frame, const Operands& o, Pending& pending) {
  bool followed = false;
  in_before_ = true;
  guarded([&] {
    const Looking looking(graph_);
    FP_CHECK(fail_at_event == 0 || --fail_at_event != 0, "injected");
    if (break_before != nullptr && !break_before->empty() &&
        break_before->contains(
            {py::frame_code(frame.frame), static_cast<size_t>(py::frame_instruction(frame.frame))})) {
      end(Break::k_remembered);
    } else if (break_at_event != 0 && --break_at_event == 0) {
      end(Break::k_forced);
    } else {
      if (!shadow_.idle()) shadow_.before(frame, o);
      takes_opaque_ = pushes_what_it_reads(o.event);
      if (!ended_) watch_before(frame, o, pending);
      takes_opaque_ = false;
      if (!ended_ && !shadow_.idle()) followed = shadow_.settle_uses();
      followed = followed || !opaque_.empty() || graph_.asserts();
    }
  });
  settle_before(frame, o, followed, pending);
}

void Recorder::settle_before(EvalFrame& frame, const Operands& o, bool followed, Pending& pending) {
  in_before_ = false;
  pending.done = !wants_after(o.event) && !followed && !sets_data_;
  // None was set when the instruction began.
  if (!pending.raise && PyErr_Occurred() != nullptr) PyErr_Clear();
  if (ended_) pending.instead = nullptr;
  if (ended_ && sink != nullptr) pending.raise = sink->on_break(*this, &frame, &o) || pending.raise;
}

void Recorder::watch_before(EvalFrame& frame, const Operands& o, Pending& pending) {
  switch (o.event) {
    case Event::kGlobal: {
      if (o.name == nullptr) {
        const_node(o.a);
        Ref name = Ref::steal(PyUnicode_InternFromString("__build_class__"));
        read_dict_key(o.a, name.get());
        break;
      }
      // Found in the builtins, or nowhere: absent from every dict before.
      PyObject* globals = py::frame_globals(frame.frame);
      if (already_read(globals, o.name)) break;
      PyObject* builtins = py::frame_builtins(frame.frame);
      const_node(globals);
      read_dict_key(globals, o.name);
      if (o.a != globals) {
        const_node(builtins);
        read_dict_key(builtins, o.name);
      }
      note_read(globals, o.name);
      break;
    }
    case Event::kName:
    case Event::kStoreName:
      if (rules().read_class_name(*this, frame, o.event == Event::kName ? o.name : nullptr)) break;
      end(Break::k_unsupported_instruction, "class body or exec");
      break;
    case Event::kStoreGlobal:
      const_node(o.a);
      if (o.b == nullptr) read_dict_present(o.a, o.name);
      write_dict(o.a, o.name, o.b == nullptr);
      break;
    case Event::kCell: {
      const NodeId node = node_of(o.a);
      if (node != kNoNode && shadow_.read_place(node, CheckKind::kCellValue, o.a, nullptr, PyCell_GET(o.a)))
        break;
      if (node == kNoNode || overlaid(o.a, nullptr) || !once(o.a, nullptr, 4)) break;
      PyObject* content = PyCell_GET(o.a);
      if (content == nullptr) {
        tree_.check(node, CheckKind::kCellEmpty);
      } else if (is_primitive(content)) {
        tree_.check(node, CheckKind::kCellValue, content);
      } else {
        observe(tree_.child(node, Step::kCellContents), content);
      }
      break;
    }
    case Event::kStoreCell:
      if (node_of(o.a) != kNoNode) write_cell(o.a);
      break;
    case Event::kClosure: {
      const NodeId node = node_of(o.a);
      if (node == kNoNode || !once(o.a, o.b, 5)) break;
      for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(o.b); ++i) {
        PyObject* cell = PyTuple_GET_ITEM(o.b, i);
        const NodeId c = tree_.child(node, Step::kFuncClosure, nullptr, static_cast<int32_t>(i));
        observe(c, cell);
      }
      break;
    }
    case Event::kAttr:
      read_attr(o.a, o.name);
      expect_attribute_code(frame, o.a, o.name);
      break;
    case Event::kMethod:
      read_attr(o.a, o.name);
      break;
    case Event::kSpecial:
      type_lookup(Py_TYPE(o.a), o.name);
      if (!PyType_HasFeature(Py_TYPE(o.a), Py_TPFLAGS_HEAPTYPE) && !rules().is_value_type(Py_TYPE(o.a)) &&
          rules().type(Py_TYPE(o.a)).rule != Rule::kStateManager) {
        end(Break::k_unknown_c_function, std::string("with ") + Py_TYPE(o.a)->tp_name);
      }
      break;
    case Event::kStoreAttr:
      write_attr(o.a, o.name, o.b);
      break;
    case Event::kSubscr:
      read_subscript(o.a, o.b);
      break;
    case Event::kStoreSubscr:
      rules().store_subscript(*this, o.a, o.b, o.c);
      break;
    case Event::kBinary:
      read_binary(o.detail, o.a, o.b);
      break;
    case Event::kUnary:
      if (is_tensor(o.a)) {
        read_unary_method(o.detail, o.a);
      } else if (!is_primitive(o.a)) {
        if (PyType_HasFeature(Py_TYPE(o.a), Py_TPFLAGS_HEAPTYPE)) {
          rules().read_operator_slots(*this, o.a);
        } else {
          end(Break::k_unsupported_container, std::string("unary operator on ") + Py_TYPE(o.a)->tp_name);
        }
      }
      break;
    case Event::kTruth:
      read_truth(o.a);
      break;
    case Event::kCompare:
      read_compare(o.detail, o.a, o.b);
      break;
    case Event::kContains:
      read_contains(o.a, o.b);
      break;
    case Event::kIs:
      read_identity(o.a, o.b);
      break;
    case Event::kIter:
      keep_hash_order_local(o.a);
      read_iterable(o.a);
      break;
    case Event::kNext:
      if (!advance_iterator(o.a)) {
        end(Break::k_iterator_argument, Py_TYPE(o.a)->tp_name);
      } else if (PyGen_CheckExact(o.a)) {
        expect_generator(frame, o.a, o.b == nullptr ? FrameLink::kNext : FrameLink::kDelegate);
      } else if (PyType_HasFeature(Py_TYPE(o.a), Py_TPFLAGS_HEAPTYPE)) {
        type_lookup(Py_TYPE(o.a), "__next__");
      }
      break;
    case Event::kUnpack:
      keep_hash_order_local(o.a);
      read_iterable(o.a);
      if (o.b != nullptr && !ended_) write_contents(o.b);
      break;
    case Event::kUnpackMapping:
      read_mapping_methods(o.a);
      if (ended_) break;
      if (PyDict_Check(o.a)) {
        read_elements(o.a);
        if (o.b != nullptr && !ended_) write_contents(o.b);
      } else if (is_mapping_of_python(o.a)) {
        // C code calls keys(), takes what that gives, and asks for each of them: frames that are recorded.
        if (o.b != nullptr && !ended_) write_contents(o.b);
        if (!ended_) read_results(2, true);
      } else {
        end(Break::k_unsupported_container, std::string("** of ") + Py_TYPE(o.a)->tp_name);
      }
      break;
    case Event::kAppend:
      // The container is older than the recording where that began in the middle of the comprehension.
      if (PyList_Check(o.a)) {
        append_to_list(o.a, o.b);
      } else {
        write_contents(o.a);
      }
      break;
    case Event::kFormat:
      keep_hash_order_local(o.a);
      read_text(o.a, o.detail == 0 ? Text::kFormat : o.detail == 1 ? Text::kStr : Text::kRepr);
      break;
    case Event::kCall:
      if (o.detail == 1) read_exit(o.args[1], o.args[2]);
      return call(frame, o, pending);
    case Event::kRaise:
      read_raise(o.a);
      break;
    case Event::kImport:
      rules().import(*this, frame, o);
      break;
    case Event::kImportFrom:
      read_attr(o.a, o.name);
      break;
    case Event::kMatch:
      read_match(o);
      break;
    case Event::kBuild:
    case Event::kJoin:  // f-strings: the parts are text
      break;
    case Event::kYield:
      if (keeps_slots && yields_late(*this, frame))
        end(Break::k_iterator_argument,
            "a generator that the recording keeps alive holds what would be noticed to die");
      break;
    case Event::kUnsupported:
      end(Break::k_unsupported_instruction, std::to_string(o.detail));
      break;
  }
}

Tag Recorder::after(EvalFrame& frame, const Operands& o, const Pending& pending, PyObject* result) {
  frame_ = &frame;
  if (ended_) return 0;
  if (graph_.broken()) {
    end(Break::k_graph, graph_break_text(graph_));
    return 0;
  }
  if (o.event == Event::kCall && result != nullptr && PyGen_CheckExact(result)) {
    made_.push_back(
        {result, {py::frame_code(frame.frame), static_cast<size_t>(py::frame_instruction(frame.frame))}});
  }
  Tag tag = 0;
  if (shadow_.idle() && opaque_.empty() && says_nothing(o.event, pending, result)) {
    if (o.event == Event::kCall) graph_.set_number_store(false);
    return tag;
  }
  guarded([&] {
    const Looking looking(graph_);
    watch_after(o, pending, result);
    if (!shadow_.idle() && !ended_) tag = shadow_.after(frame, result);
    if (!opaque_.empty() && result != nullptr && opaque_.contains(result))
      tag = shadow_.opaque_tag(node_of(result), result);
  });
  return tag;
}

// Whether watch_after would do nothing but end the event.
bool Recorder::says_nothing(Event event, const Pending& pending, PyObject* result) const {
  switch (event) {
    case Event::kCall:
      return pending.word == 0 && reading_calls_.empty() && result != nullptr && !is_tensor(result) &&
             !PyTuple_Check(result) && !PyList_Check(result);
    case Event::kAttr:
    case Event::kBinary:
    case Event::kUnary:
    case Event::kCompare:
    case Event::kNext:
      return result == nullptr || !is_tensor(result);
    default:
      return false;
  }
}

void Recorder::watch_after(const Operands& o, const Pending& pending, PyObject* result) {
  const auto end_reading = [&] {
    while (!reading_calls_.empty() && reading_calls_.back().first == frame_) {
      reads_results_ = reading_calls_.back().second;
      reading_calls_.pop_back();
    }
  };
  switch (o.event) {
    case Event::kUnpackMapping:
      end_reading();
      break;
    case Event::kCall:
      end_reading();
      graph_.set_number_store(false);
      after_call(o, pending, result);
      break;
    case Event::kStoreSubscr:
      graph_.set_number_store(false);
      break;
    case Event::kSubscr:
      graph_.set_number_store(false);
      if (result != nullptr) check_tensor_result(result);
      break;
    case Event::kTruth:
      graph_.set_asserts(false);
      break;
    case Event::kImport:
      if (result != nullptr) const_node(result);
      break;
    case Event::kStoreAttr:
      if (std::exchange(sets_data_, false) && result != nullptr)
        graph_.note_set_data(unpack_tensor(o.a), unpack_tensor(o.b));
      break;
    case Event::kAttr:
      if (result != nullptr && is_tensor(result) && is_plain_tensor(o.a) &&
          rules().tensor_attribute(o.name) == TensorAttribute::kData &&
          !graph_.is_known(unpack_tensor(result))) {
        graph_.note_data(unpack_tensor(o.a), unpack_tensor(result));
      }
      [[fallthrough]];
    case Event::kBinary:
    case Event::kUnary:
    case Event::kCompare:
    case Event::kNext:
      if (result != nullptr) check_tensor_result(result);
      break;
    default:
      break;
  }
}

void Recorder::check_tensor_result(PyObject* result) {
  if (!is_tensor(result) || table_.contains(result)) return;
  if (!is_plain_tensor(result)) {
    end(Break::k_unsupported_argument, std::string("tensor subclass ") + Py_TYPE(result)->tp_name);
  } else if (!graph_.is_known(unpack_tensor(result))) {
    end(Break::k_unknown_tensor);
  }
}

}  // namespace flashpoint
