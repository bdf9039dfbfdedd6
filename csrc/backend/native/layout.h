// Shapes and strides as numbers: what memory a tensor's elements lie in.
//
// Callers: every stage. Threads: pure functions; no GIL needed.
#pragma once

#include <optional>

#include "ir/graph.h"

namespace flashpoint::native {

int64_t numel(const ir::Dims& shape);

// A value as the tensor it travels in: of a number, one element.
const ir::TensorMeta& meta_of(const ir::Value& value);

// Strides under which memory of `shape` and `strides` reads as `target`, elements in row-major order; none if
// there are no such strides.
std::optional<ir::Dims> strides_for(const ir::Dims& shape, const ir::Dims& strides, const ir::Dims& target);

// Elements fill their memory without gaps or overlap, in some order of dimensions.
bool is_dense(const ir::TensorMeta& meta);

// From its first element to behind its last, in elements.
int64_t extent(const ir::TensorMeta& meta);

// Every element has an address of its own.
bool is_injective(const ir::TensorMeta& meta);

}  // namespace flashpoint::native
