#include "py/internal.h"

#include "py/tracebacks.h"

namespace flashpoint {

std::vector<TracebackEntry> traceback_entries(PyObject* traceback) {
  std::vector<TracebackEntry> entries;
  for (auto* tb = reinterpret_cast<PyTracebackObject*>(traceback); tb != nullptr; tb = tb->tb_next) {
    const _PyInterpreterFrame* frame = tb->tb_frame->f_frame;
    entries.push_back({frame->f_code, frame->f_globals, reinterpret_cast<PyObject*>(tb->tb_frame),
                       tb->tb_lasti, tb->tb_lineno,
                       _PyInterpreterFrame_LASTI(frame) * static_cast<int>(sizeof(_Py_CODEUNIT))});
  }
  return entries;
}

PyObject* make_traceback(PyObject* next, PyObject* code, PyObject* globals, int lasti, int line,
                         int stands_at) {
  PyFrameObject* frame =
      PyFrame_New(PyThreadState_Get(), reinterpret_cast<PyCodeObject*>(code), globals, nullptr);
  if (frame == nullptr) return nullptr;
  frame->f_frame->prev_instr =
      _PyCode_CODE(frame->f_frame->f_code) + stands_at / static_cast<int>(sizeof(_Py_CODEUNIT));
  auto* tb = PyObject_GC_New(PyTracebackObject, &PyTraceBack_Type);
  if (tb == nullptr) {
    Py_DECREF(frame);
    return nullptr;
  }
  tb->tb_next = reinterpret_cast<PyTracebackObject*>(Py_XNewRef(next));
  tb->tb_frame = frame;
  tb->tb_lasti = lasti;
  tb->tb_lineno = line;
  PyObject_GC_Track(tb);
  return reinterpret_cast<PyObject*>(tb);
}

void set_traceback_frame(PyObject* traceback, PyObject* frame) {
  auto* tb = reinterpret_cast<PyTracebackObject*>(traceback);
  PyFrameObject* old = tb->tb_frame;
  tb->tb_frame = reinterpret_cast<PyFrameObject*>(Py_NewRef(frame));
  Py_DECREF(old);
}

PyObject* known_frame_object(_PyInterpreterFrame* frame) {
  return reinterpret_cast<PyObject*>(frame->frame_obj);
}

Ref frame_object(_PyInterpreterFrame* frame) {
  if (frame->frame_obj != nullptr) return Ref::share(reinterpret_cast<PyObject*>(frame->frame_obj));
  // Only the innermost frame and its callers can be asked for.
  Ref at = Ref::steal(reinterpret_cast<PyObject*>(PyThreadState_GetFrame(PyThreadState_Get())));
  while (at && reinterpret_cast<PyFrameObject*>(at.get())->f_frame != frame) {
    at = Ref::steal(reinterpret_cast<PyObject*>(PyFrame_GetBack(reinterpret_cast<PyFrameObject*>(at.get()))));
  }
  return at;
}

}  // namespace flashpoint
