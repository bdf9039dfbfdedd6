#include "driver/compiled_function.h"

#include <structmember.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/counters.h"
#include "base/log.h"
#include "driver/code_extra.h"
#include "driver/described.h"
#include "driver/limits.h"
#include "driver/recording_hook.h"
#include "driver/recordings.h"
#include "driver/session.h"
#include "driver/stance.h"
#include "py/layout.h"
#include "record/rules/rules.h"
#include "record/tracer_mode.h"

namespace flashpoint {

namespace {

struct CompiledFunction {
  PyObject_HEAD PyObject* function;  // the first field: py::CompiledFunctionLayout
  vectorcallfunc vectorcall;
  PyObject* dict;
  PyObject* weakrefs;
  std::shared_ptr<CodeState>* state;
  PyObject* code;    // whose frames its calls are; null where that is not known
  CodeExtra* extra;  // of that code object
};

std::unordered_set<CompiledFunction*>& live() {
  static auto* set = new std::unordered_set<CompiledFunction*>();
  return *set;
}

std::string name_of(PyObject* function) {
  PyObject* f = PyMethod_Check(function) ? PyMethod_GET_FUNCTION(function) : function;
  if (!PyFunction_Check(f)) return Py_TYPE(f)->tp_name;
  const char* text = PyUnicode_AsUTF8(reinterpret_cast<PyFunctionObject*>(f)->func_qualname);
  if (text == nullptr) PyErr_Clear();
  return text == nullptr ? "?" : text;
}

std::string name_of(PyObject* function, const CodeState& state) {
  return state.name.empty() ? name_of(function) : state.name;
}

PyObject* call_eagerly(PyObject* function, PyObject* const* args, size_t nargs, PyObject* kwnames) {
  ++counters().eager_calls;
  return PyObject_Vectorcall(function, args, nargs, kwnames);
}

SessionOptions session_options(PyObject* function, const CodeState& state) {
  const DriverConfig& config = driver_config();
  SessionOptions options;
  options.tracing_state_queries = config.tracing_state_queries;
  options.verify = config.verify;
  options.poison_empty = config.poison_empty;
  options.resume = config.resume_breaks;
  options.value_guards = config.value_guards;
  options.capture_scalars = config.capture_scalars || dynamo_sets("capture_scalar_outputs");
  options.fail_at_event = config.fail_at_event;
  options.break_at_event = config.break_at_event;
  options.measure = config.measure_breaks;
  if (log_enabled(LogKind::kCapture) || log_enabled(LogKind::kMiss) || log_enabled(LogKind::kBreak))
    options.name = name_of(function, state);
  return options;
}

PyObject* record_call(std::shared_ptr<CodeState> state, PyObject* function, PyObject* const* args,
                      size_t nargs, PyObject* kwnames) {
  SessionOptions options = session_options(function, *state);
  options.fullgraph = state->fullgraph;
  options.resume = may_resume(*state);
  Session session(state, options);
  const EntryTally before = has_recording_hook() ? tally_entries(*state) : EntryTally{};
  PyObject* result = session.record(function, args, nargs, kwnames);
  if (has_recording_hook()) tell_recording(*state, before);
  if (log_enabled(LogKind::kBreak)) {
    for (const BreakReport& report : state->reports) {
      log_line("break in " + name_of(function, *state) + " at " + report.location + " (" + report.function +
               "): " + break_name(report.reason) + (report.detail.empty() ? "" : ": " + report.detail));
    }
  }
  // Where the program has caught the error, or the break came behind its last instruction.
  if (state->fullgraph && !state->reports.empty() && !state->learned_level) {
    const BreakReport& first = state->reports.front();
    const bool lost = result == nullptr && first.reason != Break::k_internal &&
                      PyErr_ExceptionMatches(PyExc_Exception) != 0 && !session.has_raised_break();
    if (first.reason != Break::k_exception && (result != nullptr || lost)) {
      Py_CLEAR(result);
      PyErr_Clear();
      session.raise_break(first);
    }
  }
  return result;
}

PyObject* fail_on_recompile(PyObject* function, const PositionEntries& start, PyObject* error,
                            const char* ruled_out_by) {
  std::string why;
  if (!start.entries.empty()) {
    const Entry& entry = *start.entries.front();
    why = "; the last entry does not fit: " + entry.explain_miss();
  }
  PyErr_Format(error, "[flashpoint.compile] %s would be recorded, and %s%s", name_of(function).c_str(),
               ruled_out_by, why.c_str());
  return nullptr;
}

// The class of TorchDynamo's errors that programs which come from torch.compile catch.
PyObject* recompile_error() {
  Ref module = Ref::steal(PyImport_ImportModule("torch._dynamo.exc"));
  Ref error = Ref::steal(module ? PyObject_GetAttrString(module.get(), "RecompileError") : nullptr);
  if (!error) PyErr_Clear();
  return error ? error.release() : Py_NewRef(PyExc_RuntimeError);
}

FrameAction action_of(const CompiledFunction& self) {
  const FrameAction own = self.extra == nullptr ? FrameAction::kDefault : self.extra->strategy.current;
  return own != FrameAction::kDefault ? own : inherited_action();
}

// Entries of the store run with the backend that they were loaded for, and what a Python backend made of one
// for the compiled function that asked for it; those that were loaded by hand run with any.
bool fits_options(const Entry& entry, const CodeState& state) {
  if (entry.suspension && !may_resume(state)) return false;
  if (entry.loaded_by == nullptr) return true;
  return state.uses_store && entry.loaded_backend == state.backend_number() &&
         (!state.compiler || entry.loaded_by == &state);
}

// What was recorded gets its number, and is there for other processes.
void note_recordings(const CompiledFunction& self, const std::shared_ptr<CodeState>& state) {
  if (self.extra == nullptr) return;
  self.extra->number_entries(*state);
  keep_entries(state);
}

PyObject* resume(const CompiledFunction& self, const std::shared_ptr<CodeState>& state, PyObject* function,
                 const std::shared_ptr<Entry>& entry, BuiltStack stack) {
  Session session(state, session_options(function, *state));
  PyObject* result = session.resume(entry, std::move(stack));
  if (session.has_recorded()) note_recordings(self, state);
  return result;
}

// True when a loaded entry answered the call: result is what it returned, null with an error set.
bool call_precompiled(const CompiledFunction& self, PyObject* function, PyObject* const* args, size_t nargs,
                      PyObject* kwnames, const GlobalState& now, const OuterHandling& outer,
                      PyObject** result) {
  const std::shared_ptr<CodeState> state = *self.state;
  const std::vector<std::shared_ptr<Entry>> entries = self.extra->precompiled;  // may change meanwhile
  for (const std::shared_ptr<Entry>& entry : entries) {
    // Guards reach the closure and the defaults through the function itself.
    if (entry->function != function) continue;
    if (!fits_options(*entry, *state)) continue;
    BuiltStack stack;
    const Outcome outcome = entry->call(args, nargs, kwnames, now, outer, result, &stack);
    if (outcome == Outcome::kMiss) continue;
    if (outcome == Outcome::kRestart) {
      *result = call_eagerly(function, args, nargs, kwnames);
      return true;
    }
    ++counters().hits;
    ++counters().precompile_hits;
    if (entry->suspension && !stack.frames.empty()) {
      know_function({*state, *self.extra, self.code}, {function, args, nargs, kwnames, now, outer});
      *result = resume(self, state, function, entry, std::move(stack));
    }
    return true;
  }
  return false;
}

PyObject* vectorcall(PyObject* callable, PyObject* const* args, size_t nargsf, PyObject* kwnames) {
  auto* self = reinterpret_cast<CompiledFunction*>(callable);
  size_t nargs = PyVectorcall_NARGS(nargsf);
  PyObject* function = self->function;
  std::vector<PyObject*> with_self;
  if (PyMethod_Check(function)) {
    const size_t total = nargs + (kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames));
    with_self.reserve(total + 1);
    with_self.push_back(PyMethod_GET_SELF(function));
    with_self.insert(with_self.end(), args, args + total);
    args = with_self.data();
    ++nargs;
    function = PyMethod_GET_FUNCTION(function);
  }
  Ref keep_function = Ref::share(function);
  if (capturing()) return PyObject_Vectorcall(function, args, nargs, kwnames);
  const Stance stance = current_stance();
  if (stance == Stance::kForceEager || !global_state_supported() || !PyFunction_Check(function) ||
      disabled_depth() > 0)
    return call_eagerly(function, args, nargs, kwnames);
  const std::shared_ptr<CodeState> state = *self->state;
  PositionEntries& start = state->start;
  const FrameAction action = action_of(*self);
  if (action == FrameAction::kSkip) return call_eagerly(function, args, nargs, kwnames);
  const GlobalState now = GlobalState::now();
  const OuterHandling outer = OuterHandling::now();
  if (self->extra != nullptr && !self->extra->precompiled.empty()) {
    PyObject* result = nullptr;
    if (call_precompiled(*self, function, args, nargs, kwnames, now, outer, &result)) return result;
  }
  std::optional<CallSignature> signature;
  size_t guess = 0;
  if (start.entries.size() > PositionEntries::kFew) {
    signature = call_signature(args, nargs, kwnames);
    guess = start.guess(*signature);
  }
  for (size_t n = 0; n < start.entries.size(); ++n) {
    const size_t i = PositionEntries::nth(n, guess);
    std::shared_ptr<Entry> entry = start.entries[i];
    PyObject* result = nullptr;
    BuiltStack stack;
    entry->tells_what_it_met = i == 0 || log_enabled(LogKind::kMiss);  // that is what reports show
    const Outcome outcome = entry->call(args, nargs, kwnames, now, outer, &result, &stack);
    if (outcome == Outcome::kDone) {
      ++counters().hits;
      if (signature) start.note_answer(*signature, entry.get());
      start.used(i, entry.get());
      if (entry->suspension && !stack.frames.empty())
        return resume(*self, state, function, entry, std::move(stack));
      return result;
    }
    if (outcome == Outcome::kRestart) return call_eagerly(function, args, nargs, kwnames);
    if (log_enabled(LogKind::kMiss)) {
      log_line("miss in " + name_of(function, *state) + ": " + entry->explain_miss());
    }
    if (start.wears_out(i, *state)) {
      if (i <= guess) guess = n == 0 ? 0 : guess - 1;
      --n;
    }
  }
  if (self->extra != nullptr && !is_dispatch_hidden() && recordings_enabled()) {
    const StoredCall call{function, args, nargs, kwnames, now, outer};
    PyObject* result = nullptr;
    if (load_entries({*state, *self->extra, self->code}, call)) {
      if (call_precompiled(*self, function, args, nargs, kwnames, now, outer, &result)) return result;
      note_missed_entry({*state, *self->extra, self->code});
    } else if (PyErr_Occurred() != nullptr) {
      return nullptr;
    }
  }
  if (!start.entries.empty()) ++counters().misses;
  if (action == FrameAction::kRunOnly) return call_eagerly(function, args, nargs, kwnames);
  if (stance == Stance::kEagerOnRecompile || is_run_only())
    return call_eagerly(function, args, nargs, kwnames);
  if (stance == Stance::kEagerThenCompile && !std::exchange(state->waited, true))
    return call_eagerly(function, args, nargs, kwnames);
  if (stance == Stance::kFailOnRecompile)
    return fail_on_recompile(function, start, PyExc_RuntimeError, "the stance is 'fail_on_recompile'");
  // Inside NoTracerDispatchMode operators cannot be recorded.
  if (is_dispatch_hidden() || disabling_mark(function) != nullptr)
    return call_eagerly(function, args, nargs, kwnames);
  if (const Limit limit = limit_reached(*state, self->extra); limit.setting != nullptr) {
    const std::string last_miss =
        start.entries.empty() ? std::string() : start.entries.front()->explain_miss();
    if (!runs_eagerly_at_limit(*state, limit, name_of(function, *state), last_miss)) return nullptr;
    return call_eagerly(function, args, nargs, kwnames);
  }
  // What may have no break says so each time.
  if (!start.may_record() && !state->fullgraph) {
    if (log_enabled(LogKind::kBreak))
      log_line("skip " + name_of(function, *state) + ", " + std::to_string(start.rest) +
               " more times: " + start.rest_reason);
    return call_eagerly(function, args, nargs, kwnames);
  }
  if (!start.entries.empty()) {
    if (dynamo_sets("error_on_recompile")) {
      const Ref error = Ref::steal(recompile_error());
      return fail_on_recompile(function, start, error.get(),
                               "torch._dynamo.config.error_on_recompile is set");
    }
    state->note_recompile(start.entries.front()->explain_miss());
  }
  PyObject* result = record_call(state, function, args, nargs, kwnames);
  note_recordings(*self, state);
  return result;
}

// Compiled functions that are called meanwhile do as this one's code says.
PyObject* call_within_strategy(PyObject* callable, PyObject* const* args, size_t nargsf, PyObject* kwnames) {
  const auto* self = reinterpret_cast<CompiledFunction*>(callable);
  if (self->extra == nullptr || self->extra->strategy.recursive == FrameAction::kDefault) [[likely]]
    return vectorcall(callable, args, nargsf, kwnames);
  const ActionScope scope(self->extra->strategy.recursive);
  return vectorcall(callable, args, nargsf, kwnames);
}

PyObject* make(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* names[] = {"fn", "options", nullptr};
  PyObject *fn, *options = nullptr;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O!", const_cast<char**>(names), &fn, &PyDict_Type,
                                   &options)) {
    return nullptr;
  }
  if (!PyCallable_Check(fn)) {
    PyErr_Format(PyExc_TypeError, "[flashpoint.compile] takes a callable, not %s", Py_TYPE(fn)->tp_name);
    return nullptr;
  }
  auto* self = reinterpret_cast<CompiledFunction*>(type->tp_alloc(type, 0));
  if (self == nullptr) return nullptr;
  self->function = Py_NewRef(fn);
  self->vectorcall = call_within_strategy;
  self->state = new std::shared_ptr<CodeState>(std::make_shared<CodeState>());
  if (options != nullptr) {
    PyObject* fullgraph = PyDict_GetItemString(options, "fullgraph");
    (*self->state)->fullgraph = fullgraph == Py_True;
    PyObject* backend = PyDict_GetItemString(options, "backend");
    if (backend != nullptr && PyUnicode_Check(backend) &&
        PyUnicode_CompareWithASCIIString(backend, "native") == 0) {
      (*self->state)->backend = Backend::kNative;
    }
    PyObject* limit = PyDict_GetItemString(options, "recompile_limit");
    if (limit != nullptr && PyLong_Check(limit)) (*self->state)->recompile_limit = PyLong_AsLong(limit);
    PyObject* name = PyDict_GetItemString(options, "name");
    const char* text = name == nullptr ? "" : PyUnicode_AsUTF8(name);
    if (text == nullptr) {
      Py_DECREF(self);
      return nullptr;
    }
    (*self->state)->name = text;
    (*self->state)->compiler = Ref::share(PyDict_GetItemString(options, "compiler"));
    (*self->state)->uses_store = PyDict_GetItemString(options, "store") != Py_False;
  }
  self->code = code_of(fn).release();
  if (self->code != nullptr) {
    self->extra = code_extra(self->code, true);
    if (self->extra == nullptr) {
      Py_DECREF(self);
      return nullptr;
    }
    self->extra->join(*self->state);
  }
  live().insert(self);
  return reinterpret_cast<PyObject*>(self);
}

