// Per-thread state of the frame hook: whether frames of this thread are evaluated by us, and for whom.
//
// The PEP 523 hook is interpreter-wide; a thread whose context is not armed gets the previous hook.
// The fields are plain thread-locals: read on every Python call while the hook is installed.
// A fork clears the child's context; scopes that were open at the fork then do nothing when they close.
#pragma once

#include "record/observer.h"

namespace flashpoint {

class FrameControl;

struct ThreadContext {
  bool armed = false;               // frames of this thread are evaluated by us
  Observer* observer = nullptr;     // owned by whoever armed; null: evaluate without recording (tests)
  EvalFrame* top = nullptr;         // innermost evaluated frame
  FrameControl* control = nullptr;  // decides about running frames when their recording has ended
  uint64_t frames_started = 0;      // serial numbers of frames
  // When a recording ends (observer cleared) while frames are still running, the evaluator hands them to
  // CPython at the next instruction boundary. Tests set this to keep evaluating without an observer.
  bool evaluate_unobserved = false;
  uint64_t instructions = 0;             // run by the evaluator on this thread; not saved by scopes
  uint64_t hand_over_at = ~uint64_t{0};  // tests: hand over the frame that reaches this count
};

ThreadContext& thread_context();

// Arms this thread for the lifetime of the guard; the hook is installed while any thread is armed. Nests.
class ArmedScope {
 public:
  explicit ArmedScope(Observer* observer);
  ~ArmedScope();
  ArmedScope(const ArmedScope&) = delete;
  ArmedScope& operator=(const ArmedScope&) = delete;

 private:
  ThreadContext saved_;
  uint64_t fork_count_;
};

// Stops evaluation of frames on this thread for the lifetime of the guard (internal work that runs Python).
class DisarmedScope {
 public:
  DisarmedScope();
  ~DisarmedScope();
  DisarmedScope(const DisarmedScope&) = delete;
  DisarmedScope& operator=(const DisarmedScope&) = delete;

 private:
  bool was_armed_;
  uint64_t fork_count_;
};

// Counts the times the hook was taken out because some thread came near the end of its C stack. A
// recording during which this changed may have missed frames and must be dropped.
uint64_t hook_suspensions();

// Tests and tools: evaluate the frames of every thread, unobserved, without an ArmedScope.
void evaluate_everywhere(bool on);

}  // namespace flashpoint
