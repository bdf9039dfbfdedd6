// Checks of our own invariants, and counters.
//
// FP_CHECK: a failed check is our bug. In strict mode (FLASHPOINT_STRICT=1, all tests) the process aborts
// with a message; otherwise InternalError is thrown, caught at the boundary to CPython, counted, and the
// frame goes on without us.
#pragma once

#include <stdexcept>
#include <string>

namespace flashpoint {

struct InternalError : std::logic_error {
  using std::logic_error::logic_error;
};

bool strict_mode();
[[noreturn]] void check_failed(const char* condition, const char* file, int line, const std::string& note);

}  // namespace flashpoint

#define FP_CHECK(condition, note)                                       \
  do {                                                                  \
    if (!(condition)) [[unlikely]]                                      \
      ::flashpoint::check_failed(#condition, __FILE__, __LINE__, note); \
  } while (0)
