// Calls: which kind of callable it is, and so whether its frame will come through the hook or a rule decides.
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>

#include <c10/util/SmallVector.h>

#include "py/frame.h"
#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/dynamo_marks.h"
#include "record/graph_recorder.h"
#include "record/recorder.h"
#include "record/regions.h"
#include "record/rules/rules.h"
#include "record/substitutes.h"
#include "record/tracer_mode.h"

namespace flashpoint {

namespace {

bool is_heap(PyTypeObject* type) { return PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE); }

std::string c_name(PyObject* f) {
  Ref name = Ref::steal(PyObject_GetAttrString(f, "__qualname__"));
  Ref module = Ref::steal(PyObject_GetAttrString(f, "__module__"));
  PyErr_Clear();
  std::string text =
      module && PyUnicode_Check(module.get()) ? std::string(PyUnicode_AsUTF8(module.get())) + "." : "";
  return text + (name && PyUnicode_Check(name.get()) ? PyUnicode_AsUTF8(name.get()) : Py_TYPE(f)->tp_name);
}

// numpy's functions of numbers: what they give depends on nothing else.
bool is_numpy_function(PyObject* f) {
  const std::string_view type = Py_TYPE(f)->tp_name;
  if (PyType_HasFeature(Py_TYPE(f), Py_TPFLAGS_HEAPTYPE) ||
      (type != "numpy.ufunc" && type != "numpy._ArrayFunctionDispatcher"))
    return false;
  static const std::unordered_set<std::string_view> kNames{
      "sqrt",     "log",      "log2",   "log10",       "log1p",        "exp",       "expm1",   "sin",
      "cos",      "tan",      "tanh",   "arctan",      "power",        "floor",     "ceil",    "trunc",
      "rint",     "round",    "around", "abs",         "absolute",     "sign",      "square",  "add",
      "subtract", "multiply", "divide", "true_divide", "floor_divide", "remainder", "maximum", "minimum",
      "prod",     "sum",      "mean",   "max",         "min",          "amax",      "amin",    "clip",
      "deg2rad",  "rad2deg",  "hypot",  "isnan",       "isinf",        "isfinite",  "gcd",     "lcm"};
  Ref name = Ref::steal(PyObject_GetAttrString(f, "__name__"));
  PyErr_Clear();
  return name && PyUnicode_Check(name.get()) && kNames.contains(PyUnicode_AsUTF8(name.get()));
}

// The Python function that torch.jit.script made a callable of, borrowed. What torch.jit.trace made of one
// follows the traced call, so it is not asked for.
PyObject* scripted_function(PyObject* f) {
  if (!std::string_view(Py_TYPE(f)->tp_name).ends_with("ScriptFunction")) return nullptr;
  PyObject* dict = py::instance_dict(f);
  if (dict == nullptr || PyDict_GetItemString(dict, "__qualname__") == nullptr) return nullptr;
  PyObject* function = PyDict_GetItemString(dict, "_torchdynamo_inline");
  return function != nullptr && PyFunction_Check(function) ? function : nullptr;
}

}  // namespace

void Recorder::end_disabled(PyObject* function, PyObject* message) {
  PyObject* mark = disabling_mark(function);
  if (mark == nullptr || !PyUnicode_Check(mark)) mark = message;
  const char* text = mark != nullptr && PyUnicode_Check(mark) ? PyUnicode_AsUTF8(mark) : nullptr;
  const char* name = PyUnicode_AsUTF8(reinterpret_cast<PyFunctionObject*>(function)->func_qualname);
  end(Break::k_disabled, std::string(name == nullptr ? "?" : name) + (text == nullptr ? "" : ": ") +
                             (text == nullptr ? "" : text));
}

