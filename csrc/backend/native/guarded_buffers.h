// A debugging aid: copies of a kernel's buffers that end at an unmapped page, so that an access beyond the
// end faults at once. With FLASHPOINT_NATIVE_GUARD=1 every kernel runs on such copies (slow; read once).
//
// Threads: one object per run; no GIL needed.
#pragma once

#include <cstddef>
#include <vector>

#include "ir/graph.h"

namespace flashpoint::native {

bool guard_buffers();

class GuardedBuffers {
 public:
  GuardedBuffers() = default;
  ~GuardedBuffers();
  GuardedBuffers(const GuardedBuffers&) = delete;
  GuardedBuffers& operator=(const GuardedBuffers&) = delete;

  // A copy of the memory that a tensor of this layout spans from `data` on.
  void* add(void* data, const ir::TensorMeta& meta);
  // Copies buffer `index` back to where it came from.
  void write_back(size_t index);

 private:
  struct Buffer {
    void* original;
    void* copy;
    size_t bytes;
    void* mapping;
    size_t mapped;
  };
  std::vector<Buffer> buffers_;
};

}  // namespace flashpoint::native