// What is running keeps the old state; entries may run Python code when they go.
void forget(CompiledFunction* self) {
  write_kept_entries(self->state->get());
  auto fresh = std::make_shared<CodeState>();
  fresh->fullgraph = (*self->state)->fullgraph;
  fresh->backend = (*self->state)->backend;
  fresh->recompile_limit = (*self->state)->recompile_limit;
  fresh->name = (*self->state)->name;
  fresh->compiler = (*self->state)->compiler;
  fresh->uses_store = (*self->state)->uses_store;
  if (self->extra != nullptr) self->extra->join(fresh);
  const std::shared_ptr<CodeState> old = std::exchange(*self->state, std::move(fresh));
  std::vector<std::shared_ptr<Entry>> loaded;  // dropped last
  if (self->extra != nullptr) {
    std::vector<std::shared_ptr<Entry>> rest;
    for (const auto& entry : self->extra->precompiled)
      (entry->loaded_by == old.get() ? loaded : rest).push_back(entry);
    if (!loaded.empty()) self->extra->precompiled = std::move(rest);
  }
}

int traverse_entries(const PositionEntries& position, visitproc visit, void* arg) {
  for (const auto& entry : position.entries) {
    if (entry.use_count() > 1) continue;  // running: its references are not ours alone
    if (const int r = entry->traverse(visit, arg)) return r;
  }
  return 0;
}

