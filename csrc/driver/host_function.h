// What a `flashpoint.host_call` node runs: a Python callable, called again with the tensors of the run.
//
// Ownership: holds the callable and its constant arguments. Takes the GIL for the call; a Python error, or a
// result of another form than was recorded, becomes a C++ exception, and the call runs eagerly instead.
#pragma once

#include <memory>
#include <vector>

#include "backend/program.h"
#include "record/recorder.h"

namespace flashpoint {

std::vector<std::shared_ptr<const HostFunction>> make_host_functions(std::vector<HostedCall> calls);

}  // namespace flashpoint
