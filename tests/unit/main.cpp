// Runs every TEST, or those whose names contain the first argument. Exit status 1 if one fails or none ran.
#include <cstring>
#include <exception>

#include "unit.h"

int main(int argc, char** argv) {
  using namespace flashpoint::unit;
  const char* wanted = argc > 1 ? argv[1] : "";
  int ran = 0;
  int failed = 0;
  for (const Case& test : cases()) {
    if (std::strstr(test.name, wanted) == nullptr) continue;
    ++ran;
    const int before = failures();
    try {
      test.run();
    } catch (const std::exception& error) {
      ++failures();
      std::fprintf(stderr, "%s: left by an exception: %s\n", test.name, error.what());
    }
    if (failures() != before) {
      ++failed;
      std::fprintf(stderr, "FAILED %s\n", test.name);
    }
  }
  std::printf("%d unit tests, %d failed\n", ran, failed);
  return failed != 0 || ran == 0 ? 1 : 0;
}
