// How many recordings may be made, and what happens then.
//
// Of one compiled function: the limit of the call of flashpoint.compile, else flashpoint.config's where it
// was set, else TorchDynamo's, which programs that come from torch.compile set. Of all functions of one code
// object: the accumulated limit, flashpoint.config's or TorchDynamo's.
// GIL: required.
#pragma once

#include <string>

#include "driver/code_extra.h"
#include "driver/positions.h"

namespace flashpoint {

// Whether TorchDynamo is imported and has this setting on.
bool dynamo_sets(const char* name);

struct Limit {
  const char* setting = nullptr;  // null: there is room
  int number = 0;
};

// What rules out another recording from the function's start. extra may be null.
Limit limit_reached(const CodeState& state, CodeExtra* extra);

// At the limit the call runs eagerly: says so once. False, with a Python error set, where there is to be
// none: fullgraph, or TorchDynamo's setting fail_on_recompile_limit_hit.
bool runs_eagerly_at_limit(CodeState& state, Limit limit, const std::string& name,
                           const std::string& last_miss);

}  // namespace flashpoint
