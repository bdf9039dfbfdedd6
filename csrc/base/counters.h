// Process-wide counters, one per row of counters.def. Plain increments under the GIL (or on one thread);
// they inform and gate tests, they never steer.
#pragma once

#include <cstdint>

namespace flashpoint {

struct Counters {
#define X(name, text) uint64_t name = 0;
#include "base/counters.def"
#undef X
};

inline Counters& counters() {
  static Counters instance;
  return instance;
}

}  // namespace flashpoint
