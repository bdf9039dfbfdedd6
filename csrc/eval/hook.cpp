#include "eval/hook.h"

#include <pthread.h>

#include "base/counters.h"
#include "eval/evaluate.h"
#include "eval/frame_control.h"
#include "eval/stack_limit.h"
#include "eval/thread_context.h"

namespace flashpoint {
namespace {

PyObject* hook(PyThreadState* tstate, _PyInterpreterFrame* frame, int throwflag);

// All of this is guarded by the GIL.
struct HookState {
  _PyFrameEvalFunction previous = nullptr;      // what to call for frames that are not ours
  _PyFrameEvalFunction buried_under = nullptr;  // a hook that was installed over ours
  int acquired = 0;                             // armed threads
  bool everywhere = false;
  uint64_t suspensions = 0;
  uint64_t forks = 0;
};
HookState state;

thread_local ThreadContext context;
// The frame this thread is passing to the previous hook: if that hook chains back to us (two hooks that
// were each installed over the other), the frame goes to CPython.
thread_local _PyInterpreterFrame* passing = nullptr;
thread_local bool armed_by_everywhere = false;

void install(PyInterpreterState* interp) {
  _PyFrameEvalFunction current = _PyInterpreterState_GetEvalFrameFunc(interp);
  if (current == hook) return;
  if (current != _PyEval_EvalFrameDefault && current == state.buried_under) return;
  state.previous = current == _PyEval_EvalFrameDefault ? nullptr : current;
  state.buried_under = nullptr;
  _PyInterpreterState_SetEvalFrameFunc(interp, hook);
}

void uninstall(PyInterpreterState* interp) {
  _PyFrameEvalFunction current = _PyInterpreterState_GetEvalFrameFunc(interp);
  if (current != hook) {
    if (current != _PyEval_EvalFrameDefault && current != state.previous) state.buried_under = current;
    return;
  }
  _PyInterpreterState_SetEvalFrameFunc(interp,
                                       state.previous == nullptr ? _PyEval_EvalFrameDefault : state.previous);
}

bool wanted() { return state.acquired > 0 || state.everywhere; }

PyObject* pass_on(PyThreadState* tstate, _PyInterpreterFrame* frame, int throwflag) {
  if (state.previous == nullptr || passing == frame)
    return _PyEval_EvalFrameDefault(tstate, frame, throwflag);
  _PyInterpreterFrame* outer = passing;
  passing = frame;
  PyObject* result = state.previous(tstate, frame, throwflag);
  passing = outer;
  return result;
}

// Runs a frame that starts near the end of the C stack: everything below it is plain CPython.
__attribute__((noinline)) PyObject* run_without_hook(PyThreadState* tstate, _PyInterpreterFrame* frame,
                                                     int throwflag) {
  state.suspensions++;
  PyInterpreterState* interp = tstate->interp;
  uninstall(interp);
  // Another hook, TorchDynamo's for one, takes C stack for each frame too.
  const _PyFrameEvalFunction other = _PyInterpreterState_GetEvalFrameFunc(interp);
  _PyInterpreterState_SetEvalFrameFunc(interp, _PyEval_EvalFrameDefault);
  PyObject* result = _PyEval_EvalFrameDefault(tstate, frame, throwflag);
  if (_PyInterpreterState_GetEvalFrameFunc(interp) == _PyEval_EvalFrameDefault)
    _PyInterpreterState_SetEvalFrameFunc(interp, other);
  if (wanted()) install(interp);
  return result;
}

// evaluate_everywhere reaches each thread at the thread's own next frame.
void follow_everywhere(ThreadContext& here) {
  if (armed_by_everywhere == state.everywhere) return;
  if (here.observer != nullptr) return;  // a recording is running; later
  armed_by_everywhere = here.armed = here.evaluate_unobserved = state.everywhere;
}

PyObject* hook(PyThreadState* tstate, _PyInterpreterFrame* frame, int throwflag) {
  if (near_stack_end()) [[unlikely]] {
    if (context.armed && context.control != nullptr && context.control->restoring()) {
      PyErr_SetString(PyExc_RecursionError, "maximum recursion depth exceeded");
      return nullptr;
    }
    if (context.armed) report_unsupported(context, frame, RESUME);
    counters().frames_passed += context.armed;
    return run_without_hook(tstate, frame, throwflag);
  }
  ThreadContext& here = context;
  if (!here.armed || armed_by_everywhere != state.everywhere) [[unlikely]] {
    follow_everywhere(here);
    if (!here.armed) {
      if (!wanted()) uninstall(tstate->interp);  // we were buried and are uncovered again
      return pass_on(tstate, frame, throwflag);
    }
  }
  if (tstate->cframe->use_tracing && !(here.control != nullptr && here.control->restoring())) {
    report_unsupported(here, frame, RESUME);
    counters().frames_passed++;
    return pass_on(tstate, frame, throwflag);
  }
  if (here.observer != nullptr || (here.control != nullptr && here.control->restoring())) {
    return evaluate_observed(here, tstate, frame, throwflag);
  }
  if (here.evaluate_unobserved) return evaluate_plain(here, tstate, frame, throwflag);
  return pass_on(tstate, frame, throwflag);
}

void clear_in_child() {
  context = ThreadContext{};
  passing = nullptr;
  armed_by_everywhere = false;
  state.acquired = 0;
  state.forks++;
}

void prepare_once() {
  static const bool ready = [] {
    prepare_evaluator();
    return pthread_atfork(nullptr, nullptr, clear_in_child) == 0;
  }();
  (void)ready;
}

}  // namespace

ThreadContext& thread_context() { return context; }

uint64_t hook_suspensions() { return state.suspensions; }

void hook_acquire() {
  prepare_once();
  state.acquired++;
  install(PyInterpreterState_Get());
}

void hook_release() {
  if (state.acquired > 0) state.acquired--;
  if (!wanted()) uninstall(PyInterpreterState_Get());
}

bool hook_installed() { return _PyInterpreterState_GetEvalFrameFunc(PyInterpreterState_Get()) == hook; }

void evaluate_everywhere(bool on) {
  prepare_once();
  state.everywhere = on;
  if (on) {
    install(PyInterpreterState_Get());
  } else {
    follow_everywhere(context);
    if (!wanted()) uninstall(PyInterpreterState_Get());
  }
}

ArmedScope::ArmedScope(Observer* observer) : saved_(context), fork_count_(state.forks) {
  hook_acquire();
  context.armed = true;
  context.observer = observer;
  context.control = nullptr;
}

ArmedScope::~ArmedScope() {
  if (fork_count_ != state.forks) return;  // the context was cleared in this process
  context.armed = saved_.armed;
  context.observer = saved_.observer;
  context.control = saved_.control;
  context.top = saved_.top;
  context.evaluate_unobserved = saved_.evaluate_unobserved;
  context.hand_over_at = saved_.hand_over_at;
  hook_release();
  flush_instruction_count(context);
}

// The observer stays in place: if it ends its recording while the scope is open, that must last.
DisarmedScope::DisarmedScope() : was_armed_(context.armed), fork_count_(state.forks) {
  context.armed = false;
}

DisarmedScope::~DisarmedScope() {
  if (fork_count_ == state.forks) context.armed = was_armed_;
}

}  // namespace flashpoint
