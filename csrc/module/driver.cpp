// Bindings of the driver: CompiledFunction, counters, configuration.
#include <cstring>
#include <iterator>

#include "backend/native/program.h"
#include "base/counters.h"
#include "driver/compiled_function.h"
#include "driver/guard_errors.h"
#include "driver/recording_hook.h"
#include "driver/stance.h"
#include "module/bindings.h"
#include "py/ref.h"
#include "record/substitutes.h"

namespace flashpoint {
namespace {

PyObject* get_counters(PyObject*, PyObject*) {
  Ref dict = Ref::steal(PyDict_New());
#define X(name, text)                                                                       \
  {                                                                                         \
    Ref value = Ref::steal(PyLong_FromUnsignedLongLong(counters().name));                   \
    if (!value || PyDict_SetItemString(dict.get(), #name, value.get()) < 0) return nullptr; \
  }
#include "base/counters.def"
#undef X
  return dict.release();
}

PyObject* reset_counters(PyObject*, PyObject*) {
  counters() = Counters{};
  Py_RETURN_NONE;
}

PyObject* set_hook(PyObject*, PyObject* function) {
  set_recording_hook(function == Py_None ? nullptr : function);
  Py_RETURN_NONE;
}

PyObject* compiled_functions(PyObject*, PyObject*) { return all_compiled_functions(); }

PyObject* reset_all(PyObject*, PyObject*) {
  reset_all_compiled_functions();
  Py_RETURN_NONE;
}

PyObject* enter_disabled(PyObject*, PyObject*) {
  ++disabled_depth();
  Py_RETURN_NONE;
}

PyObject* leave_disabled(PyObject*, PyObject*) {
  if (disabled_depth() > 0) --disabled_depth();
  Py_RETURN_NONE;
}

constexpr const char* kStances[] = {"default", "eager_then_compile", "force_eager", "eager_on_recompile",
                                    "fail_on_recompile"};

PyObject* set_stance(PyObject*, PyObject* name) {
  const char* text = PyUnicode_AsUTF8(name);
  if (text == nullptr) return nullptr;
  const auto before = static_cast<size_t>(own_stance());
  for (size_t i = 0; i < std::size(kStances); ++i) {
    if (std::strcmp(text, kStances[i]) != 0) continue;
    set_own_stance(static_cast<Stance>(i));
    return PyUnicode_FromString(kStances[before]);
  }
  PyErr_Format(PyExc_ValueError, "[flashpoint.set_stance] no stance %R", name);
  return nullptr;
}

PyObject* add_substitute(PyObject*, PyObject* args) {
  PyObject *original, *replacement;
  if (!PyArg_ParseTuple(args, "OO", &original, &replacement)) return nullptr;
  substitute(original, replacement);
  Py_RETURN_NONE;
}

PyObject* set_config(PyObject*, PyObject* args) {
  const char* name;
  PyObject* value;
  if (!PyArg_ParseTuple(args, "sO", &name, &value)) return nullptr;
  DriverConfig& config = driver_config();
  const long number = PyLong_Check(value) ? PyLong_AsLong(value) : 0;
  if (PyErr_Occurred()) return nullptr;
  if (std::strcmp(name, "recompile_limit") == 0) {
    config.recompile_limit = static_cast<int>(number);
  } else if (std::strcmp(name, "accumulated_recompile_limit") == 0) {
    config.accumulated_recompile_limit = static_cast<int>(number);
  } else if (std::strcmp(name, "tracing_state_queries") == 0) {
    config.tracing_state_queries = number != 0;
  } else if (std::strcmp(name, "resume_breaks") == 0) {
    config.resume_breaks = number != 0;
  } else if (std::strcmp(name, "value_guards") == 0) {
    config.value_guards = number != 0;
  } else if (std::strcmp(name, "capture_scalar_outputs") == 0) {
    config.capture_scalars = number != 0;
  } else if (std::strcmp(name, "native_patience") == 0) {
    native::set_patience(static_cast<double>(number) / 100);
  } else if (std::strcmp(name, "measure_breaks") == 0) {
    config.measure_breaks = number != 0;
  } else if (std::strcmp(name, "verify") == 0) {
    config.verify = number != 0;
  } else if (std::strcmp(name, "fail_at_event") == 0) {
    config.fail_at_event = number;
  } else if (std::strcmp(name, "fail_at_guards") == 0) {
    fail_at_guards = number;
  } else if (std::strcmp(name, "break_at_event") == 0) {
    config.break_at_event = number;
  } else if (std::strcmp(name, "poison_empty") == 0) {
    config.poison_empty = number != 0;
  } else {
    PyErr_Format(PyExc_ValueError, "[flashpoint.config] unknown setting %s", name);
    return nullptr;
  }
  Py_RETURN_NONE;
}

PyMethodDef functions[] = {
    {"counters", get_counters, METH_NOARGS, "All counters by name."},
    {"reset_counters", reset_counters, METH_NOARGS, "Sets all counters to zero."},
    {"set_recording_hook", set_hook, METH_O, "Called after each call that recorded; None for none."},
    {"compiled_functions", compiled_functions, METH_NOARGS, "Those that are alive, in no order."},
    {"reset_all", reset_all, METH_NOARGS, "Forgets the recordings of every compiled function."},
    {"enter_disabled", enter_disabled, METH_NOARGS, "Compiled functions run eagerly on this thread; nests."},
    {"leave_disabled", leave_disabled, METH_NOARGS, "Undoes enter_disabled."},
    {"set_stance", set_stance, METH_O, "Sets what compiled functions may do; returns what was set before."},
    {"substitute", add_substitute, METH_VARARGS, "Recordings call the second function for the first."},
    {"set_config", set_config, METH_VARARGS, "Sets one setting of the core."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int bind_driver(PyObject* module) {
  if (add_compiled_function_type(module) < 0) return -1;
  return PyModule_AddFunctions(module, functions);
}

}  // namespace flashpoint
