// Runs the scalar program of an entry: what its recording made of numbers and texts that are not guarded.
//
// It runs before the graph and before any effect, so that a failure costs nothing. Operations are CPython's
// own, on exact primitives; no Python code of the program runs. GIL: required.
#pragma once

#include <vector>

#include "record/scalars.h"

namespace flashpoint {

enum class ScalarOutcome : uint8_t {
  kDone,
  kDiffers,  // the program would have decided otherwise, or a result has another type
  kFailed,   // a step raised
};

// Leaves no error set. Where it differs, as many results are there as steps did not.
ScalarOutcome run_scalars(const std::vector<ScalarStep>& steps, const std::vector<PyObject*>& nodes,
                          std::vector<Ref>& results);

}  // namespace flashpoint