void Recorder::call(EvalFrame& frame, const Operands& o, Pending& pending) {
  resolve_call(frame, o.a, o.args, o.nargs, o.kwnames, pending, 0);
  if ((pending.word == kPendingLiteral || pending.word == kPendingItem) && !ended_) {
    // The fill of a literal does not show at the dispatcher; its steps are no part of the graph. What reads a
    // number is noted as a whole.
    NoTracerDispatchMode hidden;
    call_instead(o.a, o.args, o.nargs, o.kwnames, pending);
    if (std::exchange(pending.raise, false))
      PyErr_Clear();  // the evaluator makes the call, and it raises again
  }
}

void Recorder::resolve_call(EvalFrame& frame, PyObject* f, PyObject* const* args, Py_ssize_t n,
                            PyObject* kwnames, Pending& pending, int depth) {
  if (ended_) return;
  if (depth > 16) return end(Break::k_unknown_c_function, "a deep chain of callables");
  if (PyObject* other = depth == 0 ? substitute_of(f) : nullptr) {
    pending.instead = other;
    return resolve_call(frame, other, args, n, kwnames, pending, 1);
  }
  if (PyFunction_Check(f)) {  // its frame comes through the hook
    if (PyObject* inner = rules().undisabled(f)) {
      NodeId node = node_of(f);
      if (node != kNoNode) {
        PyObject* closure = PyFunction_GET_CLOSURE(f);
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(closure); ++i) {
          if (PyCell_GET(PyTuple_GET_ITEM(closure, i)) != inner) continue;
          const NodeId cell = observe(tree_.child(node, Step::kFuncClosure, nullptr, static_cast<int32_t>(i)),
                                      PyTuple_GET_ITEM(closure, i));
          observe(tree_.child(cell, Step::kCellContents), inner);
        }
      }
      return call_instead(inner, args, n, kwnames, pending);
    }
    if (rules().is_graph_break(PyFunction_GET_CODE(f)) || disabling_mark(f) != nullptr) {
      const bool ignored =
          rules().may_break_graph(reinterpret_cast<PyObject*>(py::frame_code(frame.frame))) ||
          (disabling_mark(f) == nullptr && is_allowed_in_graph(frame));
      // graph_break(msg)
      if (!ignored)
        return end_disabled(
            f, n + (kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames)) == 1 ? args[0] : nullptr);
      pending.answer = Py_NewRef(Py_None);
      return;
    }
    if (is_disallowed_in_graph(f)) return end_disabled(f);
    if (!graph_.is_base() && rules().needs_base(PyFunction_GET_CODE(f))) {
      const char* name = PyUnicode_AsUTF8(reinterpret_cast<PyFunctionObject*>(f)->func_qualname);
      return need_base(name == nullptr ? "" : name);
    }
    // For C code it is a key; called by name, it hands out an address as a number.
    if (rules().is_hash_by_address(PyFunction_GET_CODE(f))) return end(Break::k_identity_value, "__hash__");
    if (rules().is_pure_python(PyFunction_GET_CODE(f))) {
      return rules().call_pure_python(*this, f, args, n, kwnames, pending);
    }
    if (rules().call_hooks(*this, f, args, n, kwnames, pending)) return;
    if (call_marked(frame, f, args, n, kwnames, pending, depth)) return;
    return expect(frame, f, FrameLink::kResult);
  }
  const Py_ssize_t total = n + (kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames));
  auto with_receiver = [&](PyObject* self) {
    c10::SmallVector<PyObject*, 16> argv{self};
    argv.append(args, args + total);
    return argv;
  };
  if (PyMethod_Check(f)) {
    PyObject* function = PyMethod_GET_FUNCTION(f);
    PyObject* self = PyMethod_GET_SELF(f);
    const NodeId node = node_of(f);
    if (node != kNoNode) {
      observe(tree_.child(node, Step::kMethodFunc), function);
      if (is_primitive(self)) return end(Break::k_unsupported_argument, "a method of a primitive");
      observe(tree_.child(node, Step::kMethodSelf), self);
    }
    if (PyFunction_Check(function))
      return resolve_call(frame, function, args, n, kwnames, pending, depth + 1);
    const auto argv = with_receiver(self);
    return resolve_call(frame, function, argv.data(), n + 1, kwnames, pending, depth + 1);
  }
  if (PyCFunction_Check(f)) {
    auto* c = reinterpret_cast<PyCFunctionObject*>(f);
    if (answers_tracing_queries && !hosted_call_runs_) {
      if (PyObject* answer = rules().tracing_query_c(c->m_ml)) {
        pending.answer = Py_NewRef(answer);
        return;
      }
    }
    if (is_disallowed_in_graph(f)) return end(Break::k_disabled, c_name(f));
    const RuleRow row = rules().function(c->m_ml);
    if (row.rule == Rule::kNone) {
      // torch.ops: every operator has a C function of its own, called from one place.
      if (rules().calls_operators(reinterpret_cast<PyObject*>(py::frame_code(frame.frame)))) {
        return call_torch(c->m_ml->ml_name, args, n, kwnames);
      }
      return end(Break::k_unknown_c_function, c_name(f));
    }
    if (row.rule == Rule::kFunctionApply) return apply_function(frame, f, args, n, kwnames, pending);
    PyObject* self = PyCFunction_GET_SELF(f);
    const NodeId node = node_of(f);
    const bool receiver = self != nullptr && !PyModule_Check(self) && !(c->m_ml->ml_flags & METH_STATIC) &&
                          !Py_IS_TYPE(self, &PyCapsule_Type) && !rules().is_function_record(self);
    const bool immutable = self != nullptr && (is_primitive(self) || PyFrozenSet_CheckExact(self));
    if (receiver && node != kNoNode && !PyType_Check(self) && !immutable && node_of(self) == kNoNode) {
      return end(Break::k_unsupported_argument, "a bound C method that existed before the call");
    }
    if (receiver && (!PyType_Check(self) || row.rule == Rule::kObjectNew || row.rule == Rule::kReduce ||
                     row.rule == Rule::kConstant)) {
      if (row.rule == Rule::kObjectNew) {
        auto* owner = reinterpret_cast<PyTypeObject*>(self);
        if (rules().type(owner).rule == Rule::kNone &&
            !PyType_IsSubtype(owner, reinterpret_cast<PyTypeObject*>(PyExc_BaseException)))
          return end(Break::k_unknown_c_function, std::string(owner->tp_name) + ".__new__");
      }
      if (row.rule == Rule::kObjectNew) return rules().call(*this, frame, row, args, n, kwnames, pending);
      const auto argv = with_receiver(self);
      return rules().call(*this, frame, row, argv.data(), n + 1, kwnames, pending);
    }
    return rules().call(*this, frame, row, args, n, kwnames, pending);
  }
  PyTypeObject* type = Py_TYPE(f);
  if (type == &PyMethodDescr_Type || type == &PyClassMethodDescr_Type) {
    const RuleRow row = rules().function(reinterpret_cast<PyMethodDescrObject*>(f)->d_method);
    if (row.rule == Rule::kNone) return end(Break::k_unknown_c_function, c_name(f));
    return rules().call(*this, frame, row, args, n, kwnames, pending);
  }
  if (type == &PyWrapperDescr_Type) {
    const RuleRow row = rules().slot(reinterpret_cast<PyWrapperDescrObject*>(f));
    if (row.rule == Rule::kNone) return end(Break::k_unknown_c_function, c_name(f));
    return rules().call(*this, frame, row, args, n, kwnames, pending);
  }
  if (type == &_PyMethodWrapper_Type) {
    auto* w = reinterpret_cast<py::MethodWrapperLayout*>(f);
    // A bound slot of a function object is a call of that function.
    if (PyFunction_Check(w->self) && type->tp_call != nullptr &&
        std::string_view(w->descriptor->d_base->name) == "__call__") {
      return expect(frame, w->self, FrameLink::kResult);
    }
    const RuleRow row = rules().slot(w->descriptor);
    if (row.rule == Rule::kNone || node_of(f) != kNoNode) return end(Break::k_unknown_c_function, c_name(f));
    const auto argv = with_receiver(w->self);
    return rules().call(*this, frame, row, argv.data(), n + 1, kwnames, pending);
  }
  if (PyType_Check(f))
    return call_type(reinterpret_cast<PyTypeObject*>(f), args, n, kwnames, &frame, &pending);
  if (rules().is_partial(f)) {
    auto* p = reinterpret_cast<py::PartialLayout*>(f);
    rules().read_partial(*this, f);
    c10::SmallVector<PyObject*, 16> argv;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(p->args); ++i) argv.push_back(PyTuple_GET_ITEM(p->args, i));
    const Py_ssize_t positional = static_cast<Py_ssize_t>(argv.size()) + n;
    argv.append(args, args + total);
    PyObject *key, *value;
    Py_ssize_t pos = 0;
    std::vector<PyObject*> names;
    for (Py_ssize_t i = 0; kwnames != nullptr && i < PyTuple_GET_SIZE(kwnames); ++i)
      names.push_back(PyTuple_GET_ITEM(kwnames, i));
    while (PyDict_Next(p->keywords, &pos, &key, &value)) {
      argv.push_back(value);
      names.push_back(key);
    }
    Ref merged = Ref::steal(PyTuple_New(static_cast<Py_ssize_t>(names.size())));
    for (size_t i = 0; i < names.size(); ++i) PyTuple_SET_ITEM(merged.get(), i, Py_NewRef(names[i]));
    return resolve_call(frame, p->function, argv.data(), positional, names.empty() ? nullptr : merged.get(),
                        pending, depth + 1);
  }
  if (rules().is_weakref(f)) {
    const NodeId node = node_of(f);
    if (node == kNoNode || total != 0) return;  // made in the call, of what it was made from
    PyObject* target = PyWeakref_GET_OBJECT(f);
    const NodeId child = tree_.child(node, Step::kWeakTarget);
    if (target == Py_None) {
      tree_.check(child, CheckKind::kValue, Py_None);
    } else {
      observe(child, target);
    }
    return;
  }
  if (is_numpy_function(f)) {
    // What it answers is a constant of the recording, so it has to be this very function.
    if (node_of(f) == kNoNode) return end(Break::k_unknown_c_function, c_name(f));
    pin(f);
    for (Py_ssize_t i = 0; i < total; ++i) {
      if (PyType_Check(args[i])) continue;
      if (!read_deep(args[i]) || rules().holds_tensor(args[i]) || is_tensor(args[i]))
        return end(Break::k_unknown_c_function, c_name(f) + " of something that is no number");
    }
    bool* observing = graph_.observing();
    const bool saved = observing != nullptr && std::exchange(*observing, false);
    Ref answer = Ref::steal(PyObject_Vectorcall(f, args, static_cast<size_t>(n), kwnames));
    if (observing != nullptr) *observing = saved;
    if (!answer) PyErr_Clear();
    if (!answer || !is_primitive(answer.get()))
      return end(Break::k_unknown_c_function, c_name(f) + ": an array");
    pending.answer = answer.release();
    return;
  }
  if (rules().is_getter(f)) return rules().call_getter(*this, f, args, total);
  if (rules().is_lru_cache(f)) {
    return call_cached(f, args, n, kwnames, pending);
  }
  if (py::is_compiled_function(f)) {
    // Inlined: its call runs the function it was made from.
    PyObject* inner = reinterpret_cast<py::CompiledFunctionLayout*>(f)->function;
    if (node_of(f) != kNoNode) tree_.check(node_of(f), CheckKind::kIs, f);
    observe(tree_.child(kNoNode, Step::kConst, inner), inner);
    return resolve_call(frame, inner, args, n, kwnames, pending, depth + 1);
  }
  if (PyObject* scripted = depth == 0 ? scripted_function(f) : nullptr) {
    if (node_of(f) != kNoNode) tree_.check(node_of(f), CheckKind::kIs, f);
    observe(tree_.child(kNoNode, Step::kConst, scripted), scripted);
    pending.instead = scripted;
    return resolve_call(frame, scripted, args, n, kwnames, pending, depth + 1);
  }
  if (is_heap(type)) {
    PyObject* method = type_lookup(type, "__call__");
    if (method != nullptr && PyFunction_Check(method)) expect(frame, method, FrameLink::kResult);
    if (method == nullptr || PyFunction_Check(method)) return;
  }
  end(Break::k_unknown_c_function, c_name(f));
}

