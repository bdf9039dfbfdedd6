// Entries in the order of lookup, most recently used first, and how many calls each has answered.
//
// A lookup lets go of the lock (in the module the GIL) while an entry runs, so that others may add, move and
// remove entries meanwhile: it holds on to the entry itself, and afterwards its place counts only if the
// entry is still there. Otherwise whoever uses a list holds the lock.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace flashpoint {

template <typename Entry>
struct EntryList {
  std::vector<std::shared_ptr<Entry>> entries;
  std::vector<uint64_t> hits;  // beside entries

  // The n-th to be tried, where the entry at `guess` comes first.
  static size_t nth(size_t n, size_t guess) { return n == 0 ? guess : n <= guess ? n - 1 : n; }

  void insert_first(std::shared_ptr<Entry> entry) {
    entries.insert(entries.begin(), std::move(entry));
    hits.insert(hits.begin(), 0);
  }

  // Counts a hit of what was entries[i] when it was tried, and moves it to the front if that is wanted.
  void count_hit(size_t i, const Entry* entry, bool moves) {
    if (i >= entries.size() || entries[i].get() != entry) return;
    ++hits[i];
    if (i == 0 || !moves) return;
    const auto at = static_cast<ptrdiff_t>(i);
    std::rotate(entries.begin(), entries.begin() + at, entries.begin() + at + 1);
    std::rotate(hits.begin(), hits.begin() + at, hits.begin() + at + 1);
  }

  // Its place, 0 when it is not there.
  size_t find(const void* entry) const {
    const auto found =
        std::find_if(entries.begin(), entries.end(), [&](const auto& other) { return other.get() == entry; });
    return found == entries.end() ? 0 : static_cast<size_t>(found - entries.begin());
  }

  // The entry that goes, or null: the caller drops it when it is done, for it may run code as it goes.
  std::shared_ptr<Entry> remove_at(size_t i) {
    std::shared_ptr<Entry> gone = std::move(entries[i]);
    entries.erase(entries.begin() + static_cast<ptrdiff_t>(i));
    hits.erase(hits.begin() + static_cast<ptrdiff_t>(i));
    return gone;
  }
  std::shared_ptr<Entry> remove(const Entry* entry) {
    const size_t at = find(entry);
    return at < entries.size() && entries[at].get() == entry ? remove_at(at) : nullptr;
  }
};

}  // namespace flashpoint
