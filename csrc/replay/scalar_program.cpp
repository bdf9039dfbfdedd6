#include "py/internal.h"

#include <opcode.h>

#include "eval/containers.h"
#include "eval/operators.h"
#include "replay/scalar_program.h"

namespace flashpoint {

namespace {

PyObject* run_step(const ScalarStep& step, const std::vector<PyObject*>& operands) {
  switch (step.kind) {
    case ScalarStep::Kind::kBinary:
      return binary_operations[step.detail](operands[0], operands[1]);
    case ScalarStep::Kind::kUnary:
      return step.detail == UNARY_NEGATIVE   ? PyNumber_Negative(operands[0])
             : step.detail == UNARY_POSITIVE ? PyNumber_Positive(operands[0])
                                             : PyNumber_Invert(operands[0]);
    case ScalarStep::Kind::kFormat:
      return format_value(operands[0], operands.size() > 1 ? operands[1] : nullptr,
                          step.detail | (operands.size() > 1 ? 0x4 : 0));
    case ScalarStep::Kind::kJoin: {
      Ref empty = Ref::steal(PyUnicode_New(0, 0));
      if (!empty) return nullptr;
      return _PyUnicode_JoinArray(empty.get(), operands.data(), static_cast<Py_ssize_t>(operands.size()));
    }
    case ScalarStep::Kind::kCompare:
      return PyObject_RichCompare(operands[0], operands[1], step.detail);
    case ScalarStep::Kind::kTruth: {
      const int truth = PyObject_IsTrue(operands[0]);
      return truth < 0 ? nullptr : PyBool_FromLong(truth);
    }
    case ScalarStep::Kind::kCall:
      if (step.detail == 1) {
        Ref all = Ref::steal(PyTuple_New(static_cast<Py_ssize_t>(operands.size())));
        if (!all) return nullptr;
        for (size_t i = 0; i < operands.size(); ++i)
          PyTuple_SET_ITEM(all.get(), static_cast<Py_ssize_t>(i), Py_NewRef(operands[i]));
        return PyObject_CallOneArg(step.callable.get(), all.get());
      }
      return PyObject_Vectorcall(step.callable.get(), operands.data(), operands.size(), nullptr);
  }
  return nullptr;
}

}  // namespace

ScalarOutcome run_scalars(const std::vector<ScalarStep>& steps, const std::vector<PyObject*>& nodes,
                          std::vector<Ref>& results) {
  results.reserve(steps.size());
  std::vector<PyObject*> operands;
  for (const ScalarStep& step : steps) {
    operands.clear();
    for (const ScalarOperand& o : step.operands) {
      operands.push_back(o.kind == ScalarOperand::Kind::kConstant ? o.constant.get()
                         : o.kind == ScalarOperand::Kind::kNode   ? nodes[o.index]
                                                                  : results[o.index].get());
    }
    Ref result = Ref::steal(run_step(step, operands));
    if (!result) {
      PyErr_Clear();
      return ScalarOutcome::kFailed;
    }
    if (!Py_IS_TYPE(result.get(), step.type)) return ScalarOutcome::kDiffers;
    if (step.type == &PyBool_Type && (result.get() == Py_True) != step.expected)
      return ScalarOutcome::kDiffers;
    results.push_back(std::move(result));
  }
  return ScalarOutcome::kDone;
}

}  // namespace flashpoint
