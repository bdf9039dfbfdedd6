// Tensor literals: the data of `flashpoint.constant` nodes, compared, printed and read back exactly.
//
// A literal is a dense, contiguous CPU tensor without gradient. Elements go through double (floats of all
// widths are exact in it), int64/uint64 or bool; complex elements print as two floats.
//
// The functions read data directly and call no operator but an allocation, which is hidden from recorders.
// Threads: pure functions; no GIL needed.
#pragma once

#include <ATen/core/TensorBase.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ir/graph.h"

namespace flashpoint::ir {

// Whether a tensor can become a literal: dense CPU data of a dtype we can print.
bool is_literal_type(const at::TensorBase& tensor);

// A contiguous copy that shares nothing with `tensor`.
at::Tensor make_literal(const at::Tensor& tensor);

bool equal_literals(const at::TensorBase& a, const at::TensorBase& b);
void print_literal(std::string& out, const at::TensorBase& literal);

// One parsed element; a complex element is two of them.
struct LiteralElement {
  double real = 0;
  uint64_t integer = 0;  // two's complement for signed types
};
// Null when the number of elements or the dtype does not fit.
std::optional<at::Tensor> build_literal(const TensorMeta& meta, const std::vector<LiteralElement>& elements);

}  // namespace flashpoint::ir
