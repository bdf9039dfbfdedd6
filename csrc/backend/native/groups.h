// Which expressions share a kernel: the grouping half of stage 2 (see schedule.h).
//
// Threads: one object, one thread; no GIL needed.
#pragma once

#include <unordered_map>
#include <vector>

#include "backend/native/schedule.h"

namespace flashpoint::native {

// An iteration space: `elements` points whose linear index can be cut at each of `bounds` (products of
// trailing sizes, ascending, each dividing the next), rows of `row` points each.
struct Space {
  int64_t elements = 1;
  int64_t row = 1;  // 1: nothing is reduced
  std::vector<int64_t> bounds;

  bool add_bounds(const ir::Dims& shape, int64_t scale);  // false: they do not fit
};

// An operand that is read from memory: this value's tensor, seen with these strides.
struct MemoryRead {
  ir::ValueId value = ir::kNoValue;
  ir::Dims strides;
};

struct Group {
  int64_t key = 0;  // place in the order
  Space space;
  bool used_outside = false;
  std::vector<ExprId> members;
  std::unordered_map<ExprId, MemoryRead> reads;
  std::vector<ExprId> loads;        // every load its members refer to, through inlined expressions as well
  std::vector<ExprId> inlined;      // those of them that inlined expressions refer to
  std::vector<ir::ValueId> stores;  // values of the graph, or made up ones
  std::vector<int32_t> writes;      // Lowered::writes; a kernel with writes does not move
  int32_t merged_into = -1;
};

class Grouping {
 public:
  Grouping(const ir::Graph& graph, const Lowered& lowered, const ScheduleOptions& options);

  struct Step {
    int64_t key;
    int32_t node;   // a call, or -1
    int32_t group;  // a kernel, or -1
  };
  // In running order. Calls that nothing needs and nothing notices are left out.
  std::vector<Step> steps() const;
  const Group& group(int32_t id) const { return groups_[static_cast<size_t>(id)]; }
  bool is_row(int32_t group, ExprId member) const;
  bool is_member(int32_t group, ExprId expr) const { return group_of(expr) == group; }
  // Metadata of values, those made up here included.
  const ir::TensorMeta& meta(ir::ValueId id) const;
  ExprId expr_of(ir::ValueId id) const;
  const std::vector<ir::Value>& extra_values() const { return extra_; }

 private:
  void find_needs();
  void need_expr(ExprId id);
  void place(ExprId id, int32_t now);
  void place_call(int32_t node);
  void place_write(int32_t write);
  bool writes_in_step(int32_t id, const Write& write) const;
  int64_t last_touch(const Write& write, int32_t except) const;
  void add_load(int32_t group, ExprId load);
  int32_t set_of(ir::ValueId id) const { return lowered_.alias_sets[static_cast<size_t>(id)]; }
  int32_t group_of(ExprId real) const;
  int32_t resolve(int32_t group) const;
  bool is_free(ExprId id) const;
  bool is_stale(const Expr& load, int32_t now) const;
  bool can_move(const Group& group, int32_t now) const;
  bool can_inline(ExprId id, int32_t now, int budget, std::vector<ExprId>& loads, int& cost) const;
  bool fits(const Group& group, int32_t id, ExprId expr, Space& space) const;
  bool merge_spaces(Space& into, const Space& other) const;
  int64_t ready_key(const Expr& load) const;
  MemoryRead read_from_memory(ExprId operand);
  void mark_user(ir::ValueId value);

  const ir::Graph& graph_;
  const Lowered& lowered_;
  const ScheduleOptions& options_;
  std::vector<Group> groups_;
  std::vector<int32_t> group_of_;                               // per expression
  std::vector<int64_t> node_key_;                               // per call, once placed
  std::vector<int64_t> write_key_;                              // per write, once placed
  std::unordered_map<int32_t, int32_t> write_at_;               // by time
  std::unordered_map<int32_t, int32_t> call_at_;                // by time: calls that write
  std::unordered_map<int32_t, int64_t> call_key_;               // per alias set: the last call that saw it
  std::unordered_map<int32_t, std::vector<int32_t>> readers_;   // per alias set: kernels
  std::vector<bool> needs_tensor_;                              // per value
  std::vector<bool> needs_expr_;                                // per expression
  std::vector<bool> live_;                                      // per node: runs as a call
  std::vector<int32_t> producer_;                               // per value: node
  std::unordered_map<ExprId, std::vector<ir::ValueId>> homes_;  // values that store an expression
  std::vector<ir::Value> extra_;
  std::vector<ExprId> extra_exprs_;
  int64_t barrier_key_ = 0;  // of the last call that writes must not move across
  int64_t next_key_ = 1;
};

}  // namespace flashpoint::native
