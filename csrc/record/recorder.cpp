#include "record/recorder.h"

#include "base/check.h"
#include "base/counters.h"
#include "py/frame.h"
#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/call_trace.h"
#include "record/graph_recorder.h"
#include "record/read_generator.h"
#include "record/rules/late_modules.h"
#include "record/rules/rules.h"

namespace flashpoint {

namespace {

struct BreakRow {
  const char* name;
  const char* message;
  const char* hint;
};
constexpr BreakRow kBreaks[] = {
#define X(name, message, hint) {#name, message, hint},
#include "record/breaks.def"
#undef X
};

constexpr size_t kMaxNodes = 400'000;

// A cache of reads that need no second look; one for all recordings, told apart by their stamps.
struct SettledRead {
  PyObject* object;  // both kept alive by the recording whose stamp it is
  PyObject* name;
  uint64_t stamp;
};
constexpr size_t kSettledReads = 2048;
SettledRead settled_reads[kSettledReads];
uint64_t last_stamp = 0;

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
      return true;
    default:
      return false;
  }
}

// The events that may find an object which cannot be recorded, as long as it is only pushed.
constexpr bool pushes_what_it_reads(Event event) {
  return event == Event::kAttr || event == Event::kMethod || event == Event::kGlobal || event == Event::kCell;
}

SettledRead& settled_slot(PyObject* object, PyObject* name) {
  return settled_reads[(PairHash{}(std::pair{object, name}) >> 8) % kSettledReads];
}

}  // namespace

std::string graph_break_text(const GraphRecorder& graph) {
  return std::string(break_name(graph.break_reason())) + ": " + break_text(graph.break_reason()) + " (" +
         graph.break_detail() + ")";
}

const char* break_name(Break b) { return kBreaks[static_cast<int>(b)].name; }
const char* break_message(Break b) { return kBreaks[static_cast<int>(b)].message; }
const char* break_hint(Break b) { return kBreaks[static_cast<int>(b)].hint; }

// Called while operators run, without the GIL: it only looks at the frame of its own thread.
struct Recorder::FrameSites final : PositionSource {
  explicit FrameSites(Recorder& recorder) : recorder(recorder) {}
  ProgramPosition current() noexcept override {
    if (recorder.frame_ == nullptr) return {};
    return {py::frame_code(recorder.frame_->frame),
            static_cast<int32_t>(py::frame_instruction(recorder.frame_->frame))};
  }
  std::string describe(const ProgramPosition&) override { return {}; }
  Recorder& recorder;
};

Recorder::Recorder(GraphRecorder& graph, PyObject* function, PyObject* const* args, size_t nargs,
                   const std::vector<bool>& varies)
    : graph_(graph), frame_sites_(std::make_unique<FrameSites>(*this)) {
  graph_.set_site_source(frame_sites_.get());
  if (graph_.is_base()) region_ = Region::begin();
  forget_reads();
  look_for_late_modules();
  guarded([&] {
    if (function != nullptr) {
      hold(function);
      observe(tree_.child(kNoNode, Step::kConst, function), function);
    }
    // Guarded by address with the global state; the tree keeps them alive.
    under_function_mode_ = function_mode_count() > 0;
    for (size_t i = 0; i < function_mode_count(); ++i) const_node(function_mode_at(i));
    takes_opaque_ = true;
    for (size_t i = 0; i < nargs && !ended_; ++i) {
      if (args[i] == nullptr) continue;  // an empty slot of a frame
      const NodeId node = tree_.child(kNoNode, Step::kArg, nullptr, static_cast<int32_t>(i));
      if (is_scalar(args[i])) {
        shadow_.add_argument(i, node, args[i], i < varies.size() && varies[i]);
      } else if (is_primitive(args[i]) && std::string_view(Py_TYPE(args[i])->tp_name).starts_with("numpy.")) {
        shadow_.add_opaque_argument(i, node, args[i]);  // it may be handed back
      } else if (is_primitive(args[i])) {
        tree_.check(node, CheckKind::kValue, args[i]);
      } else {
        observe(node, args[i]);
        if (opaque_.contains(args[i])) shadow_.add_opaque_argument(i, node, args[i]);
      }
    }
    takes_opaque_ = false;
  });
}

