// What a break's detail says where the driver treats the break by it.
#pragma once

#include <string_view>

namespace flashpoint {

// An optimizer's state of a parameter: the call itself makes it, so the next call meets another situation.
inline constexpr std::string_view kNoObjectForTensor = "dict without an object for a tensor";

}  // namespace flashpoint
