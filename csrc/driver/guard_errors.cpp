#include "driver/guard_errors.h"

#include <utility>

#include "base/counters.h"
#include "base/log.h"
#include "driver/entry.h"

namespace flashpoint {

int64_t fail_at_guards = 0;

namespace {
PyObject* error_hook = nullptr;  // owned
}

PyObject* set_guard_error_hook(PyObject* hook) {
  PyObject* before = std::exchange(error_hook, Py_XNewRef(hook));
  return before == nullptr ? Py_NewRef(Py_None) : before;
}

void report_guard_error(const Entry& entry, const char* what) {
  ++counters().guard_errors;
  if (log_enabled(LogKind::kMiss)) log_line(std::string("an error while guards were evaluated: ") + what);
  if (error_hook == nullptr) return;
  Ref hook = Ref::share(error_hook);
  PyObject* function = entry.function;
  PyObject* code =
      function != nullptr && PyFunction_Check(function) ? PyFunction_GET_CODE(function) : Py_None;
  Ref done = Ref::steal(PyObject_CallFunction(hook.get(), "Oss", code, entry.compile_id.c_str(), what));
  if (!done) PyErr_WriteUnraisable(hook.get());
}

}  // namespace flashpoint
