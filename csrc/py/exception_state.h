// What the thread is handling: the exception that `raise` without an argument raises again, that
// sys.exc_info() gives, and that becomes the context of the next one.
//
// Every running generator has an item of its own, all other frames of a thread share one; the exceptions of
// outer handlers lie on the value stacks of the frames that handle them. So a call's own state is one
// exception, in the item the thread has while no generator of the call runs, and one for each that does
// (py/generators.h).
//
// GIL: required; the calling thread's state.
#pragma once

#include <Python.h>

#include <cstdint>
#include <vector>

#include "py/ref.h"

namespace flashpoint {

// As a call finds it. Borrowed from the thread, which keeps it until the call is over.
struct OuterHandling {
  const void* item = nullptr;   // whose exception the call's frames save and restore
  PyObject* saved = nullptr;    // what it holds; null for none
  PyObject* topmost = nullptr;  // what is being handled: the same, or that of an outer item

  static OuterHandling now();
  // Whether there is an exception in either: entries that depend on it guard no more than that.
  uint8_t kind() const {
    return static_cast<uint8_t>((saved != nullptr ? 1 : 0) | (topmost != nullptr ? 2 : 0));
  }
};

// Whether the thread is at this call's own item, but for those of the generators, which run inside one
// another (innermost first).
bool is_at_item(const OuterHandling& outer, const std::vector<PyObject*>& generators);
// What the call's own item holds: borrowed, null for none.
PyObject* handled_in(const OuterHandling& outer);
// Null or an exception; what the item held is dropped.
void set_handled_in(const OuterHandling& outer, Ref exception);
// What the innermost item that holds any does, the call's own being the last: borrowed, or null.
PyObject* handled_now(const OuterHandling& outer);

}  // namespace flashpoint
