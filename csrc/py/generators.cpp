#include "py/internal.h"

#include "py/exception_table.h"
#include "py/generators.h"

namespace flashpoint::py {

bool closes_noticeably(PyObject* o) {
  auto* g = reinterpret_cast<PyGenObject*>(o);
  if (g->gi_frame_state != FRAME_SUSPENDED) return false;
  const auto* frame = reinterpret_cast<_PyInterpreterFrame*>(g->gi_iframe);
  Handler handler;
  return find_handler(g->gi_code, _PyInterpreterFrame_LASTI(frame), &handler);
}

bool may_close_noticeably(PyObject* o) {
  auto* g = reinterpret_cast<PyGenObject*>(o);
  return g->gi_frame_state < FRAME_COMPLETED && PyBytes_GET_SIZE(g->gi_code->co_exceptiontable) > 0;
}

bool is_generator_running(PyObject* o) {
  return reinterpret_cast<PyGenObject*>(o)->gi_frame_state == FRAME_EXECUTING;
}

}  // namespace flashpoint::py
