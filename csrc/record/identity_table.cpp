#include "record/identity_table.h"

#include <algorithm>

namespace flashpoint {

IdentityTable::Index IdentityTable::add(const at::TensorBase& tensor, ir::ValueId value) {
  const Index i = static_cast<Index>(entries_.size());
  Entry entry{WeakImpl(tensor.getIntrusivePtr())};
  entry.seal = take_seal(*tensor.unsafeGetTensorImpl());
  entry.value = value;
  entries_.push_back(std::move(entry));
  index_[tensor.unsafeGetTensorImpl()] = i;
  link(i, entries_.back().seal.storage);
  if (follows_memory_ && entries_.back().storage != nullptr) {
    Memory& memory = memory_[entries_.back().storage];
    if (!memory.held) {
      memory.held.emplace(c10::intrusive_ptr<c10::StorageImpl>::reclaim_copy(
          tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl()));
    }
    memory.version = std::max(memory.version, entries_.back().seal.version);
  }
  unswept_.push_back(i);
  if (unswept_.size() >= sweep_at_) sweep();
  return i;
}

IdentityTable::Index IdentityTable::find_alias(const at::TensorBase& tensor) {
  const Seal now = take_seal(*tensor.unsafeGetTensorImpl());
  const Index* head = heads_.find(now.storage);
  if (!follows_memory_ || now.storage == nullptr || head == nullptr) return kNone;
  for (Index i = *head; i != kNone; i = (*this)[i].next_sharing) {
    if (compare_memory((*this)[i].seal, now) == nullptr) return i;
  }
  return kNone;
}

// Whenever the list has doubled, so that a program that keeps its tensors pays a constant price for each.
void IdentityTable::sweep() {
  size_t kept = 0;
  for (const Index i : unswept_) {
    Entry& entry = (*this)[i];
    if (entry.alive()) {
      unswept_[kept++] = i;
    } else {
      index_[entry.impl._unsafe_get_target()] = kNone;
      entry.impl.reset();
    }
  }
  unswept_.resize(kept);
  sweep_at_ = 2 * kept + kSweepEvery;
}

void IdentityTable::link(Index i, const void* storage) {
  (*this)[i].storage = storage;
  if (storage == nullptr) return;
  Index& first = *heads_.try_emplace(storage, kNone).first;
  // Storage addresses are reused: leave out the dead, or a long loop would build a long chain. Inputs
  // stay, since a living view of theirs may still be written to.
  Index head = first;
  while (!follows_memory_ && head != kNone && !(*this)[head].alive() && (*this)[head].input < 0)
    head = (*this)[head].next_sharing;
  (*this)[i].next_sharing = head;
  first = i;
}

void IdentityTable::reseal(Index i) {
  Entry& entry = (*this)[i];
  entry.seal = take_seal(entry.get());
  if (entry.seal.storage == entry.storage) return;
  Index* link_to_us = &heads_[entry.storage];
  while (*link_to_us != i && *link_to_us != kNone) link_to_us = &(*this)[*link_to_us].next_sharing;
  if (*link_to_us == i) *link_to_us = entry.next_sharing;
  link(i, entry.seal.storage);
}

}  // namespace flashpoint