void Recorder::call_type(PyTypeObject* type, PyObject* const* args, Py_ssize_t n, PyObject* kwnames,
                         EvalFrame* frame, Pending* pending) {
  const bool fresh = is_fresh_class(reinterpret_cast<PyObject*>(type));
  if (fresh && Py_TYPE(type) != &PyType_Type)
    return end(Break::k_unknown_c_function, "an instance of a class made in the call");
  if (rules().type(type).rule == Rule::kStateManager) {
    const Py_ssize_t total = n + (kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames));
    for (Py_ssize_t i = 0; i < total; ++i) {
      if (!is_primitive(args[i])) return end(Break::k_unknown_c_function, type->tp_name);
    }
    begin_inference_region(serial);
    return;
  }
  const Rule own = rules().type(type).rule;
  if (!is_heap(type) || own == Rule::kLegacyTensor || own == Rule::kLegacyVariable) {
    const RuleRow row = rules().type(type);
    if (row.rule == Rule::kNone) {
      if (PyType_IsSubtype(type, reinterpret_cast<PyTypeObject*>(PyExc_BaseException))) return;
      return end(Break::k_unknown_c_function, type->tp_name);
    }
    Pending local;
    return rules().call(*this, *(frame == nullptr ? frame_ : frame), row, args, n, kwnames,
                        pending == nullptr ? local : *pending);
  }
  PyTypeObject* meta = Py_TYPE(type);
  PyObject* type_as_object = reinterpret_cast<PyObject*>(type);
  if (meta != &PyType_Type) {
    PyObject* call = type_lookup(meta, "__call__");
    if (call != nullptr && PyFunction_Check(call) && frame != nullptr)
      return expect(*frame, call, FrameLink::kResult);
  }
  if (!fresh && node_of(type_as_object) == kNoNode)
    watch(type_as_object, tree_.child(kNoNode, Step::kTypeRoot, type_as_object));
  PyObject* make = type_lookup(type, "__new__");
  if (make != nullptr && Py_IS_TYPE(make, &PyStaticMethod_Type)) read_descriptor(make);
  PyObject* init = type_lookup(type, "__init__");
  if (make != nullptr && PyCFunction_Check(make)) {
    // A C constructor under a Python class: known ones only.
    PyObject* owner = PyCFunction_GET_SELF(make);
    auto* base = owner != nullptr && PyType_Check(owner) ? reinterpret_cast<PyTypeObject*>(owner) : nullptr;
    const RuleRow row = base == nullptr ? RuleRow{} : rules().type(base);
    const bool exception =
        base != nullptr && PyType_IsSubtype(base, reinterpret_cast<PyTypeObject*>(PyExc_BaseException));
    if (row.rule == Rule::kNone && !exception)
      return end(Break::k_unknown_c_function, std::string("constructor of ") + type->tp_name);
    // The exceptions of a group are taken out of what holds them; other constructors keep what they are
    // given.
    if (exception && PyType_IsSubtype(type, reinterpret_cast<PyTypeObject*>(PyExc_BaseExceptionGroup)) &&
        n > 1)
      read_iterable_if_container(args[1]);
    if (base != &PyBaseObject_Type && !exception) {
      const Py_ssize_t total = n + (kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames));
      for (Py_ssize_t i = 0; i < total; ++i) read_iterable_if_container(args[i]);
      if (PyType_IsSubtype(base, &PyTuple_Type) || PyType_IsSubtype(base, &PyLong_Type) ||
          PyType_IsSubtype(base, &PyFloat_Type) || PyType_IsSubtype(base, &PyUnicode_Type)) {
        for (Py_ssize_t i = 0; i < total; ++i) {
          if (!read_deep(args[i]) && !PyType_IsSubtype(base, &PyTuple_Type)) {
            return end(Break::k_unknown_c_function, type->tp_name);
          }
        }
      }
    }
  }
  if (init != nullptr && PyFunction_Check(init) && frame != nullptr &&
      !(make != nullptr && PyFunction_Check(make))) {
    expect(*frame, init, FrameLink::kInit);
  }
  if (init != nullptr && Py_IS_TYPE(init, &PyWrapperDescr_Type)) {
    PyTypeObject* owner = PyDescr_TYPE(init);
    const bool exception = PyType_IsSubtype(owner, reinterpret_cast<PyTypeObject*>(PyExc_BaseException));
    if (owner != &PyBaseObject_Type && rules().type(owner).rule == Rule::kNone && !exception) {
      end(Break::k_unknown_c_function, std::string("constructor of ") + type->tp_name);
    }
    const Py_ssize_t total = n + (kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames));
    for (Py_ssize_t i = 0; !exception && i < total; ++i) read_iterable_if_container(args[i]);
  }
}

