// Exceptions: which were made in the recording, and which are older.
//
// One that is made and handled in a recording is an object like any other, and the snapshot at a break has a
// recipe for it, its traceback included. One that is older can be carried about and compared; raising it
// again adds to its traceback, so that ends the recording, and the next one starts at the handler.
#include "eval/liveness.h"
#include "py/frame.h"
#include "record/recorder.h"

namespace flashpoint {

namespace {

// Nothing in the frames of the call, and no C code between them, can catch what the frame raises.
bool leaves_the_call(const EvalFrame* frame) {
  for (;; frame = frame->caller) {
    if (has_handler(py::frame_code(frame->frame), py::frame_instruction(frame->frame))) return false;
    if (frame->link == FrameLink::kOpaque) return frame->caller == nullptr;
  }
}

}  // namespace

void Recorder::read_raise(PyObject* e) {
  // The call up to here can be replayed; what raised would be dropped.
  if (leaves_the_call(frame_)) return end(Break::k_exception);
  if (e == nullptr) {
    e = handled_now(outer);
    if (e == nullptr) e = outer.topmost;
    sees_outer = true;
  }
  if (e == nullptr || !PyExceptionInstance_Check(e)) return;
  if (node_of(e) != kNoNode || e == outer.saved || e == outer.topmost)
    end(Break::k_raised_again, Py_TYPE(e)->tp_name);
}

void Recorder::read_exit(PyObject* e, PyObject* traceback) {
  auto* type = reinterpret_cast<PyObject*>(Py_TYPE(e));
  const NodeId node = node_of(e);
  // An exception's type is guarded where it is older; else the program made it of a class it has.
  if (node_of(type) == kNoNode && !is_fresh_class(type))
    watch(type, tree_.child(kNoNode, Step::kTypeRoot, type));
  if (node == kNoNode || traceback == nullptr) return;
  if (traceback == Py_None) {
    tree_.check(tree_.child(node, Step::kTraceback), CheckKind::kValue, Py_None);
  } else {
    observe(tree_.child(node, Step::kTraceback), traceback);
  }
}

void Recorder::read_handled() {
  PyObject* e = handled_now(outer);
  sees_outer = true;
  if (e == nullptr && outer.topmost == nullptr) return;
  if (e == nullptr || (node_of(e) == kNoNode && (e == outer.saved || e == outer.topmost)))
    return end(Break::k_unsupported_argument, "what is being handled around the call");
  read_exit(e, reinterpret_cast<PyBaseExceptionObject*>(e)->traceback);
}

void Recorder::read_exception_attr(PyObject* e, PyObject* name) {
  if (node_of(e) != kNoNode)
    return end(Break::k_unsupported_attribute, "state of an exception that existed before");
  if (PyUnicode_CompareWithASCIIString(name, "__context__") != 0) return;
  sees_outer = true;
  PyObject* context = reinterpret_cast<PyBaseExceptionObject*>(e)->context;
  if (context != nullptr && node_of(context) == kNoNode &&
      (context == outer.saved || context == outer.topmost))
    end(Break::k_unsupported_attribute, "what is being handled around the call");
}

}  // namespace flashpoint