bool Recorder::is_opaque(PyObject* v) const {
  if (is_tensor(v)) return !is_plain_tensor(v) || !has_plain_layout(v);
  if (PyLong_Check(v) || PyFloat_Check(v) || PyUnicode_Check(v) || PyBytes_Check(v) || PyComplex_Check(v))
    return true;
  if (PySlice_Check(v)) {
    auto* s = reinterpret_cast<PySliceObject*>(v);
    return !is_primitive(s->start) || !is_primitive(s->stop) || !is_primitive(s->step);
  }
  if (rules().is_deque(v)) return !rules().is_exact_deque(v);
  return rules().is_opaque(Py_TYPE(v));
}

// Nothing of ours may be thrown across the evaluator and CPython: the recording ends, the program goes on.
template <typename Step>
void Recorder::guarded(Step&& step) {
  try {
    step();
  } catch (const std::exception& e) {
    if (strict_mode()) check_failed("a recorder threw", __FILE__, __LINE__, e.what());
    ++counters().internal_errors;
    end(Break::k_internal, e.what());
  }
}

Recorder::~Recorder() { graph_.set_site_source(nullptr); }

void Recorder::end(Break reason, std::string detail) {
  if (ended_) return;
  ended_ = true;
  report_.reason = reason;
  report_.detail = std::move(detail);
  report_.location = location();
  if (frame_ != nullptr) {
    const char* name = PyUnicode_AsUTF8(py::frame_code(frame_->frame)->co_qualname);
    report_.function = name == nullptr ? "" : name;
  }
  if (!in_before_ && sink != nullptr) sink->on_break(*this, nullptr, nullptr);
}

std::string Recorder::location() const {
  if (frame_ == nullptr) return "";
  PyCodeObject* code = py::frame_code(frame_->frame);
  const char* file = PyUnicode_AsUTF8(code->co_filename);
  return std::string(file == nullptr ? "?" : file) + ":" + std::to_string(py::frame_line(frame_->frame));
}

NodeId Recorder::node_of(PyObject* object) const {
  const NodeId* found = table_.find(object);
  return found == nullptr ? kNoNode : *found;
}

PyObject* Recorder::object_of(NodeId node) const {
  for (const auto& [object, id] : table_) {
    if (id == node) return object;
  }
  return nullptr;
}

bool Recorder::is_code_constant(PyObject* object) const {
  for (const auto& [code, nothing] : codes_) {
    PyObject* constants = reinterpret_cast<PyCodeObject*>(code)->co_consts;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(constants); ++i) {
      if (PyTuple_GET_ITEM(constants, i) == object) return true;
    }
  }
  return false;
}

bool Recorder::once(PyObject* a, PyObject* b, int what) {
  return once_.try_emplace({a, reinterpret_cast<size_t>(b) | static_cast<size_t>(what)}).second;
}

bool Recorder::already_read(PyObject* object, PyObject* name) const {
  const SettledRead& read = settled_slot(object, name);
  return read.object == object && read.name == name && read.stamp == settled_stamp_;
}

void Recorder::note_read(PyObject* object, PyObject* name) {
  if (ended_ || node_of(object) == kNoNode || shadow_.has_places()) return;
  hold(name);
  settled_slot(object, name) = {object, name, settled_stamp_};
}

void Recorder::forget_reads() { settled_stamp_ = ++last_stamp; }

void Recorder::watch(PyObject* object, NodeId node) {
  if (table_.try_emplace(object, node).second) hold(object);
}

NodeId Recorder::const_node(PyObject* object) {
  if (const NodeId* found = table_.find(object)) return *found;
  const NodeId node = tree_.child(kNoNode, Step::kConst, object);
  watch(object, node);
  return node;
}

