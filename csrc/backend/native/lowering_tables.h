// The tables that find_lowering searches, one per file of lowerings. To add one: declare it here and list it
// in lower_reduce.cpp's find_lowering. Threads: constants.
#pragma once

#include <span>
#include <string_view>

#include "backend/native/lowering.h"

namespace flashpoint::native {

struct LoweringRow {
  std::string_view name;
  Lowerer lower;
};

std::span<const LoweringRow> pointwise_lowerings();

}  // namespace flashpoint::native