int traverse(PyObject* object, visitproc visit, void* arg) {
  auto* self = reinterpret_cast<CompiledFunction*>(object);
  Py_VISIT(self->function);
  Py_VISIT(self->dict);
  Py_VISIT(self->code);
  if (self->state != nullptr && self->state->use_count() == 1) {
    Py_VISIT((*self->state)->compiler.get());
    if (const int r = traverse_entries((*self->state)->start, visit, arg)) return r;
    for (const auto& [key, position] : (*self->state)->positions) {
      if (const int r = traverse_entries(position, visit, arg)) return r;
    }
  }
  return 0;
}

int clear(PyObject* object) {
  auto* self = reinterpret_cast<CompiledFunction*>(object);
  if (self->state != nullptr) {
    forget(self);
    const Ref compiler = std::move((*self->state)->compiler);
  }
  self->extra = nullptr;  // it may go with the code object
  Py_CLEAR(self->code);
  Py_CLEAR(self->function);
  Py_CLEAR(self->dict);
  return 0;
}

void dealloc(PyObject* object) {
  auto* self = reinterpret_cast<CompiledFunction*>(object);
  PyObject_GC_UnTrack(object);
  live().erase(self);
  if (self->weakrefs != nullptr) PyObject_ClearWeakRefs(object);
  clear(object);
  delete self->state;
  Py_TYPE(object)->tp_free(object);
}