NodeId Recorder::observe(NodeId node, PyObject* v) {
  if (tree_.size() > kMaxNodes) end(Break::k_too_large, "guards");
  if (const auto [known, inserted] = table_.try_emplace(v, node); !inserted) {
    const NodeId first = *known;
    if (!opaque_.empty() && !takes_opaque_ && opaque_.contains(v))
      end(Break::k_unsupported_argument, Py_TYPE(v)->tp_name);
    if (first != node) {
      tree_.check(std::max(first, node), CheckKind::kSameAs, nullptr, std::min(first, node));
    }
    return first;
  }
  if (PyGen_CheckExact(v) && is_closed_by_owner(v, frame_)) {
    end(Break::k_iterator_argument, "a generator that is closed when its owner lets go of it");
    return node;
  }
  hold(v);
  PyTypeObject* type = Py_TYPE(v);
  if (ordinary_types_.contains(type)) {
    tree_.check(node, CheckKind::kTypeIs, reinterpret_cast<PyObject*>(type));
    return node;
  }
  if (PyType_Check(v) || PyModule_Check(v) || PyCode_Check(v) || type == &PyMethodDescr_Type ||
      type == &PyWrapperDescr_Type || type == &PyGetSetDescr_Type || type == &PyMemberDescr_Type ||
      type == &PyClassMethodDescr_Type || rules().is_singleton_type(type)) {
    tree_.check(node, CheckKind::kIs, v);
    return node;
  }
  if (PyCFunction_Check(v)) {
    PyObject* self = PyCFunction_GET_SELF(v);
    if (self == nullptr || PyModule_Check(self) || PyType_Check(self) || is_primitive(self) ||
        PyFrozenSet_CheckExact(self) || rules().is_function_record(self)) {
      tree_.check(node, CheckKind::kIs, v);
      return node;
    }
  }
  if (rules().is_enum_member(v)) {
    tree_.check(node, CheckKind::kIs, v);
    return node;
  }
  tree_.check(node, CheckKind::kTypeIs, reinterpret_cast<PyObject*>(type));
  if (is_opaque(v)) {
    if (takes_opaque_) {
      opaque_.insert(v);
    } else {
      end(Break::k_unsupported_argument, type->tp_name);
    }
  } else if (PySlice_Check(v)) {
    auto* s = reinterpret_cast<PySliceObject*>(v);
    Ref operand = Ref::steal(PyTuple_Pack(3, s->start, s->stop, s->step));
    tree_.check(node, CheckKind::kSliceIs, operand.get());
  } else if (rules().is_deque(v)) {
    Ref bound = Ref::steal(PyObject_GetAttrString(v, "maxlen"));
    tree_.check(node, CheckKind::kDequeBound, bound.get());
  } else if (PyCFunction_Check(v)) {
    // A method of an object: which one, and of what.
    Ref method = Ref::steal(PyLong_FromVoidPtr(reinterpret_cast<PyCFunctionObject*>(v)->m_ml));
    tree_.check(node, CheckKind::kMethodDef, method.get());
    observe(tree_.child(node, Step::kMethodSelf), PyCFunction_GET_SELF(v));
  } else if (PyRange_Check(v)) {
    Ref parts[3];
    const char* const names[] = {"start", "stop", "step"};
    for (int i = 0; i < 3; ++i) parts[i] = Ref::steal(PyObject_GetAttrString(v, names[i]));
    Ref operand = Ref::steal(PyTuple_Pack(3, parts[0].get(), parts[1].get(), parts[2].get()));
    tree_.check(node, CheckKind::kRangeIs, operand.get());
  } else if (PyDictKeys_Check(v) || PyDictValues_Check(v) || PyDictItems_Check(v)) {
    observe(tree_.child(node, Step::kProxyDict), py::view_dict(v));
  } else if (Py_IS_TYPE(v, &PyDictProxy_Type)) {
    if (PyDict_Check(py::proxied_mapping(v)))
      observe(tree_.child(node, Step::kProxyDict), py::proxied_mapping(v));
  } else if (PyMethod_Check(v)) {
    // The evaluator takes bound methods apart before it calls them.
    observe(tree_.child(node, Step::kMethodFunc), PyMethod_GET_FUNCTION(v));
    PyObject* self = PyMethod_GET_SELF(v);
    if (is_primitive(self)) {
      tree_.check(tree_.child(node, Step::kMethodSelf), CheckKind::kValue, self);
    } else {
      observe(tree_.child(node, Step::kMethodSelf), self);
    }
  } else if (PyFunction_Check(v)) {
    PyObject* defaults = PyFunction_GET_DEFAULTS(v);
    PyObject* kw = PyFunction_GET_KW_DEFAULTS(v);
    Ref state = Ref::steal(Py_BuildValue(
        "(OnOO)", PyFunction_GET_CODE(v), defaults == nullptr ? 0 : PyTuple_GET_SIZE(defaults),
        kw != nullptr && PyDict_GET_SIZE(kw) > 0 ? Py_True : Py_False, PyFunction_GET_GLOBALS(v)));
    tree_.check(node, CheckKind::kFuncState, state.get());
  } else if (is_tensor(v)) {
    if (!graph_.register_input(unpack_tensor(v), node)) {
      end(Break::k_graph, graph_break_text(graph_));
      return node;
    }
    tree_.check_tensor(node, TensorMeta::of(v));
    tensor_nodes_.push_back(node);
    if (graph_.is_base()) region_.add_input(unpack_tensor(v));
  } else if (rules().is_value_type(type)) {
    tree_.check(node, CheckKind::kEquals, v);
  } else {
    ordinary_types_.insert(type);
  }
  return node;
}

