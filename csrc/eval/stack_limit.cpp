#include "eval/stack_limit.h"

#include <pthread.h>

namespace flashpoint {
namespace {

// An unlimited stack reports the whole address range below it; its mapping still grows on demand only
// as far as the kernel allows, so no more than this is used.
constexpr uintptr_t kMostUsed = uintptr_t{32} << 20;

}  // namespace

__attribute__((noinline)) const StackLimit& find_stack_limit() {
  StackLimit& limit = stack_limit_of_thread;
  pthread_attr_t attributes;
  void* start = nullptr;
  size_t size = 0;
  if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
    pthread_attr_getstack(&attributes, &start, &size);
    pthread_attr_destroy(&attributes);
  }
  const uintptr_t here = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
  uintptr_t top = reinterpret_cast<uintptr_t>(start) + size;
  uintptr_t usable = size / 2;
  if (size == 0) {  // unknown: assume a small stack below us
    top = here + 4096;
    usable = 256 * 1024;
  }
  if (usable > kMostUsed) usable = kMostUsed;
  limit.low = top - usable;
  limit.span = usable;
  return limit;
}

}  // namespace flashpoint
