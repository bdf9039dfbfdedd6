// Where each operator of a recording was called from: frames, and the instruction's own callable.
//
// Kept only for backends that get FX graphs: stack traces and module stacks of nodes come from here, and the
// torch-level function behind an operator. The recorder tells of every event; the graph recorder asks for a
// position at every node, with the GIL released, and gets back an index into what was noted.
//
// Frames are noted once each. Code objects and the objects that methods run on are not kept alive here: the
// recorder does that (what it does not know is left out of what is kept).
//
// GIL: required but for current(). One thread.
#pragma once

#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "guard/guard_tree.h"
#include "py/ref.h"
#include "record/observer.h"
#include "record/op_log.h"

namespace flashpoint {

class Recorder;

// What of it outlives the recording.
struct KeptTrace {
  struct Frame {
    Ref code;     // null: not known
    NodeId self;  // where the guards reach the frame's first argument, kNoNode: nowhere
    int32_t caller;
    int32_t caller_instruction;
  };
  struct Call {
    int32_t frame;
    int32_t instruction;
    int64_t event;     // the same for operators of one instruction; negative: not its own
    int32_t callable;  // index into callables, -1: none
    Event kind;
    int16_t detail;
  };
  std::vector<Frame> frames;
  std::vector<Call> calls;
  std::vector<Ref> callables;  // C functions and methods of types; null: not known

  // {"frames": [(code, self or None, its path or None, caller, caller's instruction)],
  //  "calls": [(frame, instruction, event, kind, detail, callable or None)]}: a node's location names its
  //  call. objects: by node.
  // New reference, null with a Python error set.
  PyObject* exported(const GuardTree& tree, const std::function<PyObject*(NodeId)>& objects) const;
};

class CallTrace final : public PositionSource {
 public:
  // Before anything else; the recorder's frames are looked at while operators run.
  void follow(const Recorder* recorder) { recorder_ = recorder; }
  // Before an instruction runs.
  void event(const EvalFrame& frame, const Operands& operands);

  ProgramPosition current() noexcept override;
  std::string describe(const ProgramPosition& position) override;

  // What is known at the end, while the recorder has its objects.
  KeptTrace kept(Recorder& recorder) const;

 private:
  struct Frame {
    PyCodeObject* code;
    PyObject* self;  // the first argument
    int32_t caller;
    int32_t caller_instruction;
  };
  struct Call {
    int32_t frame;
    int32_t instruction;
    int64_t event;
    int32_t callable;  // index into kept_, -1: none
    Event kind;
    int16_t detail;
  };

  int32_t note_frame(EvalFrame* frame);

  const Recorder* recorder_ = nullptr;
  uint64_t event_frame_ = 0;  // serial
  int64_t event_ = 0;
  Event kind_ = Event::kName;
  int detail_ = 0;
  Ref callable_;           // of the event under way
  int32_t used_ = -1;      // where kept_ has it, once an operator ran in it
  std::vector<Ref> kept_;  // callables; grown by event() only
  std::vector<Frame> frames_;
  std::vector<Call> calls_;
  std::unordered_map<uint64_t, int32_t> frame_index_;  // by serial
};

}  // namespace flashpoint
