#include "record/recorder.h"

#include "base/check.h"
#include "base/counters.h"
#include "py/frame.h"
#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/call_trace.h"
#include "record/graph_recorder.h"
#include "record/guarded.h"
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

// How much there was to note lately, so that tables need not grow in steps. GIL.
struct SizeHints {
  size_t objects = 0, questions = 0;
} size_hints;

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
  table_.expect(size_hints.objects);
  once_.expect(size_hints.questions);
  held_.reserve(2 * size_hints.objects);
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
    for (size_t i = 0; i < function_mode_count(); ++i) {
      const_node(function_mode_at(i));
      read_function_mode(function_mode_at(i));
    }
    takes_opaque_ = true;
    for (size_t i = 0; i < nargs && !ended_; ++i) {
      if (args[i] == nullptr) continue;  // an empty slot of a frame
      const NodeId node = tree_.child(kNoNode, Step::kArg, nullptr, static_cast<int32_t>(i));
      if (is_scalar(args[i])) {
        shadow_.add_argument(i, node, args[i], i < varies.size() && varies[i]);
      } else if (is_primitive(args[i]) && std::string_view(Py_TYPE(args[i])->tp_name).starts_with("numpy.")) {
        // It may be handed back, and it is pinned where it is used, unless that has not lasted.
        if (i < varies.size() && varies[i]) {
          shadow_.add_opaque_argument(i, node, args[i]);
        } else {
          shadow_.add_argument(i, node, args[i], false);
        }
      } else if (PySlice_Check(args[i]) && i < varies.size() && varies[i]) {
        shadow_.add_opaque_argument(i, node, args[i]);
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

Recorder::~Recorder() {
  graph_.set_site_source(nullptr);
  size_hints.objects = std::max(table_.size(), size_hints.objects / 2);
  size_hints.questions = std::max(once_.size(), size_hints.questions / 2);
}

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

PyObject* Recorder::object_of(NodeId node) const {
  for (const auto& [object, id] : table_) {
    if (id == node) return object;
  }
  return nullptr;
}

std::vector<PyObject*> Recorder::objects() const {
  std::vector<PyObject*> objects(tree_.size());
  for (const auto& [object, id] : table_) {
    if (id >= 0 && static_cast<size_t>(id) < objects.size() && objects[static_cast<size_t>(id)] == nullptr)
      objects[static_cast<size_t>(id)] = object;
  }
  return objects;
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

std::vector<Ref> Recorder::evaluated_codes() const {
  std::vector<Ref> codes;
  for (const auto& [code, nothing] : codes_) codes.push_back(Ref::share(code));
  return codes;
}

// The order of a set that the recording made follows from the hashes of its elements; that of one from
// outside is guarded.
void Recorder::keep_hash_order_local(PyObject* o) {
  if (process_local != nullptr || o == nullptr || !PyAnySet_Check(o)) return;
  PyObject* item;
  Py_hash_t hash;
  for (Py_ssize_t pos = 0; _PySet_NextEntry(o, &pos, &item, &hash);) {
    if (!PyLong_Check(item) && !PyFloat_CheckExact(item))
      return keep_local("the order of a set, which differs between processes");
  }
}

// A class is known again in another process by its name, its bases and the like (portable/fingerprint.h).
void Recorder::keep_class_facts_local(PyObject* name) {
  for (const char* known :
       {"__name__", "__qualname__", "__module__", "__mro__", "__bases__", "__base__", "__dict__"}) {
    if (PyUnicode_CompareWithASCIIString(name, known) == 0) return;
  }
  keep_local("a fact about a class that nothing guards");
}

void Recorder::note_class_question(const EvalFrame& frame, PyObject* const* argv, Py_ssize_t n,
                                   bool of_instance) {
  reads_abc_registry = true;
  if (n != 2 || !PyType_Check(argv[0])) return keep_local("a question to an abstract base class");
  // What answers it may ask the same of other classes.
  const auto code_of = [](const EvalFrame& f) { return py::frame_code(f.frame); };
  if (frame.caller != nullptr) {
    const PyCodeObject* inner = code_of(frame);
    const PyCodeObject* outer = code_of(*frame.caller);
    if (inner->co_filename == outer->co_filename &&
        (PyUnicode_CompareWithASCIIString(outer->co_name, "__instancecheck__") == 0 ||
         PyUnicode_CompareWithASCIIString(outer->co_name, "__subclasscheck__") == 0))
      return;
  }
  PyObject* asked = argv[1];
  if (of_instance) {
    static PyObject* const name = PyUnicode_InternFromString("__class__");
    if (_PyType_Lookup(Py_TYPE(asked), name) != _PyType_Lookup(&PyBaseObject_Type, name))
      return keep_local("an object that says what its class is");
    asked = reinterpret_cast<PyObject*>(Py_TYPE(asked));
  }
  for (const auto& [known, about] : class_questions) {
    if (known.get() == argv[0] && about.get() == asked) return;
  }
  class_questions.emplace_back(Ref::share(argv[0]), Ref::share(asked));
}

bool Recorder::once(PyObject* a, PyObject* b, int what) {
  if (!once_.try_emplace({a, reinterpret_cast<size_t>(b) | static_cast<size_t>(what)}).second) return false;
  // Another object at its address would be another question.
  if (b != nullptr) hold(b);
  return true;
}

bool Recorder::once_at(PyObject* container, size_t index) {
  constexpr size_t kItem = 8;
  return once_.try_emplace({container, index << 4 | kItem}).second;
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
  tree_.saw(node, object);
  watch(object, node);
  return node;
}

// Classes, modules, C functions and the like: the very object is what the program means.
static bool is_told_by_address(PyObject* v) {
  PyTypeObject* type = Py_TYPE(v);
  if (PyType_Check(v) || PyModule_Check(v) || PyCode_Check(v) || type == &PyMethodDescr_Type ||
      type == &PyWrapperDescr_Type || type == &PyGetSetDescr_Type || type == &PyMemberDescr_Type ||
      type == &PyClassMethodDescr_Type || rules().is_singleton_type(type))
    return true;
  if (PyCFunction_Check(v)) {
    PyObject* self = PyCFunction_GET_SELF(v);
    if (self == nullptr || PyModule_Check(self) || PyType_Check(self) || is_primitive(self) ||
        PyFrozenSet_CheckExact(self) || rules().is_function_record(self))
      return true;
  }
  return rules().is_enum_member(v);
}

NodeId Recorder::observe(NodeId node, PyObject* v) {
  if (tree_.size() > kMaxNodes) end(Break::k_too_large, "guards");
  tree_.saw(node, v);
  if (const auto [known, inserted] = table_.try_emplace(v, node); !inserted) {
    const NodeId first = *known;
    if (!opaque_.empty() && !takes_opaque_ && opaque_.contains(v))
      end(Break::k_unsupported_argument, Py_TYPE(v)->tp_name);
    if (first != node) {
      tree_.check(std::max(first, node), CheckKind::kSameAs, nullptr, std::min(first, node));
    }
    return first;
  }
  hold(v);
  PyTypeObject* type = Py_TYPE(v);
  if (ordinary_types_.contains(type)) {
    tree_.check(node, CheckKind::kTypeIs, reinterpret_cast<PyObject*>(type));
    return node;
  }
  const bool tensor = is_tensor(v);
  if (!tensor && is_told_by_address(v)) {
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
  } else if (tensor) {
    if (!graph_.register_input(unpack_tensor(v), node)) {
      end(Break::k_graph, graph_break_text(graph_));
      return node;
    }
    tree_.check_tensor(node, TensorMeta::of(v));
    tensor_nodes_.push_back(node);
    if (graph_.is_base()) region_.add_input(unpack_tensor(v));
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
    Ref count = Ref::steal(PyLong_FromSsize_t(defaults == nullptr ? 0 : PyTuple_GET_SIZE(defaults)));
    PyObject* has_kw = kw != nullptr && PyDict_GET_SIZE(kw) > 0 ? Py_True : Py_False;
    Ref state =
        Ref::steal(PyTuple_Pack(4, PyFunction_GET_CODE(v), count.get(), has_kw, PyFunction_GET_GLOBALS(v)));
    tree_.check(node, CheckKind::kFuncState, state.get());
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
  // What cannot be guarded of what the frame begins with is to end the recording before the call.
  frame_ = frame.caller != nullptr ? frame.caller : &frame;
  if (!shadow_.idle()) shadow_.enter(frame);
  if (ended_) return nullptr;  // a number that cannot be guarded did not arrive
  frame_ = &frame;
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
  if (rules().is_import_module(reinterpret_cast<PyObject*>(code))) {
    guarded([&] { rules().load_module(*this, frame); });
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
          if (shadow_.often_changes(node, CheckKind::kDefaultValue, nullptr, static_cast<int32_t>(i))) {
            frame_ = frame.caller != nullptr ? frame.caller : &frame;
            end(Break::k_changing_value, "a default");
            return nullptr;
          }
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

void Recorder::blame(PyObject* generator) {
  for (size_t i = made_.size(); i-- > 0;) {
    if (made_[i].first == generator || (generator == nullptr && is_fresh_class(made_[i].first))) {
      blamed_ = static_cast<int>(i);
      return;
    }
  }
}

}  // namespace flashpoint
