// The reasons a graph recording breaks, as an enum and its texts; all from graph_breaks.def.
// Threads: constants; no GIL needed.
#pragma once

#include <cstdint>

namespace flashpoint {

enum class GraphBreak : uint8_t {
  none,
#define X(name, text, hint) name,
#include "record/graph_breaks.def"
#undef X
};

inline const char* break_name(GraphBreak reason) {
  static constexpr const char* kNames[] = {
      "none",
#define X(name, text, hint) #name,
#include "record/graph_breaks.def"
#undef X
  };
  return kNames[static_cast<int>(reason)];
}

inline const char* break_text(GraphBreak reason) {
  static constexpr const char* kTexts[] = {
      "",
#define X(name, text, hint) text,
#include "record/graph_breaks.def"
#undef X
  };
  return kTexts[static_cast<int>(reason)];
}

inline const char* break_hint(GraphBreak reason) {
  static constexpr const char* kHints[] = {
      "",
#define X(name, text, hint) hint,
#include "record/graph_breaks.def"
#undef X
  };
  return kHints[static_cast<int>(reason)];
}

}  // namespace flashpoint
