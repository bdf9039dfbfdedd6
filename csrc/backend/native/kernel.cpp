#include "backend/native/kernel.h"

#include <algorithm>
#include <array>
#include <bit>
#include <numeric>

#include "ir/constants.h"

namespace flashpoint::native {
namespace {

struct PrimRow {
  const char* name;
  int operands;
  int cost;
};

constexpr std::array<PrimRow, kPrimCount> kPrims{{
#define X(name, operands, cost) {#name, operands, cost},
#include "backend/native/prims.def"
#undef X
}};

const PrimRow& row_of(Prim prim) { return kPrims[static_cast<size_t>(prim)]; }

int64_t product(const int64_t* begin, const int64_t* end) {
  return std::accumulate(begin, end, int64_t{1}, std::multiplies<>());
}

void print_dims(std::string& out, const ir::Dims& dims) {
  out += '[';
  for (size_t i = 0; i < dims.size(); ++i) {
    if (i > 0) out += ',';
    out += std::to_string(dims[i]);
  }
  out += ']';
}

void print_access(std::string& out, const Access& access) {
  out += " b" + std::to_string(access.buffer) + ' ';
  print_dims(out, access.strides);
  if (access.offset != 0) out += '+' + std::to_string(access.offset);
}

// Every access of the kernel, stores included.
template <typename Visit>
void for_each_access(Kernel& kernel, Visit&& visit) {
  for (KernelOp& op : kernel.ops) {
    if (op.prim == Prim::load || op.prim == Prim::index) visit(op.access);
  }
  for (Store& store : kernel.stores) visit(store.access);
}

void remove_dim(Kernel& kernel, size_t d) {
  if (d >= kernel.dims.size() - static_cast<size_t>(kernel.inner)) --kernel.inner;
  kernel.dims.erase(kernel.dims.begin() + static_cast<ptrdiff_t>(d));
  for_each_access(kernel, [&](Access& a) { a.strides.erase(a.strides.begin() + static_cast<ptrdiff_t>(d)); });
}

// Dimension d absorbs d + 1 when every access walks the two as one.
bool join(Kernel& kernel, size_t d) {
  bool same = true;
  for_each_access(kernel,
                  [&](const Access& a) { same &= a.strides[d] == a.strides[d + 1] * kernel.dims[d + 1]; });
  if (!same) return false;
  kernel.dims[d + 1] *= kernel.dims[d];
  remove_dim(kernel, d);
  return true;
}

void sort_by_store(Kernel& kernel) {
  const Access& first = kernel.stores.front().access;
  std::vector<size_t> order(kernel.dims.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return first.strides[a] > first.strides[b]; });
  const auto permute = [&](ir::Dims& dims) {
    ir::Dims sorted;
    for (size_t d : order) sorted.push_back(dims[d]);
    dims = sorted;
  };
  permute(kernel.dims);
  for_each_access(kernel, [&](Access& a) { permute(a.strides); });
}

// What is read across the order it is written in goes in strips, whose cache lines are read to their end
// while they are there.
void cut_transposed(Kernel& kernel) {
  constexpr int64_t kStrip = 64;
  const size_t last = kernel.dims.size() - 1;
  if (kernel.dims.size() < 2 || kernel.dims[last] < 2 * kStrip || kernel.dims[last] % kStrip != 0) return;
  size_t outside = last;  // the dimension along which such reads are contiguous
  for (const KernelOp& op : kernel.ops) {
    if (op.prim != Prim::load || op.access.strides[last] <= 1) continue;
    for (size_t d = 0; d < last; ++d) {
      if (op.access.strides[d] == 1 && kernel.dims[d] >= 8) outside = d;
    }
  }
  if (outside == last) return;
  const auto at = static_cast<ptrdiff_t>(outside);
  kernel.dims.insert(kernel.dims.begin() + at, kernel.dims[last] / kStrip);
  kernel.dims.back() = kStrip;
  for_each_access(kernel,
                  [&](Access& a) { a.strides.insert(a.strides.begin() + at, a.strides.back() * kStrip); });
}

// Whether vectors are to go on beyond a short last dimension.
bool ends_short(const Kernel& kernel) {
  constexpr int64_t kWorthIt = 16;
  if (kernel.dims.size() < 2) return false;
  const int64_t last = kernel.dims.back();
  return (last == 2 || last == 4 || last == 8) && last * kernel.dims[kernel.dims.size() - 2] >= kWorthIt;
}

}  // namespace

