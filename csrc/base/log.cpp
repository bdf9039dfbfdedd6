#include "base/log.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace flashpoint {

namespace {

bool listed(const char* variable, const char* word, bool all = true) {
  const char* value = std::getenv(variable);
  if (value == nullptr) return false;
  const size_t n = std::strlen(word);
  for (const char* at = value; *at != '\0';) {
    const char* end = std::strchr(at, ',');
    const size_t length = end == nullptr ? std::strlen(at) : static_cast<size_t>(end - at);
    if ((length == n && std::strncmp(at, word, n) == 0) ||
        (all && length == 3 && std::strncmp(at, "all", 3) == 0))
      return true;
    at += length + (end == nullptr ? 0 : 1);
  }
  return false;
}

// Names of torch's logs.
bool listed_as_by_torch(const char* word) {
  return listed("FLASHPOINT_LOG", word, false) || listed("TORCH_LOGS", word, false);
}

}  // namespace

bool log_enabled(LogKind kind) {
  static const bool enabled[] = {listed("FLASHPOINT_LOG", "capture"),
                                 listed("FLASHPOINT_LOG", "break") || listed_as_by_torch("graph_breaks"),
                                 listed("FLASHPOINT_LOG", "miss") || listed_as_by_torch("recompiles"),
                                 listed("FLASHPOINT_LOG", "hit"),
                                 listed("FLASHPOINT_LOG", "native"),
                                 listed("FLASHPOINT_LOG", "store"),
                                 listed("FLASHPOINT_DUMP", "graph") || listed_as_by_torch("graph_code"),
                                 listed("FLASHPOINT_DUMP", "guards") || listed_as_by_torch("guards")};
  return enabled[static_cast<int>(kind)];
}

void log_line(const std::string& text) { std::fprintf(stderr, "[flashpoint] %s\n", text.c_str()); }

}  // namespace flashpoint