PyObject* descr_get(PyObject* self, PyObject* instance, PyObject*) {
  if (instance == nullptr || instance == Py_None) return Py_NewRef(self);
  return PyMethod_New(self, instance);
}

PyObject* entries(PyObject* object, PyObject*) {
  return described_entries(**reinterpret_cast<CompiledFunction*>(object)->state);
}
PyObject* last_report(PyObject* object, PyObject*) {
  return described_report(**reinterpret_cast<CompiledFunction*>(object)->state);
}

PyObject* reset(PyObject* object, PyObject*) {
  forget(reinterpret_cast<CompiledFunction*>(object));
  Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"entries", entries, METH_NOARGS, "What has been recorded, oldest first."},
    {"last_report", last_report, METH_NOARGS, "How the last recording went; None before the first."},
    {"reset", reset, METH_NOARGS, "Forgets every recording."},
    {nullptr, nullptr, 0, nullptr},
};

PyMemberDef members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(CompiledFunction, vectorcall), READONLY, nullptr},
    {"__dictoffset__", T_PYSSIZET, offsetof(CompiledFunction, dict), READONLY, nullptr},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(CompiledFunction, weakrefs), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

// Under torch.compile's names: torch._dynamo, and libraries, find what a compiled function was made of by
// them. Not in __dict__, which functools.wraps copies.
PyObject* original(PyObject* self, void*) {
  PyObject* function = reinterpret_cast<CompiledFunction*>(self)->function;
  return Py_NewRef(function != nullptr ? function : Py_None);
}
PyObject* wrapper_id(PyObject* self, void*) { return PyLong_FromVoidPtr(self); }

