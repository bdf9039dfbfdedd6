// Restoring, patching and dropping frames: what a session does with the snapshot that an entry ends in.
#include <utility>

#include "base/check.h"
#include "driver/session.h"
#include "eval/frame_state.h"
#include "py/tracebacks.h"

namespace flashpoint {

namespace {

// Raised through C code to drop the frames between two evaluated ones; never seen by the program.
PyObject* unwinding_error() {
  static PyObject* type =
      PyErr_NewException("flashpoint._C.DroppedFrame", PyExc_BaseException, nullptr);  // lives for ever
  return type;
}

}  // namespace

// A result is in hand, or a plan for the frame target_ and those below it: what lies above it goes.
FrameControl::Action Session::drop_to(uint64_t target) {
  unwinding_ = true;
  target_ = target;
  PyErr_SetNone(unwinding_error());
  return Action::kLeave;
}

FrameControl::Action Session::apply(const Suspension& plan, BuiltStack stack, EvalFrame& frame,
                                    const Chain& chain) {
  begin_hand_over();
  plan_ = &plan;
  built_ = std::move(stack);
  next_ = 0;
  const auto common = static_cast<size_t>(plan.common);
  FP_CHECK(common < chain.size(), "a plan for frames that are not running");
  if (common + 1 == chain.size()) return write_level(frame, false);
  return drop_to(chain[common].serial);
}

FrameControl::Action Session::write_level(EvalFrame& frame, bool fresh) {
  std::vector<PyObject*> slots;
  for (size_t i = 0; i < built_.frames[next_].slots.size(); ++i) {
    const bool keep = !fresh && plan_->frames[next_].slots[i].kind == RecipeValue::Kind::kKeep;
    slots.push_back(keep ? Py_XNewRef(frame_slot(frame, i)) : built_.frames[next_].slots[i].release());
  }
  const int position = plan_->frames[next_].position;
  ++next_;
  write_frame(frame, std::move(slots), position);
  if (next_ < plan_->frames.size()) return Action::kDescend;
  complete_stack(frame);
  end_hand_over();
  plan_ = nullptr;
  entry_.reset();
  return Action::kReload;
}

// All frames stand: what concerns them together.
void Session::complete_stack(EvalFrame& innermost) {
  BuiltStack built = std::move(built_);
  built_ = {};
  if (plan_->handled.kind != RecipeValue::Kind::kKeep) set_handled_here(std::move(built.handled));
  if (built.tracebacks.empty()) return;
  const Chain chain = chain_to(innermost);
  for (const auto& [traceback, level] : built.tracebacks) {
    const Ref object = frame_object(chain[static_cast<size_t>(level)].frame->frame);
    if (object) set_traceback_frame(traceback.get(), object.get());
  }
}

std::vector<PyObject*> Session::frame_objects(const Chain& chain) const {
  std::vector<PyObject*> objects;
  for (const Level& level : chain) objects.push_back(known_frame_object(level.frame->frame));
  return objects;
}

FrameControl::Action Session::restore(EvalFrame& frame) {
  restoring_ = false;
  frame.link = plan_->frames[next_].link;
  frame.link_self = built_.frames[next_].self.get();  // run_callee keeps it alive
  return write_level(frame, true);
}

FrameControl::Action Session::unwind(EvalFrame& frame) {
  if (frame.serial != target_) return Action::kLeave;
  PyErr_Clear();
  unwinding_ = false;
  if (has_result_) return Action::kLeave;
  return write_level(frame, false);
}

PyObject* Session::run_callee(EvalFrame&) {
  const Ref function = built_.frames[next_].function;
  const Ref self = built_.frames[next_].self;
  const FrameLink link = plan_->frames[next_].link;
  restoring_ = true;
  Ref result = Ref::steal(start_frame(function.get()));
  restoring_ = false;
  if (!result || link != FrameLink::kInit) return result.release();
  if (result.get() != Py_None) {
    PyErr_Format(PyExc_TypeError, "__init__() should return None, not '%.200s'",
                 Py_TYPE(result.get())->tp_name);
    return nullptr;
  }
  return Py_NewRef(self.get());
}

PyObject* Session::take_result() {
  if (unwinding_) return nullptr;
  has_result_ = false;
  return result_.release();
}

}  // namespace flashpoint
