// The enumeration over outcomes.def, and counters over it.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace flashpoint::store {

enum class Outcome : uint8_t {
#define X(name, text) k_##name,
#include "store/outcomes.def"
#undef X
};

inline constexpr const char* kOutcomeNames[] = {
#define X(name, text) #name,
#include "store/outcomes.def"
#undef X
};

inline constexpr const char* kOutcomeTexts[] = {
#define X(name, text) text,
#include "store/outcomes.def"
#undef X
};

inline constexpr size_t kOutcomes = sizeof kOutcomeNames / sizeof kOutcomeNames[0];

inline const char* name_of(Outcome outcome) { return kOutcomeNames[static_cast<size_t>(outcome)]; }
inline const char* text_of(Outcome outcome) { return kOutcomeTexts[static_cast<size_t>(outcome)]; }

// Counts from any thread.
class OutcomeCounts {
 public:
  Outcome count(Outcome outcome) {
    counts_[static_cast<size_t>(outcome)].fetch_add(1, std::memory_order_relaxed);
    return outcome;
  }
  uint64_t of(size_t index) const { return counts_[index].load(std::memory_order_relaxed); }

 private:
  std::array<std::atomic<uint64_t>, kOutcomes> counts_{};
};

}  // namespace flashpoint::store