// Under torch.compile nested_compile_region's function never runs: another one stands in for it. In eager
// mode it calls the region, which is what is to be recorded.
static bool asks_for_eager(const EvalFrame* caller) {
  static PyObject* const name = PyUnicode_InternFromString("invoke_subgraph_placeholder");  // never released
  return caller != nullptr && py::frame_code(caller->frame)->co_name == name;
}

PyObject* Recorder::enter_frame(EvalFrame& frame) {
  frame_ = &frame;
  ++frames_entered_;
  if (ended_) return nullptr;
  if (!shadow_.idle()) shadow_.enter(frame);
  if (ended_) return nullptr;  // a number that cannot be guarded did not arrive
  if (expected_.caller == frame.caller && expected_.function == py::frame_function(frame.frame)) {
    frame.link = expected_.link;
    if (frame.link == FrameLink::kInit) frame.link_self = py::frame_local(frame.frame, 0);
  }
  expected_ = {};
  PyCodeObject* code = py::frame_code(frame.frame);
  if (answers_tracing_queries && !hosted_call_runs_) {
    PyObject* answer = rules().tracing_query(reinterpret_cast<PyObject*>(code));
    if (answer != nullptr && !rules().computes_otherwise(frame.caller) && !asks_for_eager(frame.caller)) {
      Py_INCREF(answer);
      return answer;
    }
  }
  if (rules().is_module_getattr(reinterpret_cast<PyObject*>(code))) {
    PyObject* found = nullptr;
    guarded([&] { found = rules().get_module_attr(*this, frame); });
    if (found != nullptr) return found;
    if (ended_) return nullptr;
  }
  if (rules().is_module_call(reinterpret_cast<PyObject*>(code))) {
    guarded([&] { rules().enter_module_call(*this, frame); });
    if (ended_) return nullptr;
  } else if (rules().is_module_wrapper(reinterpret_cast<PyObject*>(code))) {
    guarded([&] { rules().settle_module_call(*this, frame); });
    if (ended_) return nullptr;
  }
  if (rules().is_unwatched(reinterpret_cast<PyObject*>(code))) {
    if (PyObject* answer = rules().run_unwatched(*this, frame)) return answer;
  }
  if (codes_.insert(reinterpret_cast<PyObject*>(code))) hold(reinterpret_cast<PyObject*>(code));
  PyObject* function = py::frame_function(frame.frame);
  if (rules().is_graph_break(reinterpret_cast<PyObject*>(code)) ||
      (function != nullptr && PyFunction_Check(function) && disabling_mark(function) != nullptr)) {
    end_disabled(function);
    return nullptr;
  }
  // Defaults fill missing arguments without any instruction reading them.
  if (function != nullptr && PyFunction_Check(function)) {
    const NodeId node = node_of(function);
    if (node != kNoNode && once(function, nullptr, 3)) {
      PyObject* defaults = PyFunction_GET_DEFAULTS(function);
      for (Py_ssize_t i = 0; defaults != nullptr && i < PyTuple_GET_SIZE(defaults); ++i) {
        PyObject* value = PyTuple_GET_ITEM(defaults, i);
        if (is_primitive(value)) {
          tree_.check_place(node, CheckKind::kDefaultValue, nullptr, value, static_cast<int32_t>(i));
        } else {
          observe(tree_.child(node, Step::kFuncDefault, nullptr, static_cast<int32_t>(i)), value);
        }
      }
      PyObject* kw = PyFunction_GET_KW_DEFAULTS(function);
      if (kw != nullptr && PyDict_GET_SIZE(kw) > 0) {
        const NodeId kw_node = tree_.child(node, Step::kFuncKwDefaults);
        watch(kw, kw_node);
        read_elements(kw);
      }
    }
  }
  return nullptr;
}

