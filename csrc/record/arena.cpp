#include "record/arena.h"

#include <sys/mman.h>

#include <algorithm>

namespace flashpoint {
namespace {

// Pieces of finished recordings, for the next one on this thread: mapping a fresh one costs a page fault
// every few operators.
struct SpareArenaPieces {
  static constexpr size_t kMost = 8;
  std::vector<void*> pieces;
  ~SpareArenaPieces() {
    for (void* piece : pieces) munmap(piece, Arena::kPiece);
  }
};
thread_local SpareArenaPieces spare;

}  // namespace

void* Arena::allocate_piece(size_t bytes) {
  const size_t size = std::max(bytes, kPiece);
  void* memory = nullptr;
  if (size == kPiece && !spare.pieces.empty()) {
    memory = spare.pieces.back();
    spare.pieces.pop_back();
  } else {
    memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
  }
  pieces_.push_back({memory, size});
  next_ = static_cast<char*>(memory) + bytes;
  left_ = size - bytes;
  return memory;
}

Arena::~Arena() {
  for (const Piece& piece : pieces_) {
    if (piece.bytes == kPiece && spare.pieces.size() < SpareArenaPieces::kMost) {
      spare.pieces.push_back(piece.memory);
    } else {
      munmap(piece.memory, piece.bytes);
    }
  }
}

}  // namespace flashpoint
