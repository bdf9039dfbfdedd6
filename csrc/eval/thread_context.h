// Per-thread state of the frame hook: whether frames of this thread are evaluated by us, and for whom.
//
// The PEP 523 hook is interpreter-wide; a thread whose context is not armed gets the previous hook.
// The fields are plain thread-locals: read on every Python call while the hook is installed.
#pragma once

#include "record/observer.h"

namespace flashpoint {

struct ThreadContext {
  bool armed = false;            // frames of this thread are evaluated by us
  Observer* observer = nullptr;  // owned by whoever armed; null: evaluate without recording (tests)
  EvalFrame* top = nullptr;      // innermost evaluated frame
  // When a recording ends (observer cleared) while frames are still running, the evaluator hands them to
  // CPython at the next instruction boundary. Tests set this to keep evaluating without an observer.
  bool evaluate_unobserved = false;
};

ThreadContext& thread_context();

// Arms this thread for the lifetime of the guard; installs the hook on first use in the process. Nests.
class ArmedScope {
 public:
  explicit ArmedScope(Observer* observer);
  ~ArmedScope();
  ArmedScope(const ArmedScope&) = delete;
  ArmedScope& operator=(const ArmedScope&) = delete;

 private:
  ThreadContext saved_;
};

// Stops evaluation of frames on this thread for the lifetime of the guard (internal work that runs Python).
class DisarmedScope {
 public:
  DisarmedScope();
  ~DisarmedScope();
  DisarmedScope(const DisarmedScope&) = delete;
  DisarmedScope& operator=(const DisarmedScope&) = delete;

 private:
  ThreadContext saved_;
};

}  // namespace flashpoint
