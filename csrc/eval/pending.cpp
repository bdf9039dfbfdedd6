#include "eval/pending.h"

namespace flashpoint {
namespace {

void recompute_eval_breaker(PyInterpreterState* interp) {
  _ceval_state& ceval = interp->ceval;
  const bool needed =
      _Py_atomic_load_relaxed(&ceval.gil_drop_request) ||
      (_Py_atomic_load_relaxed(&interp->runtime->ceval.signals_pending) &&
       _Py_ThreadCanHandleSignals(interp)) ||
      (_Py_atomic_load_relaxed(&ceval.pending.calls_to_do) && _Py_ThreadCanHandlePendingCalls()) ||
      ceval.pending.async_exc;
  _Py_atomic_store_relaxed(&ceval.eval_breaker, needed);
}

}  // namespace

int handle_pending(PyThreadState* tstate) {
  PyInterpreterState* interp = tstate->interp;
  _ceval_state& ceval = interp->ceval;
  if (_Py_atomic_load_relaxed(&interp->runtime->ceval.signals_pending) ||
      _Py_atomic_load_relaxed(&ceval.pending.calls_to_do)) {
    if (Py_MakePendingCalls() != 0) return -1;
  }
  if (_Py_atomic_load_relaxed(&ceval.gil_drop_request)) {
    PyEval_SaveThread();
    PyEval_RestoreThread(tstate);
  }
  if (tstate->async_exc != nullptr) {
    PyObject* exception = tstate->async_exc;
    tstate->async_exc = nullptr;
    ceval.pending.async_exc = 0;
    recompute_eval_breaker(interp);
    PyErr_SetNone(exception);
    Py_DECREF(exception);
    return -1;
  }
  return 0;
}

}  // namespace flashpoint
