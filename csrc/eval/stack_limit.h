// How much C stack this thread may use for evaluated frames.
//
// Below a PEP 523 hook each Python call uses C stack, which plain CPython 3.11 does not; so the hook is
// taken out when half of the thread's stack is used, and deep recursion becomes CPython's own. The other
// half stays for the C code that runs from there.
//
// The limits are found once per thread. An address outside the thread's stack (a coroutine library that
// switches stacks) counts as near the end. No GIL needed.
#pragma once

#include <cstdint>

namespace flashpoint {

struct StackLimit {
  uintptr_t low = 0;   // addresses from here ...
  uintptr_t span = 0;  // ... up to low + span may hold evaluated frames; 0: not yet known
};

inline thread_local StackLimit stack_limit_of_thread;

// Fills the limits; returns them.
const StackLimit& find_stack_limit();

inline bool near_stack_end() {
  const StackLimit& known = stack_limit_of_thread;
  const StackLimit& limit = known.span != 0 ? known : find_stack_limit();
  return reinterpret_cast<uintptr_t>(__builtin_frame_address(0)) - limit.low >= limit.span;
}

}  // namespace flashpoint