static bool is_profiler_range(PyObject* script_object) {
  const Ref type = Ref::steal(PyObject_CallMethod(script_object, "_type", nullptr));
  const Ref name = Ref::steal(type ? PyObject_CallMethod(type.get(), "qualified_name", nullptr) : nullptr);
  if (!name) PyErr_Clear();
  return name && PyUnicode_Check(name.get()) &&
         PyUnicode_CompareWithASCIIString(name.get(), "__torch__.torch.classes.profiler._RecordFunction") ==
             0;
}

void Recorder::call_torch(const char* name, PyObject* const* args, Py_ssize_t n, PyObject* kwnames) {
  const Py_ssize_t total = n + (kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames));
  for (Py_ssize_t i = 0; i < total && !ended_; ++i) {
    PyObject* a = args[i];
    // No operator sets it: the tensor is made, and then it is a leaf.
    if (i >= n && a == Py_True && !graph_.is_base() &&
        PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, i - n), "requires_grad") == 0)
      return need_base(std::string(name) + "(requires_grad=True)");
    if (is_tensor(a)) {
      if (!is_plain_tensor(a))
        end(Break::k_unsupported_argument, std::string("tensor subclass ") + Py_TYPE(a)->tp_name);
      continue;
    }
    if (rules().is_enum_member(a)) continue;
    // The dispatcher decides; to end a range of the profiler is nothing that replay repeats.
    if (rules().is_script_object(a) && (node_of(a) == kNoNode || is_profiler_range(a))) continue;
    if (!read_deep(a) && !PyRange_Check(a)) {
      if (rules().answers_torch_functions(*this, a)) continue;
      if (i == 0 && PyType_Check(a)) continue;
      return end(Break::k_unknown_c_function,
                 std::string(name) + " with an argument of type " + Py_TYPE(a)->tp_name);
    }
  }
}

void Recorder::after_call(const Operands& o, const Pending& pending, PyObject* result) {
  if (pending.word == kPendingCached || pending.word == kPendingTyping) return after_cached(pending, result);
  if (pending.word == kPendingFunction) return after_function(o, result);
  rules().after_call(*this, o, pending, result);
}

}  // namespace flashpoint
