// Who decides about running frames once a recording has ended at a break: the interface between the
// evaluator and the driver's session.
//
// The instruction at which a recording ended runs unobserved. At the next boundary the evaluator asks
// `at_boundary` what becomes of the frame; a frame that starts while `restoring` is filled by `restore`;
// a frame whose callee came back because frames are being dropped asks `unwind`. Each time the frame's
// position (prev_instr, one before the next instruction) and stack (stacktop) are in the frame itself, and
// the answer may have rewritten both.
//
// Thread: the frame's, GIL held. Nothing is thrown.
#pragma once

#include "record/observer.h"

namespace flashpoint {

class FrameControl {
 public:
  enum class Action : uint8_t {
    kGoOn,      // go on, watched by the thread's observer
    kReload,    // perform the next instruction unobserved, then ask again
    kDescend,   // the next instruction is a call in progress: run its callee with run_callee()
    kLeave,     // drop the frame; its result is take_result()
    kYield,     // leave the frame, a generator's, as if it had yielded None
    kError,     // a Python error is set: raise it in the frame
    kHandOver,  // the rest of the frame is CPython's
  };
  virtual ~FrameControl() = default;
  virtual bool restoring() const = 0;
  virtual bool unwinding() const = 0;
  virtual Action restore(EvalFrame& frame) = 0;
  virtual Action at_boundary(EvalFrame& frame) = 0;
  virtual Action unwind(EvalFrame& frame) = 0;
  // Runs the frame that `frame` is calling, and gives the result of the call: a new reference or null.
  virtual PyObject* run_callee(EvalFrame& frame) = 0;
  virtual PyObject* take_result() = 0;

  // Stands for "no observer" where a frame must ask at its next boundary.
  static Observer* nobody();
};

}  // namespace flashpoint
