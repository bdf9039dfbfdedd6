#include "driver/limits.h"

#include "base/counters.h"
#include "driver/compiled_function.h"
#include "py/ref.h"

namespace flashpoint {

namespace {

// A setting of TorchDynamo, null while it is not imported.
Ref dynamo_setting(const char* name) {
  static PyObject* const module_name = PyUnicode_InternFromString("torch._dynamo.config");
  PyObject* config = PyDict_GetItemWithError(PyImport_GetModuleDict(), module_name);
  Ref value = Ref::steal(config == nullptr ? nullptr : PyObject_GetAttrString(config, name));
  if (!value) PyErr_Clear();
  return value;
}

// Ours where it was set, else TorchDynamo's.
int setting(int own, int preset, const char* name) {
  if (own != preset) return own;
  const Ref theirs = dynamo_setting(name);
  const long limit = theirs && PyLong_Check(theirs.get()) ? PyLong_AsLong(theirs.get()) : own;
  if (PyErr_Occurred() != nullptr) PyErr_Clear();
  return limit < 0 ? own : static_cast<int>(limit);
}

int recompile_limit(const CodeState& state) {
  if (state.recompile_limit > 0) return state.recompile_limit;
  return setting(driver_config().recompile_limit, DriverConfig{}.recompile_limit, "recompile_limit");
}

}  // namespace

bool dynamo_sets(const char* name) { return dynamo_setting(name).get() == Py_True; }

Limit limit_reached(const CodeState& state, CodeExtra* extra) {
  const size_t own = state.start.entries.size();
  if (own > 0 && static_cast<int>(own) >= recompile_limit(state))
    return {"recompile_limit", recompile_limit(state)};
  if (extra == nullptr) return {};
  const int most = setting(driver_config().accumulated_recompile_limit,
                           DriverConfig{}.accumulated_recompile_limit, "accumulated_recompile_limit");
  size_t all = 0;
  for (const auto& other : extra->living()) all += other->start.entries.size();
  if (all > 0 && static_cast<int>(all) >= most) return {"accumulated_recompile_limit", most};
  return {};
}

bool runs_eagerly_at_limit(CodeState& state, Limit limit, const std::string& name,
                           const std::string& last_miss) {
  const Ref fails = dynamo_setting("fail_on_recompile_limit_hit");
  const bool raise = state.fullgraph || fails.get() == Py_True;
  if (state.limit_reported && !raise) return true;
  state.limit_reported = true;
  ++counters().recompile_limits_reached;
  const Ref module = Ref::steal(PyImport_ImportModule("flashpoint.limits"));
  const Ref done = Ref::steal(module ? PyObject_CallMethod(module.get(), "reached", "ssisOO", name.c_str(),
                                                           limit.setting, limit.number, last_miss.c_str(),
                                                           state.fullgraph ? Py_True : Py_False,
                                                           raise ? Py_True : Py_False)
                                     : nullptr);
  return static_cast<bool>(done);
}

}  // namespace flashpoint
