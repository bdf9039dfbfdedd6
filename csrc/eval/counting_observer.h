// An observer that records nothing: it counts events and checks the evaluator's promises (tests only).
//
// Checked: every `after` belongs to the innermost open `before`; frames nest; a null result comes with a
// Python error exactly where the event allows it; a tag is found only where the value it was given for is
// (each result gets a fresh tag; at every event all tags of the frame are compared with the slots); no
// call comes after the recording was ended.
// A broken promise is counted and its text kept; nothing is raised.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "record/observer.h"

namespace flashpoint {

class CountingObserver final : public Observer {
 public:
  // end_at: the number of calls to this observer after which it ends its recording; negative: never.
  explicit CountingObserver(long end_at = -1) : end_at_(end_at) {}
  Pending before(EvalFrame& frame, const Operands& operands) override;
  Tag after(EvalFrame& frame, const Operands& operands, const Pending& pending, PyObject* result) override;
  PyObject* enter_frame(EvalFrame& frame) override;
  void leave_frame(EvalFrame& frame, PyObject* result) override;

  // Makes this observer's findings the ones last_report() returns.
  void publish() const;
  // {"events": {number: count}, "calls": n, "frames": n, "tags": n, "tags_seen": n, "problems": [...]}: a new
  // reference.
  static PyObject* last_report();

 private:
  void problem(const std::string& text);
  void count_call();
  void check_tags(const EvalFrame& frame);

  const long end_at_;
  long calls_ = 0;
  std::map<int, long> events_;
  long frames_ = 0;
  long tags_seen_ = 0;
  std::vector<EvalFrame*> open_frames_;
  std::vector<Event> open_events_;
  std::vector<const PyObject*> tagged_{nullptr};  // by tag; compared, never dereferenced
  std::vector<std::string> problems_;
};

}  // namespace flashpoint
