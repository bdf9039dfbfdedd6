// One generated kernel as data: an iteration space and straight-line code over it.
//
// The space is `outer` dimensions, whose points are rows, times `inner` dimensions, which make up a row.
// Where nothing is reduced that is the last dimension, or the last two if the last one is shorter than a
// vector. Operands come before their users. A buffer is one tensor; accesses say how its elements lie under
// the space, with strides per dimension, in elements.
//
// The text is canonical: two kernels with the same text are the same code, whatever tensors they are for. It
// is the key of the process-wide cache.
//
// Callers: the scheduler makes them, emit.h turns them into code. Threads: plain data; no GIL needed.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>
#include <vector>

#include "ir/graph.h"

namespace flashpoint::native {

enum class Prim : uint8_t {
#define X(name, operands, cost) name,
#include "backend/native/prims.def"
#undef X
};
inline constexpr int kPrimCount = 0
#define X(name, operands, cost) +1
#include "backend/native/prims.def"
#undef X
    ;

const char* prim_name(Prim prim);
int prim_operands(Prim prim);
int prim_cost(Prim prim);
inline bool is_reduction(Prim prim) { return prim >= Prim::reduce_sum && prim <= Prim::reduce_or; }

// A number in a dtype: floats in `real`, integers and bool in `integer`.
struct Number {
  double real = 0;
  int64_t integer = 0;
  bool operator==(const Number& other) const;  // by bits
};

struct Access {
  int32_t buffer = 0;
  int64_t offset = 0;
  ir::Dims strides;  // one per dimension of the space
  bool operator==(const Access&) const = default;
};

struct KernelOp {
  Prim prim = Prim::constant;
  c10::ScalarType dtype = c10::ScalarType::Float;
  c10::SmallVector<int32_t, 3> operands;
  Access access;  // load; index: offset and strides of the number
  Number number;  // constant
};

struct Store {
  int32_t op = 0;
  Access access;
};

struct Kernel {
  ir::Dims dims;
  int32_t inner = 0;  // how many trailing dimensions make up a row
  std::vector<c10::ScalarType> buffers;
  std::vector<KernelOp> ops;
  std::vector<Store> stores;

  int64_t rows() const;     // points of the outer dimensions
  int64_t columns() const;  // points of a row
  bool reduces() const;
  // Rows whose elements lie apart while neighbouring rows lie side by side: emit_columns.cpp.
  bool by_columns() const;
  // Independent units of work, and how they may be cut: rows, or the columns of a single row; by columns all
  // rows along the last outer dimension are one.
  int64_t units() const {
    if (flat()) return columns();
    return by_columns() && !cut_in_steps() ? rows() / lane_size() : rows();
  }
  // Units are elements or rows that vectors span.
  bool cut_in_steps() const {
    return flat() || (by_columns() && dims.size() == static_cast<size_t>(inner) + 1);
  }
  int64_t lane_size() const { return dims[dims.size() - static_cast<size_t>(inner) - 1]; }
  bool flat() const { return !reduces() && dims.size() == static_cast<size_t>(inner); }
  // Of how many columns the last dimension is, where vectors go on beyond it; else 1.
  int64_t short_columns() const { return inner == 2 && !reduces() ? dims.back() : 1; }

  std::string text() const;
};

// Drops dimensions of size one and joins neighbours that every access walks as one. Kernels without
// reductions may also have their dimensions reordered so that the first store is written in order.
void simplify(Kernel& kernel);

}  // namespace flashpoint::native
