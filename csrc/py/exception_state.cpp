#include "py/internal.h"

#include "py/exception_state.h"

namespace flashpoint {

namespace {

PyObject* exception_of(const _PyErr_StackItem* item) {
  return item->exc_value == Py_None ? nullptr : item->exc_value;
}

}  // namespace

OuterHandling OuterHandling::now() {
  const _PyErr_StackItem* item = _PyThreadState_GET()->exc_info;
  OuterHandling outer{item, exception_of(item), nullptr};
  while (exception_of(item) == nullptr && item->previous_item != nullptr) item = item->previous_item;
  outer.topmost = exception_of(item);
  return outer;
}

bool is_at_item(const OuterHandling& outer) { return _PyThreadState_GET()->exc_info == outer.item; }

PyObject* handled_here() { return exception_of(_PyThreadState_GET()->exc_info); }

void set_handled_here(Ref exception) {
  _PyErr_StackItem* item = _PyThreadState_GET()->exc_info;
  // Moved out first: what is dropped may run Python code.
  const Ref old = Ref::steal(item->exc_value);
  item->exc_value = exception ? exception.release() : Py_NewRef(Py_None);
}

}  // namespace flashpoint
