// Private test surface of the evaluator: flashpoint._C._eval_*.
#include "py/internal.h"

#include "base/counters.h"
#include "eval/counting_observer.h"
#include "eval/evaluate.h"
#include "eval/hook.h"
#include "module/bindings.h"

namespace flashpoint {
namespace {

// _eval_run(callable, args=(), kwargs=None, hand_over_at=-1, observe=False, answer...) -> result
PyObject* eval_run(PyObject*, PyObject* args, PyObject* kwargs) {
  static const char* names[] = {"callable", "args", "kwargs", "hand_over_at", "observe", nullptr};
  PyObject *callable, *positional = nullptr, *keywords = nullptr;
  long long hand_over_at = -1;
  int observe = 0;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O!OLp", const_cast<char**>(names), &callable, &PyTuple_Type,
                                   &positional, &keywords, &hand_over_at, &observe)) {
    return nullptr;
  }
  if (keywords == Py_None) keywords = nullptr;
  PyObject* arguments = positional;
  if (arguments == nullptr) {
    arguments = PyTuple_New(0);
    if (arguments == nullptr) return nullptr;
  } else {
    Py_INCREF(arguments);
  }
  CountingObserver observer;
  PyObject* result;
  {
    ArmedScope armed(observe ? &observer : nullptr);
    ThreadContext& context = thread_context();
    context.evaluate_unobserved = true;
    if (hand_over_at >= 0) context.hand_over_at = context.instructions + hand_over_at;
    result = PyObject_Call(callable, arguments, keywords);
  }
  Py_DECREF(arguments);
  if (observe) observer.publish();
  return result;
}

PyObject* eval_counters(PyObject*, PyObject*) {
  flush_instruction_count(thread_context());
  PyObject* result = PyDict_New();
  if (result == nullptr) return nullptr;
  const Counters& all = counters();
  const struct {
    const char* name;
    uint64_t value;
  } rows[] = {{"frames_evaluated", all.frames_evaluated},
              {"frames_handed_over", all.frames_handed_over},
              {"instructions", all.instructions},
              {"internal_errors", all.internal_errors},
              {"suspensions", hook_suspensions()}};
  for (const auto& row : rows) {
    PyObject* value = PyLong_FromUnsignedLongLong(row.value);
    if (value == nullptr || PyDict_SetItemString(result, row.name, value) < 0) {
      Py_XDECREF(value);
      Py_DECREF(result);
      return nullptr;
    }
    Py_DECREF(value);
  }
  return result;
}

PyObject* eval_everywhere(PyObject*, PyObject* on) {
  const int truth = PyObject_IsTrue(on);
  if (truth < 0) return nullptr;
  evaluate_everywhere(truth != 0);
  Py_RETURN_NONE;
}

PyObject* eval_observed(PyObject*, PyObject*) { return CountingObserver::last_report(); }

PyObject* eval_opcodes(PyObject*, PyObject*) {
  PyObject* result = PyDict_New();
  if (result == nullptr) return nullptr;
#define X(name, while_observed)                                                                 \
  if (PyDict_SetItemString(result, #name, while_observed ? Py_True : Py_False) < 0) {           \
    Py_DECREF(result);                                                                          \
    return nullptr;                                                                             \
  }
#include "eval/opcodes.def"
#undef X
  return result;
}

PyMethodDef methods[] = {
    {"_eval_run", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(eval_run)), METH_VARARGS | METH_KEYWORDS,
     "_eval_run(callable, args=(), kwargs=None, hand_over_at=-1, observe=False)\n--\n\n"
     "Call with every frame in the evaluator; hand_over_at: the instruction count at which one frame is "
     "handed to CPython; observe: send events to an observer that counts and checks them."},
    {"_eval_counters", eval_counters, METH_NOARGS, "Process-wide counters of the evaluator, as a dict."},
    {"_eval_observed", eval_observed, METH_NOARGS, "What the last observed _eval_run saw, as a dict."},
    {"_eval_opcodes", eval_opcodes, METH_NOARGS,
     "Opcodes the evaluator performs itself: name -> whether in observed frames too."},
    {"_eval_everywhere", eval_everywhere, METH_O, "Evaluate every frame of every thread until switched off."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int bind_eval(PyObject* module) { return PyModule_AddFunctions(module, methods); }

}  // namespace flashpoint
