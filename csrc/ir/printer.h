// The textual form of a graph, one op per line:
//
//   graph f(%0: f32[8,16] cpu, %1: f32[16,8]:[1,16] cpu grad src=4) {
//     %2 = aten.mm(%0, %1) : f32[8,8] cpu {grad=off} @torch.mm  # model.py:12
//     [%3, %4] = aten.split.Tensor(%2, 4, 1) : [f32[8,4]:[8,1] cpu, f32[8,4]:[8,1] cpu]
//     return %3
//   }
//
// A type is dtype, sizes, `:strides` unless contiguous, device, layout unless strided, and the flags grad,
// conj, neg. `src` is the recorder's source id, when it is not the input's position. The braces hold what
// differs from the default state (grad, inference, autocast, cache) and `mutates=[...]`. Keyword-only
// arguments print with their names. `@name` is the torch-level callable, the comment the source location.
// ir/parser.h reads all of it back.
//
// Threads: pure functions; no GIL needed.
#pragma once

#include <ATen/core/TensorBase.h>

#include <string>

#include "ir/graph.h"

namespace flashpoint::ir {

std::string print(const Graph& graph);

void print_meta(std::string& out, const TensorMeta& meta);
TensorMeta meta_of(const at::TensorBase& tensor);

}  // namespace flashpoint::ir
