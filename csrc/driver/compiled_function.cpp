#include "driver/compiled_function.h"

#include <structmember.h>

#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/counters.h"
#include "base/log.h"
#include "driver/capture.h"
#include "driver/entry.h"
#include "ir/printer.h"
#include "py/layout.h"

namespace flashpoint {

namespace {

constexpr int kMaxDrops = 3;

struct State {
  std::vector<std::shared_ptr<Entry>> entries;  // most recently used first
  std::vector<uint64_t> hits;                   // beside entries
  BreakReport report;
  bool has_report = false;
  bool kept = false;
  int drops = 0;  // recordings dropped in a row, exceptions not counted
  bool fullgraph = false;
  Backend backend = Backend::kEager;
};

struct CompiledFunction {
  PyObject_HEAD PyObject* function;  // the first field: py::CompiledFunctionLayout
  vectorcallfunc vectorcall;
  PyObject* dict;
  PyObject* weakrefs;
  State* state;
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

PyObject* call_eagerly(PyObject* function, PyObject* const* args, size_t nargs, PyObject* kwnames) {
  ++counters().eager_calls;
  return PyObject_Vectorcall(function, args, nargs, kwnames);
}

PyObject* capture_call(CompiledFunction* self, PyObject* function, PyObject* const* args, size_t nargs,
                       PyObject* kwnames) {
  State& s = *self->state;
  const DriverConfig& config = driver_config();
  Capture c = capture(
      function, args, nargs, kwnames,
      {config.tracing_state_queries, config.verify, config.poison_empty, s.backend, config.fail_at_event});
  s.has_report = true;
  s.kept = c.entry != nullptr;
  s.report = std::move(c.report);
  if (c.entry) {
    s.drops = 0;
    if (log_enabled(LogKind::kCapture)) {
      log_line("capture " + name_of(function) + ": " + std::to_string(c.entry->graph().nodes.size()) +
               " ops, " + std::to_string(c.entry->guards().check_count()) + " guards, " +
               std::to_string(c.entry->effect_count()) + " effects");
    }
    if (log_enabled(LogKind::kDumpGraph)) log_line(ir::print(c.entry->graph()));
    if (log_enabled(LogKind::kDumpGuards)) log_line(c.entry->guards().text());
    s.entries.insert(s.entries.begin(), std::shared_ptr<Entry>(std::move(c.entry)));
    s.hits.insert(s.hits.begin(), 0);
    return c.result;
  }
  if (s.report.reason != Break::k_exception) ++s.drops;
  if (log_enabled(LogKind::kBreak)) {
    log_line("break in " + name_of(function) + " at " + s.report.location + " (" + s.report.function +
             "): " + break_name(s.report.reason) + (s.report.detail.empty() ? "" : ": " + s.report.detail));
  }
  if (s.fullgraph && c.result != nullptr && s.report.reason != Break::k_exception) {
    Py_CLEAR(c.result);
    PyErr_Format(
        PyExc_RuntimeError,
        "[flashpoint.compile] fullgraph=True, but the recording broke at %s: %s (%s). The call's effects "
        "stand. %s",
        s.report.location.c_str(), break_message(s.report.reason), s.report.detail.c_str(),
        break_hint(s.report.reason));
  }
  return c.result;
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
  if (!global_state_supported() || !PyFunction_Check(function))
    return call_eagerly(function, args, nargs, kwnames);
  State& s = *self->state;
  const GlobalState now = GlobalState::now();
  for (size_t i = 0; i < s.entries.size(); ++i) {
    std::shared_ptr<Entry> entry = s.entries[i];
    PyObject* result = nullptr;
    const Outcome outcome = entry->call(args, nargs, kwnames, now, &result);
    if (outcome == Outcome::kDone) {
      ++counters().hits;
      // The entry may have moved or gone while it ran.
      if (i < s.entries.size() && s.entries[i] == entry) {
        ++s.hits[i];
        if (i > 0) {
          std::rotate(s.entries.begin(), s.entries.begin() + i, s.entries.begin() + i + 1);
          std::rotate(s.hits.begin(), s.hits.begin() + i, s.hits.begin() + i + 1);
        }
      }
      return result;
    }
    if (outcome == Outcome::kRestart) return call_eagerly(function, args, nargs, kwnames);
    if (log_enabled(LogKind::kMiss)) {
      log_line("miss in " + name_of(function) + ": " +
               (entry->last_miss().empty() ? entry->guards().explain_failure() : entry->last_miss()));
    }
  }
  if (!s.entries.empty()) ++counters().misses;
  if (static_cast<int>(s.entries.size()) >= driver_config().recompile_limit || s.drops >= kMaxDrops) {
    return call_eagerly(function, args, nargs, kwnames);
  }
  return capture_call(self, function, args, nargs, kwnames);
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
  self->vectorcall = vectorcall;
  self->state = new State();
  if (options != nullptr) {
    PyObject* fullgraph = PyDict_GetItemString(options, "fullgraph");
    self->state->fullgraph = fullgraph == Py_True;
    PyObject* backend = PyDict_GetItemString(options, "backend");
    if (backend != nullptr && PyUnicode_Check(backend) &&
        PyUnicode_CompareWithASCIIString(backend, "native") == 0) {
      self->state->backend = Backend::kNative;
    }
  }
  live().insert(self);
  return reinterpret_cast<PyObject*>(self);
}

void forget(State& s) {
  // Entries may run Python code when they go: take them out first.
  std::vector<std::shared_ptr<Entry>> entries = std::move(s.entries);
  s.entries.clear();
  s.hits.clear();
  s.drops = 0;
  s.has_report = false;
}

int traverse(PyObject* object, visitproc visit, void* arg) {
  auto* self = reinterpret_cast<CompiledFunction*>(object);
  Py_VISIT(self->function);
  Py_VISIT(self->dict);
  if (self->state != nullptr) {
    for (const auto& entry : self->state->entries) {
      if (entry.use_count() > 1) continue;  // running: its references are not ours alone
      if (const int r = entry->traverse(visit, arg)) return r;
    }
  }
  return 0;
}

int clear(PyObject* object) {
  auto* self = reinterpret_cast<CompiledFunction*>(object);
  if (self->state != nullptr) forget(*self->state);
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

PyObject* list_of_lines(const std::string& text) {
  Ref whole = Ref::steal(PyUnicode_FromStringAndSize(text.data(), static_cast<Py_ssize_t>(text.size())));
  return whole ? PyUnicode_Splitlines(whole.get(), 0) : nullptr;
}

PyObject* entries(PyObject* object, PyObject*) {
  State& s = *reinterpret_cast<CompiledFunction*>(object)->state;
  Ref list = Ref::steal(PyList_New(0));
  for (size_t i = s.entries.size(); list && i-- > 0;) {
    const Entry& e = *s.entries[i];
    Ref guards = Ref::steal(list_of_lines(e.guards().text()));
    const std::string graph = ir::print(e.graph());
    Ref row =
        Ref::steal(guards ? Py_BuildValue("{s:s,s:n,s:O,s:K,s:n}", "graph", graph.c_str(), "nodes",
                                          static_cast<Py_ssize_t>(e.graph().nodes.size()), "guards",
                                          guards.get(), "hits", static_cast<unsigned long long>(s.hits[i]),
                                          "effects", static_cast<Py_ssize_t>(e.effect_count()))
                          : nullptr);
    if (!row || PyList_Append(list.get(), row.get()) < 0) return nullptr;
  }
  return list.release();
}

PyObject* last_report(PyObject* object, PyObject*) {
  State& s = *reinterpret_cast<CompiledFunction*>(object)->state;
  if (!s.has_report) Py_RETURN_NONE;
  Ref breaks = Ref::steal(PyList_New(0));
  if (!s.kept) {
    const BreakReport& r = s.report;
    const size_t colon = r.location.rfind(':');
    const std::string file = r.location.substr(0, colon);
    const int line = colon == std::string::npos ? 0 : std::atoi(r.location.c_str() + colon + 1);
    const std::string message =
        std::string(break_message(r.reason)) + (r.detail.empty() ? "" : " (" + r.detail + ")");
    Ref row = Ref::steal(Py_BuildValue("{s:s,s:s,s:s,s:s,s:i}", "reason", break_name(r.reason), "message",
                                       message.c_str(), "hint", break_hint(r.reason), "file", file.c_str(),
                                       "line", line));
    if (!row || PyList_Append(breaks.get(), row.get()) < 0) return nullptr;
  }
  return Py_BuildValue("{s:O,s:s,s:O}", "kept", s.kept ? Py_True : Py_False, "dropped",
                       s.kept ? "" : break_message(s.report.reason), "breaks", breaks.get());
}

PyObject* reset(PyObject* object, PyObject*) {
  forget(*reinterpret_cast<CompiledFunction*>(object)->state);
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

PyGetSetDef getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, nullptr, nullptr},
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

DriverConfig& driver_config() {
  static DriverConfig config;
  return config;
}

void reset_all_compiled_functions() {
  std::vector<Ref> all;
  for (CompiledFunction* f : live()) all.push_back(Ref::share(reinterpret_cast<PyObject*>(f)));
  for (const Ref& f : all) forget(*reinterpret_cast<CompiledFunction*>(f.get())->state);
}

int add_compiled_function_type(PyObject* module) {
  PyObject* type = PyType_FromSpec(&spec);
  if (type == nullptr) return -1;
  py::compiled_function_type() = reinterpret_cast<PyTypeObject*>(type);  // lives as long as the process
  return PyModule_AddObjectRef(module, "CompiledFunction", type);
}

}  // namespace flashpoint