// What code that inspects functions reads of one. `name` is the attribute of the original.
PyObject* of_original(PyObject* self, void* name) {
  PyObject* function = reinterpret_cast<CompiledFunction*>(self)->function;
  return PyObject_GetAttrString(function != nullptr ? function : Py_None, static_cast<const char*>(name));
}

#define OF_ORIGINAL(name) \
  { name, of_original, nullptr, "The original's.", const_cast<char*>(name) }

PyGetSetDef getset[] = {
    OF_ORIGINAL("__code__"),
    OF_ORIGINAL("__defaults__"),
    OF_ORIGINAL("__kwdefaults__"),
    OF_ORIGINAL("__globals__"),
    OF_ORIGINAL("__closure__"),
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, nullptr, nullptr},
    {"_torchdynamo_orig_callable", original, nullptr, "The function that was compiled.", nullptr},
    {"_torchdynamo_wrapper_id", wrapper_id, nullptr, "id() of this object.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyType_Slot slots[] = {
    {Py_tp_new, reinterpret_cast<void*>(make)},
    {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
    {Py_tp_traverse, reinterpret_cast<void*>(traverse)},
    {Py_tp_clear, reinterpret_cast<void*>(clear)},
    {Py_tp_dealloc, reinterpret_cast<void*>(dealloc)},
    {Py_tp_descr_get, reinterpret_cast<void*>(descr_get)},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_getset, getset},
    {0, nullptr},
};