void Recorder::read_results(int how, bool until_return) {
  if (until_return) reading_calls_.push_back({frame_, reads_results_});
  reads_results_ = std::max(reads_results_, how);
  // An iterator that is handed on reads for as long as it lives.
  for (auto& [frame, outside] : reading_calls_) {
    if (!until_return) outside = std::max(outside, how);
  }
}

void Recorder::leave_frame(EvalFrame& frame, PyObject* result) {
  if (reads_results_ != 0 && result != nullptr && !ended_ &&
      (reads_results_ == 2 || (py::frame_code(frame.frame)->co_flags & CO_GENERATOR) != 0)) {
    guarded([&] { read_inside(result); });
    if (PyErr_Occurred() != nullptr) PyErr_Clear();  // none was set: the frame has a result
  }
  if (!shadow_.idle() && !ended_) shadow_.leave(frame, result);
  frame_ = frame.caller;
}

// Events that nothing is recorded of: reads that are recorded already, and primitives among themselves.
bool Recorder::is_settled(const Operands& o) const {
  switch (o.event) {
    case Event::kAttr:
    case Event::kMethod:
      return already_read(o.a, o.name);
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

Pending Recorder::before(EvalFrame& frame, const Operands& o) {
  frame_ = &frame;
  if (ended_) return {};
  if (trace != nullptr) trace->event(frame, o);
  Pending pending;
  bool followed = false;
  expected_ = {};
  if (fail_at_event == 0 && break_at_event == 0 && break_before == nullptr && shadow_.idle() &&
      opaque_.empty() && is_settled(o)) {
    pending.done = o.event != Event::kAttr;  // an attribute may be what Python code gives
    return pending;
  }
  in_before_ = true;
  guarded([&] {
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
      if (!ended_) pending = watch_before(frame, o);
      takes_opaque_ = false;
      if (!ended_ && !shadow_.idle()) followed = shadow_.settle_uses();
      followed = followed || !opaque_.empty() || graph_.asserts();
    }
  });
  in_before_ = false;
  pending.done = !wants_after(o.event) && !followed && !sets_data_;
  // None was set when the instruction began.
  if (!pending.raise && PyErr_Occurred() != nullptr) PyErr_Clear();
  if (ended_ && sink != nullptr) pending.raise = sink->on_break(*this, &frame, &o) || pending.raise;
  return pending;
}

Pending Recorder::watch_before(EvalFrame& frame, const Operands& o) {
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
      if (node != kNoNode && shadow_.read_place(node, o.a, nullptr, PyCell_GET(o.a))) break;
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
      if (!is_primitive(o.a) && !is_tensor(o.a)) {
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
      read_iterable(o.a);
      if (o.b != nullptr && !ended_) write_contents(o.b);
      break;
    case Event::kUnpackMapping:
      if (PyDict_Check(o.a)) {
        read_elements(o.a);
        if (o.b != nullptr && !ended_) write_contents(o.b);
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
      read_text(o.a, o.detail == 0 ? Text::kFormat : o.detail == 1 ? Text::kStr : Text::kRepr);
      break;
    case Event::kCall:
      if (o.detail == 1) read_exit(o.args[1], o.args[2]);
      return call(frame, o);
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
    case Event::kYield:
      break;
    case Event::kUnsupported:
      end(Break::k_unsupported_instruction, std::to_string(o.detail));
      break;
  }
  return {};
}

Tag Recorder::after(EvalFrame& frame, const Operands& o, Pending pending, PyObject* result) {
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
  guarded([&] {
    watch_after(o, pending, result);
    if (!shadow_.idle() && !ended_) tag = shadow_.after(frame, result);
    if (!opaque_.empty() && result != nullptr && opaque_.contains(result))
      tag = shadow_.opaque_tag(node_of(result), result);
  });
  return tag;
}

void Recorder::blame(PyObject* generator) {
  for (size_t i = made_.size(); i-- > 0;) {
    if (made_[i].first == generator) {
      blamed_ = static_cast<int>(i);
      return;
    }
  }
}

void Recorder::watch_after(const Operands& o, Pending pending, PyObject* result) {
  switch (o.event) {
    case Event::kCall:
      while (!reading_calls_.empty() && reading_calls_.back().first == frame_) {
        reads_results_ = reading_calls_.back().second;
        reading_calls_.pop_back();
      }
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
