// One call of a compiled function from its first recording or replay to its result: records, ends
// recordings at breaks, looks for entries at the positions behind them, restores and drops frames.
//
// At a break the recording so far becomes an entry that ends in a snapshot of the frames. The breaking
// instruction runs unobserved; at the next boundary the position there has an entry whose guards hold (its
// graph and effects run, and the frames are patched, extended or dropped), or a new recording starts, or
// nothing more is to be gained and the frames are CPython's. What cannot be snapshot is remembered by
// instruction, so that the next call breaks before it.
//
// Whatever happens to a recording, the program has done each thing exactly once. One thread, GIL held.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "driver/positions.h"
#include "eval/frame_control.h"
#include "py/saved_error.h"
#include "record/recorder.h"

namespace flashpoint {

struct SessionOptions {
  bool tracing_state_queries = true;
  bool verify = false;
  bool poison_empty = false;
  bool resume = true;
  int64_t fail_at_event = 0;   // tests: inject a failed check at this event
  int64_t break_at_event = 0;  // tests: end each recording at this event
  bool value_guards = false;
  bool capture_scalars = false;
  std::string name = {};   // of the function, for the log
  bool fullgraph = false;  // raise where a break would be
  bool measure = false;    // take the time that breaks cost
};

// True while this thread is recording (a compiled function called inside is then inlined).
bool capturing();

class Session final : public FrameControl, public BreakSink {
 public:
  Session(std::shared_ptr<CodeState> state, const SessionOptions& options);
  ~Session() override;

  // Runs the call while recording. args as in vectorcall, the receiver of a method included.
  PyObject* record(PyObject* function, PyObject* const* args, size_t nargs, PyObject* kwnames);
  // Goes on from the frames that an entry at the function's start gave.
  PyObject* resume(const std::shared_ptr<Entry>& entry, BuiltStack stack);
  // Sets the error of a function that must have no break, which has one.
  void raise_break(const BreakReport& report);
  // Whether the pending error is the one raise_break() set, and not one that the program made of it.
  bool has_raised_break() const;
  // Whether an entry was made.
  bool has_recorded() const { return has_recorded_; }

  bool restoring() const override { return restoring_; }
  bool unwinding() const override { return unwinding_; }
  Action restore(EvalFrame& frame) override;
  Action at_boundary(EvalFrame& frame) override;
  Action unwind(EvalFrame& frame) override;
  PyObject* run_callee(EvalFrame& frame) override;
  PyObject* take_result() override;
  bool on_break(Recorder& recorder, EvalFrame* frame, const Operands* operands) override;

 private:
  struct Recording;
  struct Level {
    EvalFrame* frame;
    uint64_t serial;
  };
  using Chain = std::vector<Level>;
  struct Slot {
    PyObject* value;
    Tag tag;
  };
  using Slots = std::vector<Slot>;

  Chain chain_to(EvalFrame& innermost) const;
  bool sees_locals(const Chain& chain) const;
  bool dies_visibly(const Chain& chain) const;
  bool outlives_use(PyObject* value) const;
  bool describe(const Chain& chain, std::string* key, std::vector<PyObject*>* args) const;
  void start_recording(std::vector<Ref> args, std::string key, Chain chain, PyObject* function, size_t nargs,
                       PyObject* kwnames);
  void stop_recording();
  void attach_arguments(const Chain& chain);
  void finish_call(PyObject* result);
  PyObject* or_backend_error(PyObject* result);
  bool suspend(EvalFrame& frame, const Operands& operands);
  std::unique_ptr<Entry> finish(PyObject* result, std::unique_ptr<Suspension> suspension,
                                const std::vector<Slots>& slots);
  void add(std::unique_ptr<Entry> entry);
  void follow(const std::shared_ptr<Entry>& entry);
  void remember(EvalFrame* frame);
  void remember(PyCodeObject* code, size_t at);
  void give_up();
  void skip(const char* why) const;
  // See options_.measure: from here to there is the cost of a break.
  void begin_hand_over();
  void end_hand_over();
  bool end_at_break(Recorder& recorder, EvalFrame* frame, const Operands* operands);
  Action go_on(EvalFrame& frame);
  std::shared_ptr<Entry> load(const std::string& key, const std::vector<PyObject*>& args,
                              const GlobalState& now);
  void dropped(const BreakReport& report);
  bool learn_level(PositionEntries& position, const BreakReport& report);
  bool may_go_below() const;
  Action apply(const Suspension& plan, BuiltStack stack, EvalFrame& frame, const Chain& chain);
  void complete_stack(EvalFrame& innermost);
  std::vector<PyObject*> frame_objects(const Chain& chain) const;
  Action write_level(EvalFrame& frame, bool fresh);
  Action drop_to(uint64_t target, EvalFrame& frame);
  Action drop(EvalFrame& frame);
  PyObject* run_generator(PyObject* generator);
  static std::vector<PyObject*> generators_of(const Chain& chain);
  static bool closes_late(const Chain& chain);

  std::shared_ptr<CodeState> state_;
  SessionOptions options_;
  std::unique_ptr<Recording> recording_;
  std::vector<std::unique_ptr<Recording>> waiting_;  // ended in calls that their recorders wait for
  uint64_t outermost_ = 0;  // serial of the function's own frame, 0 before it has started
  bool traced_before_;
  bool in_forward_ad_;            // when the call began
  bool keys_were_saved_ = false;  // a guard that was taken while recording will put our dispatch key back
  bool restoring_ = false;
  bool unwinding_ = false;
  bool off_ = false;
  bool has_recorded_ = false;
  bool learned_ = false;  // the recording that is being dropped has left an instruction to break before
  KeptError backend_error_;
  Ref raised_;            // what raise_break() set
  bool raising_ = false;  // at the next boundary: a break of a function that must have none
  OuterHandling outer_;   // what was being handled when the call began
  // Frames to be restored, from level next_ on; the plan belongs to an entry kept by entry_.
  std::shared_ptr<Entry> entry_;
  std::shared_ptr<Entry> last_entry_;  // that ran or was made in this call
  BuiltStack built_;
  const Suspension* plan_ = nullptr;
  size_t next_ = 0;
  uint64_t target_ = 0;             // serial of the frame at which unwinding ends
  int64_t handing_over_since_ = 0;  // nanoseconds, 0: nothing is measured
  int64_t ran_since_ = 0;           // when the entry that answered began to run
  BreakCost cost_;                  // of the last break
  Ref result_;
  bool has_result_ = false;
};

}  // namespace flashpoint