const char* prim_name(Prim prim) { return row_of(prim).name; }
int prim_operands(Prim prim) { return row_of(prim).operands; }
int prim_cost(Prim prim) { return row_of(prim).cost; }

bool Number::operator==(const Number& other) const {
  return integer == other.integer && std::bit_cast<uint64_t>(real) == std::bit_cast<uint64_t>(other.real);
}

int64_t Kernel::rows() const { return product(dims.begin(), dims.end() - inner); }
int64_t Kernel::columns() const { return product(dims.end() - inner, dims.end()); }

bool Kernel::reduces() const {
  return std::any_of(ops.begin(), ops.end(), [](const KernelOp& op) { return is_reduction(op.prim); });
}

bool Kernel::by_columns() const {
  const size_t outer = dims.size() - static_cast<size_t>(inner);
  if (inner == 0 || outer == 0 || dims[outer - 1] < 8 || !reduces()) return false;
  // How many accesses take their elements one by one, either way.
  int by_rows = 0;
  int across = 0;
  const auto count = [&](const Access& a) {
    const auto apart = [](int64_t stride) { return stride != 0 && stride != 1; };
    const bool full = std::any_of(a.strides.begin() + static_cast<ptrdiff_t>(outer), a.strides.end(),
                                  [](int64_t s) { return s != 0; });
    if (!full) return;
    by_rows += apart(a.strides.back()) ? 1 : 0;
    across += apart(a.strides[outer - 1]) ? 1 : 0;
  };
  for (const KernelOp& op : ops) {
    if (op.prim == Prim::load) count(op.access);
  }
  for (const Store& store : stores) count(store.access);
  return across < by_rows;
}

std::string Kernel::text() const {
  std::string out = "kernel ";
  print_dims(out, dims);
  out += " inner=" + std::to_string(inner) + " (";
  for (size_t i = 0; i < buffers.size(); ++i) {
    if (i > 0) out += ", ";
    out += "b" + std::to_string(i) + ": " + ir::dtype_name(buffers[i]);
  }
  out += ") {\n";
  for (size_t i = 0; i < ops.size(); ++i) {
    const KernelOp& op = ops[i];
    out += "  %" + std::to_string(i) + " = " + prim_name(op.prim);
    for (size_t k = 0; k < op.operands.size(); ++k) {
      out += (k == 0 ? " %" : ", %") + std::to_string(op.operands[k]);
    }
    if (op.prim == Prim::load) print_access(out, op.access);
    if (op.prim == Prim::index) {
      out += ' ';
      print_dims(out, op.access.strides);
      if (op.access.offset != 0) out += '+' + std::to_string(op.access.offset);
    }
    if (op.prim == Prim::constant) {
      out += ' ';
      if (c10::isFloatingType(op.dtype)) {
        ir::print_float(out, op.number.real);
      } else {
        out += std::to_string(op.number.integer);
      }
    }
    out += std::string(" : ") + ir::dtype_name(op.dtype) + '\n';
  }
  for (const Store& store : stores) {
    out += "  store %" + std::to_string(store.op) + ",";
    print_access(out, store.access);
    out += '\n';
  }
  return out + "}\n";
}

void simplify(Kernel& kernel) {
  for (size_t d = kernel.dims.size(); d-- > 0;) {
    if (kernel.dims[d] == 1) remove_dim(kernel, d);
  }
  const bool reduces = kernel.reduces();
  if (!reduces) {
    kernel.inner = 0;
    if (!kernel.stores.empty()) sort_by_store(kernel);
  }
  for (size_t d = kernel.dims.size(); d-- > 1;) {
    const bool border = reduces && d == kernel.dims.size() - static_cast<size_t>(kernel.inner);
    if (!border) join(kernel, d - 1);
  }
  if (!reduces) kernel.inner = kernel.dims.empty() ? 0 : 1;
  if (!reduces) cut_transposed(kernel);
  if (!reduces && ends_short(kernel)) kernel.inner = 2;
}

}  // namespace flashpoint::native
