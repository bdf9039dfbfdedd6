// Which entry answered the last call of each signature; of too many for their places, the newest.
//
// Threads: whoever uses it holds a lock, in the module the GIL.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace flashpoint {

class AnswerTable {
 public:
  const void* find(uint64_t signature) const {
    for (size_t n = 0; n < kWays; ++n) {
      const Place& place = places_[at(signature, n)];
      if (place.signature == signature) return place.entry;
    }
    return nullptr;
  }
  void note(uint64_t signature, const void* entry) {
    Place* best = &places_[at(signature, 0)];
    for (size_t n = 0; n < kWays && best->entry != nullptr && best->signature != signature; ++n) {
      Place& place = places_[at(signature, n)];
      if (place.entry == nullptr || place.signature == signature) best = &place;
    }
    *best = {signature, entry};
  }

 private:
  struct Place {
    uint64_t signature = 0;
    const void* entry = nullptr;  // it may be gone: only to be compared
  };
  static constexpr size_t kPlaces = 4096, kWays = 4;
  static size_t at(uint64_t signature, size_t n) { return (signature + n) % kPlaces; }
  std::array<Place, kPlaces> places_{};
};

}  // namespace flashpoint
