#include "record/call_trace.h"

#include "py/frame.h"
#include "record/recorder.h"

namespace flashpoint {
namespace {

// Of the events in whose instruction an operator may run.
const char* event_name(Event event) {
  switch (event) {
    case Event::kCall:
      return "call";
    case Event::kBinary:
      return "binary";
    case Event::kUnary:
      return "unary";
    case Event::kCompare:
      return "compare";
    case Event::kSubscr:
      return "subscript";
    case Event::kStoreSubscr:
      return "store subscript";
    default:
      return "other";
  }
}

}  // namespace

void CallTrace::event(const EvalFrame& frame, const Operands& operands) {
  if (used_ >= 0) kept_.push_back(std::move(callable_));
  used_ = -1;
  event_frame_ = frame.serial;
  ++event_;
  kind_ = operands.event;
  detail_ = operands.detail;
  callable_ = operands.event == Event::kCall ? Ref::share(operands.a) : Ref();
}

// A frame is noted at the first operator below it, while everything on the way out is still running.
int32_t CallTrace::note_frame(EvalFrame* frame) {
  if (frame == nullptr) return -1;
  if (const auto found = frame_index_.find(frame->serial); found != frame_index_.end()) return found->second;
  const int32_t caller = note_frame(frame->caller);
  PyCodeObject* code = py::frame_code(frame->frame);
  Frame noted{code, code->co_argcount > 0 ? py::frame_local(frame->frame, 0) : nullptr, caller,
              frame->caller == nullptr ? 0 : py::frame_instruction(frame->caller->frame)};
  frames_.push_back(noted);
  const auto index = static_cast<int32_t>(frames_.size() - 1);
  frame_index_.emplace(frame->serial, index);
  return index;
}

ProgramPosition CallTrace::current() noexcept {
  EvalFrame* innermost = recorder_ == nullptr ? nullptr : recorder_->innermost();
  if (innermost == nullptr) return {};
  try {
    const int32_t frame = note_frame(innermost);
    // Where C code goes on after a callback, the last event is not its own.
    const bool own = innermost->serial == event_frame_;
    if (own && callable_) used_ = static_cast<int32_t>(kept_.size());
    calls_.push_back({frame, py::frame_instruction(innermost->frame), own ? event_ : -1, own ? used_ : -1,
                      kind_, static_cast<int16_t>(detail_)});
  } catch (...) {  // out of memory: the node has no position
    return {};
  }
  return {this, static_cast<int32_t>(calls_.size() - 1)};
}

std::string CallTrace::describe(const ProgramPosition& position) {
  return position.code == nullptr ? std::string() : std::to_string(position.instruction);
}

PyObject* CallTrace::exported(Recorder& recorder) const {
  Ref frames = Ref::steal(PyList_New(0));
  for (const Frame& f : frames_) {
    const NodeId node = f.self == nullptr ? kNoNode : recorder.node_of(f.self);
    PyObject* self = node == kNoNode ? Py_None : f.self;
    const std::string path = node == kNoNode ? std::string() : recorder.tree().path(node);
    const Ref row =
        Ref::steal(Py_BuildValue("(OOsii)", f.code, self, path.c_str(), static_cast<int>(f.caller),
                                 static_cast<int>(f.caller_instruction)));
    if (!frames || !row || PyList_Append(frames.get(), row.get()) < 0) return nullptr;
  }
  Ref calls = Ref::steal(PyList_New(0));
  for (const Call& c : calls_) {
    const auto index = static_cast<size_t>(c.callable);
    PyObject* callable = Py_None;
    if (c.callable >= 0) callable = index < kept_.size() ? kept_[index].get() : callable_.get();
    const Ref row =
        Ref::steal(Py_BuildValue("(iiLsiO)", static_cast<int>(c.frame), static_cast<int>(c.instruction),
                                 static_cast<long long>(c.event), event_name(c.kind),
                                 static_cast<int>(c.detail), callable == nullptr ? Py_None : callable));
    if (!calls || !row || PyList_Append(calls.get(), row.get()) < 0) return nullptr;
  }
  if (!frames || !calls) return nullptr;
  return Py_BuildValue("{s:O,s:O}", "frames", frames.get(), "calls", calls.get());
}

}  // namespace flashpoint
