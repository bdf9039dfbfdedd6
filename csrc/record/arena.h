// Memory for a recording's own notes, taken from the system in large pieces and never from the heap.
//
// While a program runs, tensors of the same sizes come and go, and the heap hands the same few holes out
// again and again. Small things that stay, allocated in between, land in those holes, and then the next
// tensor no longer fits: with nodes on the heap, peak memory of a transformer's first call grew by a
// quarter although nothing else was kept.
//
// Only trivially destructible types: nothing is destroyed, the pieces go together.
// Threads: one recording's. No GIL needed.
#pragma once

#include <cstddef>
#include <new>
#include <type_traits>
#include <vector>

namespace flashpoint {

class Arena {
 public:
  static constexpr size_t kPiece = size_t{256} << 10;

  Arena() = default;
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // `count` value-initialised objects, valid until the arena goes.
  template <typename T>
  T* make(size_t count = 1) {
    static_assert(std::is_trivially_destructible_v<T>);
    static_assert(alignof(T) <= kAlignment);
    T* objects = static_cast<T*>(allocate(count * sizeof(T)));
    for (size_t i = 0; i < count; ++i) new (objects + i) T();
    return objects;
  }

 private:
  static constexpr size_t kAlignment = 16;

  void* allocate(size_t bytes) {
    bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    if (bytes > left_) return allocate_piece(bytes);
    void* result = next_;
    next_ += bytes;
    left_ -= bytes;
    return result;
  }
  void* allocate_piece(size_t bytes);

  struct Piece {
    void* memory;
    size_t bytes;
  };
  std::vector<Piece> pieces_;
  char* next_ = nullptr;
  size_t left_ = 0;
};

}  // namespace flashpoint
