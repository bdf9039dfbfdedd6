// Whether calling an nn.Module comes to nothing but its class's forward(): no hooks of its own, and none of
// the methods on the way replaced on the instance.
//
// One check in place of seven on as many dicts; what it found is remembered under the version tag of the
// instance dict, so that most checks look at four lengths. Hooks that hold for all modules are not its
// affair. GIL: required.
#pragma once

#include <Python.h>

#include <array>
#include <cstdint>

namespace flashpoint {

class PlainCall {
 public:
  static constexpr int kHooks = 4, kMethods = 3;
  // The attributes that hold hooks, and those that must come from the class; interned.
  static const std::array<PyObject*, kHooks>& hook_names();
  static const std::array<PyObject*, kMethods>& method_names();

  // True when it holds for this instance dict.
  bool holds(PyObject* dict);
  // The hook dicts that were found; borrowed from the instance dict.
  const std::array<PyObject*, kHooks>& hooks() const { return hooks_; }

 private:
  // Tags are never used twice: an equal one proves the same dict in the same state, hence live hooks.
  PyObject* dict_ = nullptr;
  uint64_t tag_ = 0;
  std::array<PyObject*, kHooks> hooks_{};
};

}  // namespace flashpoint