PyType_Spec spec = {"flashpoint._C.CompiledFunction", sizeof(CompiledFunction), 0,
                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL, slots};

}  // namespace

int& disabled_depth() {
  thread_local int depth = 0;
  return depth;
}

DriverConfig& driver_config() {
  static DriverConfig config;
  return config;
}

bool may_resume(const CodeState& state) { return driver_config().resume_breaks && !state.fullgraph; }

std::shared_ptr<CodeState> state_of(PyObject* compiled) {
  return *reinterpret_cast<CompiledFunction*>(compiled)->state;
}

PyObject* all_compiled_functions() {
  Ref list = Ref::steal(PyList_New(0));
  for (CompiledFunction* f : live()) {
    const CodeState& s = **f->state;
    const Ref backend =
        s.compiler ? s.compiler
                   : Ref::steal(PyUnicode_FromString(s.backend == Backend::kNative ? "native" : "eager"));
    const Ref row = Ref::steal(backend ? PyTuple_Pack(2, f, backend.get()) : nullptr);
    if (!list || !row || PyList_Append(list.get(), row.get()) < 0) return nullptr;
  }
  return list.release();
}

void reset_all_compiled_functions() {
  std::vector<Ref> all;
  for (CompiledFunction* f : live()) all.push_back(Ref::share(reinterpret_cast<PyObject*>(f)));
  for (const Ref& f : all) forget(reinterpret_cast<CompiledFunction*>(f.get()));
}

void reset_compiled_functions_of(PyObject* code) {
  std::vector<Ref> all;
  for (CompiledFunction* f : live()) {
    if (f->code == code) all.push_back(Ref::share(reinterpret_cast<PyObject*>(f)));
  }
  for (const Ref& f : all) forget(reinterpret_cast<CompiledFunction*>(f.get()));
}

int add_compiled_function_type(PyObject* module) {
  PyObject* type = PyType_FromSpec(&spec);
  if (type == nullptr) return -1;
  py::compiled_function_type() = reinterpret_cast<PyTypeObject*>(type);  // lives as long as the process
  return PyModule_AddObjectRef(module, "CompiledFunction", type);
}

}  // namespace flashpoint
