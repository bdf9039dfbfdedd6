// Which tensors of the running program are which values of the graph under construction.
//
// Identity is the TensorImpl. An entry holds it weakly: the address is not reused while the table knows it,
// and the data is freed exactly when eager execution frees it; only the impl's own ~200 bytes stay, until
// the next sweep finds the tensor dead and forgets it. One chain per storage links the entries that share
// it, so that a mutation reaches every view.
//
// Threads: the recording's; no GIL needed.
#pragma once

#include <ATen/core/TensorBase.h>

#include <optional>
#include <unordered_map>
#include <vector>

#include "base/flat_map.h"
#include "ir/graph.h"
#include "record/seal.h"

namespace flashpoint {

class IdentityTable {
 public:
  using Index = int32_t;
  static constexpr Index kNone = -1;
  static constexpr size_t kSweepEvery = 64;

  using WeakImpl = c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>;

  struct Entry {
    explicit Entry(WeakImpl weak) : impl(std::move(weak)) {}

    WeakImpl impl;
    Seal seal;
    ir::ValueId value = ir::kNoValue;  // the newest value that names the tensor
    int32_t input = -1;                // Graph::inputs index, when it came from outside
    Index next_sharing = kNone;        // next entry on the same storage
    const void* storage = nullptr;     // the chain it is linked into
    bool ambiguous = false;            // an operator of unknown shape returned its own argument

    bool alive() const { return impl.use_count() > 0; }
    const c10::TensorImpl& get() const { return *impl._unsafe_get_target(); }
  };

  IdentityTable() {
    // As in OpLog: room from the start, so that growth does not land in the holes tensors leave.
    entries_.reserve(2048);
  }

  Index find(const c10::TensorImpl* impl) const {
    const Index* found = index_.find(impl);
    return found == nullptr ? kNone : *found;
  }
  Index add(const at::TensorBase& tensor, ir::ValueId value);

  // From now on (before the first add) storages are held weakly and what was on them is not forgotten, so
  // that another tensor of the same memory is recognised even when the first one is gone.
  void follow_memory() { follows_memory_ = true; }
  // The newest entry that reads the same memory in the same way; kNone when there is none.
  Index find_alias(const at::TensorBase& tensor);
  // The highest version that a tensor of this memory can have, given the writes that were recorded: what an
  // operator makes may be given the version counter of something older afterwards.
  int64_t& newest_version(const void* storage) { return memory_[storage].version; }
  Entry& operator[](Index i) { return entries_[static_cast<size_t>(i)]; }
  size_t size() const { return entries_.size(); }
  void clear() { *this = IdentityTable(); }

  // Takes a new seal of every living entry on `storage` and calls `visit` with each entry of an input on
  // it, alive or not. A null storage has no chain.
  template <typename Visit>
  void reseal_sharing(const void* storage, Visit&& visit) {
    const Index* head = storage == nullptr ? nullptr : heads_.find(storage);
    if (head == nullptr) return;
    for (Index i = *head; i != kNone; i = (*this)[i].next_sharing) {
      Entry& entry = (*this)[i];
      if (entry.alive()) entry.seal = take_seal(entry.get());
      visit(i, entry);
    }
  }
  // After an operator changed the entry's own storage (resize_, set_): takes a seal, moves the chain link.
  void reseal(Index i);

 private:
  void link(Index i, const void* storage);
  void sweep();

  FlatMap<const c10::TensorImpl*, Index, PointerHash> index_;  // kNone: gone
  struct Memory {
    std::optional<c10::weak_intrusive_ptr<c10::StorageImpl>> held;  // its address is not reused
    int64_t version = 0;
  };

  FlatMap<const void*, Index, PointerHash> heads_;
  std::unordered_map<const void*, Memory> memory_;
  std::vector<Entry> entries_;
  std::vector<Index> unswept_;  // entries that were alive at the last sweep, and those added since
  size_t sweep_at_ = kSweepEvery;
  bool follows_memory_ = false;
};

}  // namespace flashpoint
