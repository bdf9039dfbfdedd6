#include "backend/native/passes.h"

#include <algorithm>

namespace flashpoint::native {
namespace {

constexpr int kCheap = 8;                          // dearer values are kept for later passes
constexpr int64_t kMaxScratchColumns = 16 * 1024;  // longer rows are computed again instead
constexpr size_t kMaxSpills = 4;

}  // namespace

PassPlan::PassPlan(const Kernel& kernel)
    : kernel_(kernel),
      row_(kernel.ops.size()),
      used_(kernel.ops.size()),
      when_(kernel.ops.size()),
      spilled_(kernel.ops.size()),
      cost_(kernel.ops.size(), -1) {
  const auto inner = static_cast<size_t>(kernel.inner);
  for (size_t i = 0; i < kernel.ops.size(); ++i) {
    const KernelOp& op = kernel.ops[i];
    if (op.prim == Prim::load || op.prim == Prim::index) {
      const auto& strides = op.access.strides;
      row_[i] = std::all_of(strides.end() - static_cast<ptrdiff_t>(inner), strides.end(),
                            [](int64_t s) { return s == 0; });
    } else if (is_reduction(op.prim)) {
      row_[i] = true;
      when_[i] = when_[static_cast<size_t>(op.operands[0])] + 1;
    } else {
      row_[i] = true;
      for (int32_t k : op.operands) {
        row_[i] = row_[i] && row_[static_cast<size_t>(k)];
        when_[i] = std::max(when_[i], when_[static_cast<size_t>(k)]);
      }
    }
  }
  for (const Store& store : kernel.stores) used_[static_cast<size_t>(store.op)] = true;
  for (size_t i = kernel.ops.size(); i-- > 0;) {
    if (!used_[i]) continue;
    for (int32_t k : kernel.ops[i].operands) used_[static_cast<size_t>(k)] = true;
    // A wide row value reaches vectors only through a cast or a splat of its own type.
    wide_ = wide_ || (!row_[i] && c10::elementSize(kernel.ops[i].dtype) == 8);
  }
  for (const Store& store : kernel.stores) {
    if (!is_row_store(store)) pass_count_ = std::max(pass_count_, when_[static_cast<size_t>(store.op)] + 1);
  }
  for (size_t i = 0; i < kernel.ops.size(); ++i) {
    if (used_[i] && is_reduction(kernel.ops[i].prim)) pass_count_ = std::max(pass_count_, when_[i]);
  }
  passes_.resize(static_cast<size_t>(pass_count_));
  for (int pass = pass_count_; pass-- > 0;) {
    std::vector<bool> seen(kernel.ops.size());
    Pass& p = passes_[static_cast<size_t>(pass)];
    for (size_t i = 0; i < kernel.ops.size(); ++i) {
      if (!used_[i] || !is_reduction(kernel.ops[i].prim) || when_[i] != pass + 1) continue;
      p.reductions.push_back(i);
      walk(pass, static_cast<size_t>(kernel.ops[i].operands[0]), seen);
    }
    for (size_t i = 0; i < kernel.ops.size(); ++i) {
      if (!spilled_[i] || when_[i] != pass) continue;
      p.spills.push_back(i);
      walk(pass, i, seen);
    }
    for (const Store& store : kernel.stores) {
      if (!is_row_store(store) && store_pass(store) == pass) walk(pass, static_cast<size_t>(store.op), seen);
    }
  }
}

int PassPlan::store_pass(const Store& store) const {
  const bool read = std::any_of(kernel_.ops.begin(), kernel_.ops.end(), [&](const KernelOp& op) {
    return op.prim == Prim::load && op.access.buffer == store.access.buffer;
  });
  return read ? pass_count_ - 1 : when_[static_cast<size_t>(store.op)];
}

bool PassPlan::is_row_store(const Store& store) const {
  if (!row_[static_cast<size_t>(store.op)]) return false;
  const auto& strides = store.access.strides;
  return std::all_of(strides.end() - kernel_.inner, strides.end(), [](int64_t s) { return s == 0; });
}

int PassPlan::cost(size_t op) {
  if (row_[op]) return 0;
  if (cost_[op] >= 0) return cost_[op];
  int sum = prim_cost(kernel_.ops[op].prim);
  for (int32_t k : kernel_.ops[op].operands) sum = std::min(1000, sum + cost(static_cast<size_t>(k)));
  return cost_[op] = sum;
}

// Everything the pass computes to have `op`; marks what an earlier pass has to keep for it.
void PassPlan::walk(int pass, size_t op, std::vector<bool>& seen) {
  if (seen[op]) return;
  seen[op] = true;
  Pass& p = passes_[static_cast<size_t>(pass)];
  const KernelOp& node = kernel_.ops[op];
  if (node.prim == Prim::constant) return;
  if (row_[op]) {
    p.splats.push_back(op);
    return;
  }
  ++p.ops;
  p.cost += prim_cost(node.prim);
  if (when_[op] < pass && node.operands.size() > 0) {
    const bool room = std::count(spilled_.begin(), spilled_.end(), true) < static_cast<ptrdiff_t>(kMaxSpills);
    if (spilled_[op] || (cost(op) > kCheap && room && node.dtype != c10::ScalarType::Bool &&
                         kernel_.columns() <= kMaxScratchColumns)) {
      spilled_[op] = true;
      return;
    }
  }
  for (int32_t k : node.operands) walk(pass, static_cast<size_t>(k), seen);
}

int PassPlan::unroll(int pass) const {
  const Pass& p = at(pass);
  if (p.reductions.empty()) return p.ops <= 4 ? 2 : 1;
  if (p.cost <= 16) return 4;
  return p.cost <= 40 ? 2 : 1;
}

}  // namespace flashpoint::native
