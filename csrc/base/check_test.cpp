#include "base/check.h"

#include <cstdlib>
#include <cstring>
#include <string>

#include "base/counters.h"
#include "unit.h"

namespace flashpoint {
namespace {

// Strict mode is read once per process, and there a failed check aborts: this program runs without it.
const bool not_strict = [] {
  unsetenv("FLASHPOINT_STRICT");
  return !strict_mode();
}();

TEST(a_check_that_holds_does_nothing) {
  int evaluated = 0;
  FP_CHECK(++evaluated == 1, "never shown");
  EXPECT(evaluated == 1);
}

TEST(a_failed_check_throws_and_says_what_and_where) {
  EXPECT(not_strict);
  std::string text;
  try {
    FP_CHECK(1 + 1 == 3, "a note");
  } catch (const InternalError& error) {
    text = error.what();
  }
  EXPECT(text.rfind("[flashpoint] internal check failed: 1 + 1 == 3 at ", 0) == 0);
  EXPECT(text.find("check_test.cpp:") != std::string::npos);
  EXPECT(text.size() > 8 && text.compare(text.size() - 8, 8, ": a note") == 0);
}

TEST(counters_start_at_zero_and_have_distinct_names) {
  const char* names[] = {
#define X(name, text) #name,
#include "base/counters.def"
#undef X
  };
  for (const char* one : names) {
    int same = 0;
    for (const char* other : names) same += std::strcmp(one, other) == 0;
    EXPECT(same == 1);
  }
  const Counters fresh;
#define X(name, text) EXPECT(fresh.name == 0);
#include "base/counters.def"
#undef X
}

}  // namespace
}  // namespace flashpoint
