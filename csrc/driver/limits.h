// How many recordings a compiled function may make, and what happens then.
//
// The limit is that of the call of flashpoint.compile, else flashpoint.config's where it was set, else
// TorchDynamo's, which programs that come from torch.compile set.
// GIL: required.
#pragma once

#include <string>

#include "driver/positions.h"

namespace flashpoint {

int recompile_limit(const CodeState& state);

// At the limit the call runs eagerly: says so once. False, with a Python error set, where there is to be
// none: fullgraph, or TorchDynamo's setting fail_on_recompile_limit_hit.
bool runs_eagerly_at_limit(CodeState& state, const std::string& name, const std::string& last_miss);

}  // namespace flashpoint
