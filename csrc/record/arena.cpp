#include "record/arena.h"

#include <sys/mman.h>

#include <algorithm>

namespace flashpoint {

void* Arena::allocate_piece(size_t bytes) {
  const size_t size = std::max(bytes, kPiece);
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  pieces_.push_back({memory, size});
  next_ = static_cast<char*>(memory) + bytes;
  left_ = size - bytes;
  return memory;
}

Arena::~Arena() {
  for (const Piece& piece : pieces_) munmap(piece.memory, piece.bytes);
}

}  // namespace flashpoint
