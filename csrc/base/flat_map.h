// A hash map for the recording's hot path: entries in one array, in the order they were added, and an index
// of 32-bit positions beside it. Nothing is ever erased.
//
// A reference to a value is valid until the next insertion. Iteration order is insertion order, so what is
// derived from it is the same in every run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace flashpoint {

// Spreads the bits of an address or a small number over the word.
inline size_t mix_bits(size_t bits) {
  bits ^= bits >> 32;
  bits *= 0x9E3779B97F4A7C15ull;
  return bits ^ (bits >> 32);
}

struct PointerHash {
  size_t operator()(const void* p) const { return mix_bits(reinterpret_cast<size_t>(p)); }
};
struct PairHash {
  template <typename A, typename B>
  size_t operator()(const std::pair<A*, B*>& p) const {
    return mix_bits(reinterpret_cast<size_t>(p.first) * 31 + reinterpret_cast<size_t>(p.second));
  }
};
struct InstructionHash {
  template <typename Code>
  size_t operator()(const std::pair<Code*, size_t>& p) const {
    return mix_bits(reinterpret_cast<size_t>(p.first) * 31 + p.second);
  }
};
struct BitsHash {
  size_t operator()(size_t bits) const { return mix_bits(bits); }
};
struct Nothing {};

template <typename Key, typename Value, typename Hash>
class FlatMap {
 public:
  struct Entry {
    Key key;
    Value value;
  };

  Value* find(const Key& key) {
    const size_t at = locate(key);
    return at == kNone ? nullptr : &entries_[at].value;
  }
  const Value* find(const Key& key) const { return const_cast<FlatMap*>(this)->find(key); }
  bool contains(const Key& key) const { return locate(key) != kNone; }

  // The value under the key, and whether it was added now.
  std::pair<Value*, bool> try_emplace(const Key& key, Value value = {}) {
    if (2 * (entries_.size() + 1) > slots_.size()) grow();
    const size_t mask = slots_.size() - 1;
    for (size_t i = Hash{}(key)&mask;; i = (i + 1) & mask) {
      if (slots_[i] == 0) {
        slots_[i] = static_cast<uint32_t>(entries_.size() + 1);
        entries_.push_back({key, std::move(value)});
        return {&entries_.back().value, true};
      }
      Entry& entry = entries_[slots_[i] - 1];
      if (entry.key == key) return {&entry.value, false};
    }
  }

  // Makes room for that many at once; nothing must be there yet.
  void expect(size_t count) {
    size_t slots = kFirstSlots;
    while (slots < 2 * (count + 1)) slots *= 2;
    slots_.assign(slots, 0);
    entries_.reserve(slots / 2);
  }

  Value& operator[](const Key& key) { return *try_emplace(key).first; }

  bool empty() const { return entries_.empty(); }
  size_t size() const { return entries_.size(); }
  auto begin() const { return entries_.begin(); }
  auto end() const { return entries_.end(); }

 private:
  static constexpr size_t kNone = ~size_t{0};
  static constexpr size_t kFirstSlots = 64;

  size_t locate(const Key& key) const {
    if (entries_.empty()) return kNone;
    const size_t mask = slots_.size() - 1;
    for (size_t i = Hash{}(key)&mask; slots_[i] != 0; i = (i + 1) & mask) {
      if (entries_[slots_[i] - 1].key == key) return slots_[i] - 1;
    }
    return kNone;
  }

  void grow() {
    const size_t count = slots_.empty() ? kFirstSlots : 4 * slots_.size();
    slots_.assign(count, 0);
    entries_.reserve(count / 2);
    for (size_t e = 0; e < entries_.size(); ++e) {
      size_t i = Hash{}(entries_[e].key) & (count - 1);
      while (slots_[i] != 0) i = (i + 1) & (count - 1);
      slots_[i] = static_cast<uint32_t>(e + 1);
    }
  }

  std::vector<Entry> entries_;
  std::vector<uint32_t> slots_;  // position + 1, 0: free
};

// A set of addresses.
template <typename Pointer>
class FlatSet {
 public:
  // True when it was not there.
  bool insert(Pointer p) { return map_.try_emplace(p).second; }
  bool contains(Pointer p) const { return map_.contains(p); }
  bool empty() const { return map_.empty(); }
  auto begin() const { return map_.begin(); }
  auto end() const { return map_.end(); }

 private:
  FlatMap<Pointer, Nothing, PointerHash> map_;
};

}  // namespace flashpoint
