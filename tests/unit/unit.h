// C++ unit tests of the rooms that know no Python (base, ir, store).
//
//   TEST(parser_rejects_a_missing_brace) { EXPECT(!parse("graph f(").ok()); }
//
// To add one: write TEST blocks into csrc/<room>/<name>_test.cpp; the build finds the file,
// tests/unit/main.cpp runs all of them. An exception that leaves a test fails it. Single-threaded.
#pragma once

#include <cstdio>
#include <vector>

namespace flashpoint::unit {

struct Case {
  const char* name;
  void (*run)();
};

inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

inline int& failures() {
  static int count = 0;
  return count;
}

inline void expect(bool holds, const char* text, const char* file, int line) {
  if (holds) return;
  ++failures();
  std::fprintf(stderr, "%s:%d: expected: %s\n", file, line, text);
}

struct Registration {
  Registration(const char* name, void (*run)()) { cases().push_back({name, run}); }
};

}  // namespace flashpoint::unit

#define TEST(name)                                                                    \
  static void test_##name();                                                          \
  static const ::flashpoint::unit::Registration register_##name(#name, &test_##name); \
  static void test_##name()

#define EXPECT(condition) \
  ::flashpoint::unit::expect(static_cast<bool>(condition), #condition, __FILE__, __LINE__)

#define EXPECT_THROW(statement, type)                                                    \
  do {                                                                                   \
    bool thrown = false;                                                                 \
    try {                                                                                \
      statement;                                                                         \
    } catch (const type&) {                                                              \
      thrown = true;                                                                     \
    }                                                                                    \
    ::flashpoint::unit::expect(thrown, #statement " throws " #type, __FILE__, __LINE__); \
  } while (0)
