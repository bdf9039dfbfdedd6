// The tables that find_lowering searches, one per file of lowerings. To add one: declare it here and list it
// in lower_reduce.cpp's find_lowering. Threads: constants.
#pragma once

#include <span>
#include <string_view>

#include "backend/native/lowering.h"

namespace flashpoint::native {

std::span<const LoweringRow> pointwise_lowerings();
std::span<const LoweringRow> backward_lowerings();
std::span<const LoweringRow> joining_lowerings();
std::span<const LoweringRow> selecting_lowerings();

// How many trailing dimensions of `shape` these dims are, if a row of that many can be reduced in a kernel;
// else 0.
int32_t row_dims(const ir::Dims& shape, const c10::IValue& dims);

}  // namespace flashpoint::native
