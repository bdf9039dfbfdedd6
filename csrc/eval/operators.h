// The functions behind BINARY_OP, by its argument (NB_*). GIL held; errors as in CPython.
#pragma once

#include "py/internal.h"

namespace flashpoint {

inline constexpr int kBinaryOperations = NB_INPLACE_XOR + 1;
extern const binaryfunc binary_operations[kBinaryOperations];

}  // namespace flashpoint
