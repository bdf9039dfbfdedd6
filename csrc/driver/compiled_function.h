// flashpoint._C.CompiledFunction: the native callable that flashpoint.compile returns.
//
// A call looks for an entry whose guards hold (most recently used first) and replays it; a miss runs the
// function once while recording. It owns its entries: when it dies or is reset, everything they hold goes.
// A call made while this thread records another function is inlined into that recording.
//
// Threads: entries are shared by all threads under the GIL; a running entry is kept alive by its call.
#pragma once

#include <Python.h>

#include <memory>

namespace flashpoint {

// Adds the type to the module. 0, or -1 with a Python error set.
int add_compiled_function_type(PyObject* module);

struct CodeState;
// Of a CompiledFunction.
std::shared_ptr<CodeState> state_of(PyObject* compiled);

// Forgets the entries of every compiled function of the process.
void reset_all_compiled_functions();
// Those that are alive, in no order: a new list of (function, name of our backend or GraphCompiler).
PyObject* all_compiled_functions();
// The same for those of one code object.
void reset_compiled_functions_of(PyObject* code);

// While above zero on this thread, compiled functions run eagerly (flashpoint.disable).
int& disabled_depth();

struct DriverConfig {
  bool tracing_state_queries = true;
  bool verify = false;
  bool poison_empty = false;
  bool resume_breaks = true;
  bool value_guards = false;
  bool measure_breaks = false;  // take the time of each
  bool capture_scalars = false;
  int recompile_limit = 8;
  int accumulated_recompile_limit = 256;
  int64_t fail_at_event = 0;
  int64_t break_at_event = 0;
};
DriverConfig& driver_config();
// Whether calls of the function go on behind a break.
bool may_resume(const CodeState& state);

}  // namespace flashpoint
