// The eval breaker: signals, pending calls, requests for the GIL, exceptions sent from another thread.
//
// Checked where CPython checks: RESUME, backward jumps, after calls. GIL held (and may be given up and
// taken again inside).
#pragma once

#include "py/internal.h"

namespace flashpoint {

inline bool eval_breaker_set(PyThreadState* tstate) {
  return _Py_atomic_load_relaxed(&tstate->interp->ceval.eval_breaker) != 0;
}

// 0, or -1 with an error set.
int handle_pending(PyThreadState* tstate);

}  // namespace flashpoint
