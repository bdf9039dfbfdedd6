// The tables that find_lowering searches, one per file of lowerings. To add one: declare it here and list it
// in lower_reduce.cpp's find_lowering. Threads: constants.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "backend/native/lowering.h"

namespace flashpoint::native {

std::span<const LoweringRow> pointwise_lowerings();
std::span<const LoweringRow> backward_lowerings();
std::span<const LoweringRow> joining_lowerings();
std::span<const LoweringRow> repeating_lowerings();
std::span<const LoweringRow> selecting_lowerings();

// Where an operator that puts tensors side by side lays one of them.
struct Part {
  ir::ValueId value = ir::kNoValue;
  ir::Dims sizes;
  ir::Dims strides;    // of the result's memory
  int64_t offset = 0;  // elements from its first
};
// Those that have elements; none if the node is no such operator.
std::vector<Part> parts_of(const ir::Graph& graph, const ir::Node& node);

// Whether every point of the result had better compute all of these and choose one.
bool joins_by_choice(const ExprBuilder& build, const std::vector<ExprId>& parts);

// How many trailing dimensions of `shape` these dims are, if a row of that many can be reduced in a kernel;
// else 0.
int32_t row_dims(const ir::Dims& shape, const c10::IValue& dims);

}  // namespace flashpoint::native
