// Private test surface of the evaluator: flashpoint._C._eval_*.
#include "py/internal.h"

#include <cstring>

#include "base/counters.h"
#include "eval/counting_observer.h"
#include "eval/evaluate.h"
#include "eval/hook.h"
#include "module/bindings.h"

namespace flashpoint {
namespace {

// Watches and does nothing: what the observed build itself costs.
class NullObserver final : public Observer {
 public:
  Pending before(EvalFrame&, const Operands&) override { return {}; }
  Tag after(EvalFrame&, const Operands&, const Pending&, PyObject*) override { return 0; }
  PyObject* enter_frame(EvalFrame&) override { return nullptr; }
  void leave_frame(EvalFrame&, PyObject*) override {}
};

PyObject* eval_run(PyObject*, PyObject* args, PyObject* kwargs) {
  static const char* names[] = {"callable", "args", "kwargs", "hand_over_at", "observe", "end_at", nullptr};
  PyObject *callable, *positional = nullptr, *keywords = nullptr;
  long long hand_over_at = -1;
  long end_at = -1;
  const char* observe = "";
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O!OLsl", const_cast<char**>(names), &callable,
                                   &PyTuple_Type, &positional, &keywords, &hand_over_at, &observe, &end_at)) {
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
  CountingObserver checking(end_at);
  NullObserver silent;
  const bool check = std::strcmp(observe, "check") == 0;
  Observer* observer = check ? static_cast<Observer*>(&checking) : nullptr;
  if (std::strcmp(observe, "null") == 0) observer = &silent;
  PyObject* result;
  {
    ArmedScope armed(observer);
    ThreadContext& context = thread_context();
    context.evaluate_unobserved = end_at < 0;
    if (hand_over_at >= 0) context.hand_over_at = context.instructions + hand_over_at;
    result = PyObject_Call(callable, arguments, keywords);
  }
  Py_DECREF(arguments);
  if (check) checking.publish();
  return result;
}

// Answers calls of one function, and the frames of its code that come without a call we see.
class AnsweringObserver final : public Observer {
 public:
  AnsweringObserver(PyObject* function, PyObject* answer) : function_(function), answer_(answer) {}
  Pending before(EvalFrame&, const Operands& operands) override {
    Pending pending;
    if (operands.event == Event::kCall && operands.a == function_) pending.answer = Py_NewRef(answer_);
    return pending;
  }
  Tag after(EvalFrame&, const Operands&, const Pending&, PyObject*) override { return 0; }
  PyObject* enter_frame(EvalFrame& frame) override {
    if (reinterpret_cast<PyObject*>(frame.frame->f_func) != function_) return nullptr;
    return Py_NewRef(answer_);
  }
  void leave_frame(EvalFrame&, PyObject*) override {}

 private:
  PyObject* function_;  // both kept by eval_answered's arguments
  PyObject* answer_;
};

PyObject* eval_answered(PyObject*, PyObject* args) {
  PyObject *callable, *function, *answer;
  if (!PyArg_ParseTuple(args, "OOO", &callable, &function, &answer)) return nullptr;
  AnsweringObserver observer(function, answer);
  ArmedScope armed(&observer);
  return PyObject_CallNoArgs(callable);
}

PyObject* eval_counters(PyObject*, PyObject*) {
  flush_instruction_count(thread_context());
  PyObject* result = PyDict_New();
  if (result == nullptr) return nullptr;
  const Counters& all = counters();
  const struct {
    const char* name;
    uint64_t value;
  } rows[] = {{"frames_evaluated", all.frames_evaluated}, {"frames_handed_over", all.frames_handed_over},
              {"frames_passed", all.frames_passed},       {"instructions", all.instructions},
              {"internal_errors", all.internal_errors},   {"suspensions", hook_suspensions()}};
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

PyObject* eval_installed(PyObject*, PyObject*) { return PyBool_FromLong(hook_installed()); }

PyObject* eval_observed(PyObject*, PyObject*) { return CountingObserver::last_report(); }

PyObject* eval_opcodes(PyObject*, PyObject*) {
  PyObject* result = PyDict_New();
  if (result == nullptr) return nullptr;
#define X(name, while_observed)                                                       \
  if (PyDict_SetItemString(result, #name, while_observed ? Py_True : Py_False) < 0) { \
    Py_DECREF(result);                                                                \
    return nullptr;                                                                   \
  }
#include "eval/opcodes.def"
#undef X
  return result;
}

PyMethodDef methods[] = {
    {"_eval_run", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(eval_run)),
     METH_VARARGS | METH_KEYWORDS,
     "_eval_run(callable, args=(), kwargs=None, hand_over_at=-1, observe='', end_at=-1)\n--\n\n"
     "Call with every frame in the evaluator; hand_over_at: the instruction count at which one frame is "
     "handed to CPython; observe: 'check' sends events to an observer that counts and checks them, 'null' to "
     "one that ignores them; end_at: the call of the checking observer at which it ends its recording, after "
     "which frames go to CPython."},
    {"_eval_answered", eval_answered, METH_VARARGS,
     "_eval_answered(callable, function, answer)\n--\n\n"
     "Call with an observer that answers calls of `function`, and its frames where they start otherwise."},
    {"_eval_counters", eval_counters, METH_NOARGS, "Process-wide counters of the evaluator, as a dict."},
    {"_eval_installed", eval_installed, METH_NOARGS,
     "Whether our hook is the interpreter's frame evaluator now."},
    {"_eval_observed", eval_observed, METH_NOARGS, "What the last observed _eval_run saw, as a dict."},
    {"_eval_opcodes", eval_opcodes, METH_NOARGS,
     "Opcodes the evaluator performs itself: name -> whether in observed frames too."},
    {"_eval_everywhere", eval_everywhere, METH_O, "Evaluate every frame of every thread until switched off."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int bind_eval(PyObject* module) { return PyModule_AddFunctions(module, methods); }

}  // namespace flashpoint
