#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace flashpoint {

bool strict_mode() {
  static const bool strict = [] {
    const char* value = std::getenv("FLASHPOINT_STRICT");
    return value != nullptr && value[0] == '1';
  }();
  return strict;
}

void check_failed(const char* condition, const char* file, int line, const std::string& note) {
  const std::string text = std::string("[flashpoint] internal check failed: ") + condition + " at " + file +
                           ":" + std::to_string(line) + (note.empty() ? "" : ": " + note);
  if (strict_mode()) {
    std::fprintf(stderr, "%s\n", text.c_str());
    std::abort();
  }
  throw InternalError(text);
}

}  // namespace flashpoint
