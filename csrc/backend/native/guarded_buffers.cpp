#include "backend/native/guarded_buffers.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "base/check.h"

namespace flashpoint::native {

bool guard_buffers() {
  static const bool enabled = [] {
    const char* value = std::getenv("FLASHPOINT_NATIVE_GUARD");
    return value != nullptr && value[0] == '1';
  }();
  return enabled;
}

GuardedBuffers::~GuardedBuffers() {
  for (const Buffer& buffer : buffers_) munmap(buffer.mapping, buffer.mapped);
}

void* GuardedBuffers::add(void* data, const ir::TensorMeta& meta) {
  size_t elements = 1;
  for (size_t d = 0; d < meta.sizes.size(); ++d) {
    elements += static_cast<size_t>((meta.sizes[d] - 1) * meta.strides[d]);
  }
  const size_t bytes = elements * c10::elementSize(meta.dtype);
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t inside = (bytes + page - 1) / page * page;
  const size_t mapped = inside + 2 * page;
  void* mapping = mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  FP_CHECK(mapping != MAP_FAILED, "no memory for guarded buffers");
  char* first = static_cast<char*>(mapping) + page;
  FP_CHECK(mprotect(first, inside, PROT_READ | PROT_WRITE) == 0, "guard pages");
  char* copy = first + (inside - bytes);
  std::memcpy(copy, data, bytes);
  buffers_.push_back({data, copy, bytes, mapping, mapped});
  return copy;
}

void GuardedBuffers::write_back(size_t index) {
  const Buffer& buffer = buffers_[index];
  std::memcpy(buffer.original, buffer.copy, buffer.bytes);
}

}  // namespace flashpoint::native
