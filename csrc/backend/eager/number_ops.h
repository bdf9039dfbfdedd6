// Python's arithmetic on numbers that a graph has read from tensors (`flashpoint.number_*` nodes).
//
// Operands are int64 or double; results are bit for bit CPython's. Where CPython raises, gives a complex
// number or an integer of more than 64 bits, the node throws: a run that has done nothing visible is then
// made again by the program itself. Threads: any; no GIL needed.
#pragma once

#include <ATen/core/ivalue.h>

#include <string_view>

namespace flashpoint::eager {

// `b` is none for operations on one number. The result is a double or an int64.
c10::IValue compute_number(std::string_view operation, const c10::IValue& a, const c10::IValue& b);

}  // namespace flashpoint::eager
