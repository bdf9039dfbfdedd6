// How a kernel's row is computed: in as few walks over its columns as its reductions allow.
//
// A full value that depends on a reduction of pass p belongs to pass p + 1; a row value is available once the
// reductions it depends on are. A full value needed again in a later pass is computed again when that is
// cheap (loads hit the first cache level) and kept in a scratch row otherwise. A store to a buffer that is
// read as well happens in the last pass, when nobody reads it any more.
//
// Callers: emit.cpp. Threads: immutable after construction; no GIL needed.
#pragma once

#include <vector>

#include "backend/native/kernel.h"

namespace flashpoint::native {

class PassPlan {
 public:
  explicit PassPlan(const Kernel& kernel);

  int pass_count() const { return pass_count_; }
  bool is_row(size_t op) const { return row_[op]; }
  bool is_used(size_t op) const { return used_[op]; }
  // The pass of a full value; of a row value, the number of passes that must be done before.
  int when(size_t op) const { return when_[op]; }
  bool is_spilled(size_t op) const { return spilled_[op]; }
  bool is_row_store(const Store& store) const;
  int store_pass(const Store& store) const;

  const std::vector<size_t>& reductions(int pass) const { return at(pass).reductions; }
  const std::vector<size_t>& spills(int pass) const { return at(pass).spills; }
  const std::vector<size_t>& splats(int pass) const { return at(pass).splats; }
  int unroll(int pass) const;

  // Whether some full value is 8 bytes wide, so that a register holds half as many.
  bool has_wide_lanes() const { return wide_; }

 private:
  struct Pass {
    std::vector<size_t> reductions;
    std::vector<size_t> spills;
    std::vector<size_t> splats;
    int ops = 0;
    int cost = 0;
  };
  const Pass& at(int pass) const { return passes_[static_cast<size_t>(pass)]; }
  void walk(int pass, size_t op, std::vector<bool>& seen);
  int cost(size_t op);

  const Kernel& kernel_;
  std::vector<bool> row_;
  std::vector<bool> used_;
  std::vector<int> when_;
  std::vector<bool> spilled_;
  std::vector<int> cost_;
  std::vector<Pass> passes_;
  int pass_count_ = 0;
  bool wide_ = false;
};

}  // namespace flashpoint::native
