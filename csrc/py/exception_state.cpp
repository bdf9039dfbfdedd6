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

bool is_at_item(const OuterHandling& outer, const std::vector<PyObject*>& generators) {
  const _PyErr_StackItem* item = _PyThreadState_GET()->exc_info;
  for (PyObject* generator : generators) {
    if (item != &reinterpret_cast<PyGenObject*>(generator)->gi_exc_state) return false;
    item = item->previous_item;
  }
  return item == outer.item;
}

PyObject* handled_in(const OuterHandling& outer) {
  return exception_of(static_cast<const _PyErr_StackItem*>(outer.item));
}

void set_handled_in(const OuterHandling& outer, Ref exception) {
  auto* item = static_cast<_PyErr_StackItem*>(const_cast<void*>(outer.item));
  // Moved out first: what is dropped may run Python code.
  const Ref old = Ref::steal(item->exc_value);
  item->exc_value = exception ? exception.release() : Py_NewRef(Py_None);
}

PyObject* handled_now(const OuterHandling& outer) {
  const _PyErr_StackItem* item = _PyThreadState_GET()->exc_info;
  while (exception_of(item) == nullptr && item != outer.item && item->previous_item != nullptr)
    item = item->previous_item;
  return exception_of(item);
}

}  // namespace flashpoint
