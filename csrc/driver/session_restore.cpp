// Restoring, patching and dropping frames: what a session does with the snapshot that an entry ends in.
#include <utility>

#include "base/check.h"
#include "driver/session.h"
#include "eval/frame_state.h"
#include "py/frame.h"
#include "py/generators.h"
#include "py/tracebacks.h"
#include "record/read_generator.h"

namespace flashpoint {

namespace {

// Raised through C code to drop the frames between two evaluated ones; never seen by the program.
PyObject* unwinding_error() {
  static PyObject* type =
      PyErr_NewException("flashpoint._C.DroppedFrame", PyExc_BaseException, nullptr);  // lives for ever
  return type;
}

std::vector<PyObject*> release_all(std::vector<Ref>& values) {
  std::vector<PyObject*> released;
  for (Ref& value : values) released.push_back(value.release());
  return released;
}

bool receives_generator(FrameLink link) {
  return link == FrameLink::kNext || link == FrameLink::kDelegate || link == FrameLink::kSend;
}

}  // namespace

FrameControl::Action Session::apply(const Suspension& plan, BuiltStack stack, EvalFrame& frame,
                                    const Chain& chain) {
  begin_hand_over();
  plan_ = &plan;
  built_ = std::move(stack);
  next_ = 0;
  const auto common = static_cast<size_t>(plan.common);
  FP_CHECK(common < chain.size(), "a plan for frames that are not running");
  if (common + 1 == chain.size()) return write_level(frame, false);
  return drop_to(chain[common].serial, frame);
}

// A result is in hand, or a plan for the frame target_ and those below it: what lies above it goes.
FrameControl::Action Session::drop_to(uint64_t target, EvalFrame& frame) {
  unwinding_ = true;
  target_ = target;
  return drop(frame);
}

// A generator that the program goes on to have is left as if it had yielded; dropping its frame would end it.
FrameControl::Action Session::drop(EvalFrame& frame) {
  if (PyObject* generator = py::generator_of(frame.frame)) {
    BuiltGenerator* end = nullptr;
    for (BuiltGenerator& built : built_.generators) {
      if (built.generator.get() == generator) end = &built;
    }
    if (end == nullptr || !end->finished) {
      if (end != nullptr) {
        py::set_generator_handled(generator, std::move(end->slots.back()));
        end->slots.pop_back();
        write_frame(frame, release_all(end->slots), end->position);
      } else {
        clear_stack(frame);
      }
      py::suspend_generator(generator);
      return Action::kYield;
    }
  }
  PyErr_SetNone(unwinding_error());
  return Action::kLeave;
}

FrameControl::Action Session::write_level(EvalFrame& frame, bool fresh) {
  std::vector<PyObject*> slots;
  for (size_t i = 0; i < built_.frames[next_].slots.size(); ++i) {
    const bool keep = !fresh && plan_->frames[next_].slots[i].kind == RecipeValue::Kind::kKeep;
    slots.push_back(keep ? Py_XNewRef(frame_slot(frame, i)) : built_.frames[next_].slots[i].release());
  }
  if (PyObject* generator = py::generator_of(frame.frame)) {
    py::set_generator_handled(generator, Ref::steal(slots.back()));
    slots.pop_back();
  }
  const int position = plan_->frames[next_].position;
  ++next_;
  const FrameLink below = next_ < plan_->frames.size() ? plan_->frames[next_].link : FrameLink::kOpaque;
  if (below == FrameLink::kDelegate) slots.push_back(Py_NewRef(Py_None));  // what was sent
  write_frame(frame, std::move(slots), position);
  if (below == FrameLink::kNext || below == FrameLink::kDelegate) {
    restoring_ = true;
    return Action::kReload;
  }
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
  if (plan_->handled.kind != RecipeValue::Kind::kKeep) set_handled_in(outer_, std::move(built.handled));
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
  // A frame that the one to be restored could not start before.
  if (plan_ == nullptr || (receives_generator(plan_->frames[next_].link) &&
                           py::generator_of(frame.frame) != built_.frames[next_].self.get())) {
    give_up();
    return Action::kHandOver;
  }
  frame.link = plan_->frames[next_].link;
  frame.link_self = built_.frames[next_].self.get();  // run_callee keeps it alive
  return write_level(frame, true);
}

FrameControl::Action Session::unwind(EvalFrame& frame) {
  PyErr_Clear();
  if (frame.serial != target_) return drop(frame);
  unwinding_ = false;
  if (!has_result_) return write_level(frame, false);
  built_ = {};
  return Action::kLeave;
}

PyObject* Session::run_callee(EvalFrame&) {
  const Ref function = built_.frames[next_].function;
  const Ref self = built_.frames[next_].self;
  const FrameLink link = plan_->frames[next_].link;
  restoring_ = true;
  if (link == FrameLink::kSend) return run_generator(self.get());
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

PyObject* Session::run_generator(PyObject* generator) {
  PyObject* value = nullptr;
  const PySendResult status = PyIter_Send(generator, Py_None, &value);
  restoring_ = false;
  if (status == PYGEN_RETURN) {
    if (value == Py_None) {
      PyErr_SetNone(PyExc_StopIteration);
    } else {
      py::set_stop_iteration(value);
    }
    Py_CLEAR(value);
  }
  return value;
}

PyObject* Session::take_result() {
  if (unwinding_) return nullptr;
  has_result_ = false;
  return result_.release();
}

// A generator that runs may be let go of, by its owner, where closing it is noticed: a recording would keep
// it alive. Managers of contextlib see to the end of theirs where they are left, and will be left where their
// __exit__ is at hand.
bool Session::closes_late(const Chain& chain) {
  for (size_t i = 1; i < chain.size(); ++i) {
    PyObject* generator = py::generator_of(chain[i].frame->frame);
    if (generator == nullptr || !py::may_close_noticeably(generator)) continue;
    const EvalFrame& owner = *chain[i - 1].frame;
    if (!runs_to_the_end(owner)) return true;
    if (PyUnicode_CompareWithASCIIString(py::frame_code(owner.frame)->co_name, "__enter__") != 0) continue;
    if (i < 2) return true;
    const std::vector<PyObject*> slots = frame_slots(*chain[i - 2].frame, true);
    const bool left = std::any_of(slots.begin(), slots.end(), [&](PyObject* o) {
      return o != nullptr && PyMethod_Check(o) && PyMethod_GET_SELF(o) == py::frame_local(owner.frame, 0);
    });
    if (!left) return true;
  }
  return false;
}

}  // namespace flashpoint
