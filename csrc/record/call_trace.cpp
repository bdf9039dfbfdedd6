#include "record/call_trace.h"

#include "base/flat_map.h"
#include "py/frame.h"
#include "py/torch_bridge.h"
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

namespace {

// The same for every tensor that it is bound to; null for what says nothing about an operator.
PyObject* without_receiver(PyObject* callable) {
  if (callable == nullptr || Py_IS_TYPE(callable, &PyMethodDescr_Type)) return callable;
  if (!PyCFunction_Check(callable)) return nullptr;
  PyObject* self = PyCFunction_GET_SELF(callable);
  if (self == nullptr || !is_tensor(self)) return callable;
  const auto* method = reinterpret_cast<PyCFunctionObject*>(callable)->m_ml;
  const Ref name = Ref::steal(PyUnicode_InternFromString(method->ml_name));
  if (!name) return PyErr_Clear(), nullptr;
  PyObject* found = _PyType_Lookup(tensor_type(), name.get());
  return found != nullptr && Py_IS_TYPE(found, &PyMethodDescr_Type) ? found : nullptr;
}

}  // namespace

KeptTrace CallTrace::kept(Recorder& recorder) const {
  KeptTrace trace;
  for (const Frame& f : frames_) {
    const NodeId self = f.self == nullptr ? kNoNode : recorder.node_of(f.self);
    trace.frames.push_back(
        {Ref::share(reinterpret_cast<PyObject*>(f.code)), self, f.caller, f.caller_instruction});
  }
  FlatMap<PyObject*, int32_t, PointerHash> indices;
  for (const Call& c : calls_) {
    const auto at = static_cast<size_t>(c.callable);
    PyObject* callable = c.callable < 0 ? nullptr : at < kept_.size() ? kept_[at].get() : callable_.get();
    callable = without_receiver(callable);
    int32_t index = -1;
    if (callable != nullptr) {
      const auto [known, inserted] =
          indices.try_emplace(callable, static_cast<int32_t>(trace.callables.size()));
      if (inserted) trace.callables.push_back(Ref::share(callable));
      index = *known;
    }
    trace.calls.push_back({c.frame, c.instruction, c.event, index, c.kind, c.detail});
  }
  return trace;
}

PyObject* KeptTrace::exported(const GuardTree& tree, const std::function<PyObject*(NodeId)>& objects) const {
  Ref rows = Ref::steal(PyList_New(0));
  for (const Frame& f : frames) {
    PyObject* self = f.self == kNoNode ? nullptr : objects(f.self);
    const std::string path = self == nullptr ? std::string() : tree.path(f.self);
    const Ref row = Ref::steal(
        Py_BuildValue("(OOsii)", f.code ? f.code.get() : Py_None, self == nullptr ? Py_None : self,
                      path.c_str(), static_cast<int>(f.caller), static_cast<int>(f.caller_instruction)));
    if (!rows || !row || PyList_Append(rows.get(), row.get()) < 0) return nullptr;
  }
  Ref list = Ref::steal(PyList_New(0));
  for (const Call& c : calls) {
    PyObject* callable = c.callable < 0 ? nullptr : callables[static_cast<size_t>(c.callable)].get();
    const Ref row =
        Ref::steal(Py_BuildValue("(iiLsiO)", static_cast<int>(c.frame), static_cast<int>(c.instruction),
                                 static_cast<long long>(c.event), event_name(c.kind),
                                 static_cast<int>(c.detail), callable == nullptr ? Py_None : callable));
    if (!list || !row || PyList_Append(list.get(), row.get()) < 0) return nullptr;
  }
  if (!rows || !list) return nullptr;
  return Py_BuildValue("{s:O,s:O}", "frames", rows.get(), "calls", list.get());
}

}  // namespace flashpoint
