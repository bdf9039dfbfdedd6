#include "backend/native/groups.h"

#include <algorithm>

#include "base/check.h"
#include "ir/schema.h"

namespace flashpoint::native {
namespace {

constexpr int kInlineCost = 8;  // small operands dearer than this are computed once and read

ir::Dims without_ones(const ir::Dims& shape) {
  ir::Dims result;
  for (int64_t d : shape) {
    if (d != 1) result.push_back(d);
  }
  return result;
}

// A row value used by a full one of `shape` must be broadcast along exactly the row.
bool broadcasts_along_row(const ir::Dims& shape, const ir::Dims& operand, int64_t row) {
  int64_t low = 1;
  for (size_t k = 0; k < shape.size(); ++k) {
    const int64_t size = shape[shape.size() - 1 - k];
    if (size == 1) continue;
    const bool present = k < operand.size() && operand[operand.size() - 1 - k] != 1;
    const bool outside = low >= row;
    if (present != outside) return false;
    low *= size;
    if (!outside && low > row) return false;
  }
  return true;
}

}  // namespace

bool Space::add_bounds(const ir::Dims& shape, int64_t scale) {
  int64_t product = scale;
  std::vector<int64_t> all = bounds;
  if (product > 1) all.push_back(product);
  for (size_t d = shape.size(); d-- > 0;) {
    if (shape[d] == 1) continue;
    product *= shape[d];
    all.push_back(product);
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  for (size_t i = 1; i < all.size(); ++i) {
    if (all[i] % all[i - 1] != 0) return false;
  }
  bounds = std::move(all);
  return true;
}

Grouping::Grouping(const ir::Graph& graph, const Lowered& lowered, const ScheduleOptions& options)
    : graph_(graph),
      lowered_(lowered),
      options_(options),
      group_of_(lowered.exprs.size(), -1),
      node_key_(graph.nodes.size(), 0),
      write_key_(lowered.writes.size(), 0),
      needs_tensor_(graph.values.size()),
      needs_expr_(lowered.exprs.size()),
      live_(graph.nodes.size()),
      producer_(graph.values.size(), -1) {
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    for (const ir::Output& output : graph.nodes[i].outputs) {
      for (int32_t k = 0; k < output.count; ++k) {
        producer_[static_cast<size_t>(output.first + k)] = static_cast<int32_t>(i);
      }
    }
  }
  for (size_t i = 0; i < lowered.writes.size(); ++i) {
    write_at_.emplace(lowered.writes[i].time, static_cast<int32_t>(i));
  }
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    call_at_.emplace(lowered.times[i], static_cast<int32_t>(i));
  }
  find_needs();
  size_t next = 0;
  size_t next_write = 0;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const auto now = static_cast<int32_t>(i);
    while (next_write < lowered.writes.size() && lowered.writes[next_write].time < lowered.times[i]) {
      place_write(static_cast<int32_t>(next_write++));
    }
    while (next < lowered.exprs.size() && lowered.exprs[next].born <= now) {
      const auto id = static_cast<ExprId>(next++);
      if (needs_expr_[static_cast<size_t>(id)] && !is_free(id)) place(id, lowered.times[i]);
    }
    if (lowered.nodes[i] == NodeKind::kLowered) {
      for (const ir::Output& output : graph.nodes[i].outputs) {
        const ir::ValueId value = output.first;
        if (!needs_tensor_[static_cast<size_t>(value)]) continue;
        const ExprId real = lowered.strip(lowered.values[static_cast<size_t>(value)].expr);
        groups_[static_cast<size_t>(group_of(real))].stores.push_back(value);
        homes_[real].push_back(value);
      }
    } else if (live_[i]) {
      place_call(now);
    }
  }
  while (next_write < lowered.writes.size()) place_write(static_cast<int32_t>(next_write++));
}

// ---- what has to exist

void Grouping::need_expr(ExprId id) {
  std::vector<ExprId> pending{id};  // chains are as long as graphs: no recursion
  while (!pending.empty()) {
    const ExprId next = pending.back();
    pending.pop_back();
    if (needs_expr_[static_cast<size_t>(next)]) continue;
    needs_expr_[static_cast<size_t>(next)] = true;
    const Expr& e = lowered_.exprs[static_cast<size_t>(next)];
    if (e.prim == Prim::load) needs_tensor_[static_cast<size_t>(lowered_.tensor_of(e.root))] = true;
    pending.insert(pending.end(), e.operands.begin(), e.operands.end());
  }
}

void Grouping::find_needs() {
  std::vector<bool> pure(graph_.ops.size());
  for (size_t i = 0; i < graph_.ops.size(); ++i) pure[i] = ir::traits_of(graph_.ops[i]).pure;
  const auto need = [&](ir::ValueId id) {
    // A value that is another's very tensor stands for it.
    needs_tensor_[static_cast<size_t>(lowered_.tensor_of(id))] = true;
  };
  for (ir::ValueId id : graph_.outputs) need(id);
  for (const Write& write : lowered_.writes) {
    if (write.versions == 0) continue;  // as its memory is
    need(write.root);
    need_expr(write.expr);
  }
  for (size_t i = graph_.nodes.size(); i-- > 0;) {
    const ir::Node& node = graph_.nodes[i];
    bool used = false;
    for (const ir::Output& output : node.outputs) {
      for (int32_t k = 0; k < output.count; ++k) used |= needs_tensor_[static_cast<size_t>(output.first + k)];
    }
    if (lowered_.nodes[i] == NodeKind::kLowered) {
      // Expressions that later ones refer to are needed already.
      for (const ir::Output& output : node.outputs) {
        if (!needs_tensor_[static_cast<size_t>(output.first)]) continue;
        need_expr(lowered_.values[static_cast<size_t>(output.first)].expr);
      }
      continue;
    }
    if (lowered_.nodes[i] == NodeKind::kCall) used = used || !pure[node.op];
    live_[i] = used;
    if (!used) continue;
    if (lowered_.nodes[i] == NodeKind::kMemory) {
      for (const Write& write : lowered_.writes) {
        if (write.versions == 0 && write.node == static_cast<int32_t>(i)) need_expr(write.expr);
      }
      continue;
    }
    for (const ir::Arg& arg : node.args) ir::for_each_value(arg, need);
  }
}

// ---- questions

bool Grouping::is_free(ExprId id) const {
  const Prim prim = lowered_.exprs[static_cast<size_t>(id)].prim;
  return prim == Prim::load || prim == Prim::constant || prim == Prim::index || prim == Prim::reshape;
}

int32_t Grouping::resolve(int32_t group) const {
  while (group >= 0 && groups_[static_cast<size_t>(group)].merged_into >= 0) {
    group = groups_[static_cast<size_t>(group)].merged_into;
  }
  return group;
}

int32_t Grouping::group_of(ExprId real) const { return resolve(group_of_[static_cast<size_t>(real)]); }

bool Grouping::is_stale(const Expr& load, int32_t now) const {
  const auto it = lowered_.mutations.find(load.root);
  if (it == lowered_.mutations.end()) return false;
  return std::any_of(it->second.begin(), it->second.end(),
                     [&](int32_t m) { return m > load.epoch && m < now; });
}

bool Grouping::can_move(const Group& group, int32_t now) const {
  if (group.used_outside || !group.writes.empty()) return false;
  return std::none_of(group.loads.begin(), group.loads.end(),
                      [&](ExprId load) { return is_stale(lowered_.exprs[static_cast<size_t>(load)], now); });
}

// After which place the memory of a load holds what it is to read.
int64_t Grouping::ready_key(const Expr& load) const {
  int64_t key = 0;
  if (const auto write = write_at_.find(load.epoch); write != write_at_.end()) {
    key = write_key_[static_cast<size_t>(write->second)];
  } else if (const auto call = call_at_.find(load.epoch); call != call_at_.end()) {
    key = node_key_[static_cast<size_t>(call->second)];
  }
  const int32_t node = producer_[static_cast<size_t>(load.root)];
  if (node < 0) return key;
  if (lowered_.nodes[static_cast<size_t>(node)] == NodeKind::kLowered) {
    const ExprId real = lowered_.strip(lowered_.values[static_cast<size_t>(load.root)].expr);
    return std::max(key, groups_[static_cast<size_t>(group_of(real))].key);
  }
  return std::max(key, node_key_[static_cast<size_t>(node)]);
}

bool Grouping::is_row(int32_t group, ExprId member) const {
  const Space& space = groups_[static_cast<size_t>(group)].space;
  const Expr& e = lowered_.exprs[static_cast<size_t>(member)];
  return space.row > 1 && (is_reduction(e.prim) || numel(e.shape) < space.elements);
}

// Whether an expression is cheap enough to be computed by each of its users; collects what it loads.
bool Grouping::can_inline(ExprId id, int32_t now, int budget, std::vector<ExprId>& loads, int& cost) const {
  const Expr& e = lowered_.exprs[static_cast<size_t>(id)];
  if (e.prim == Prim::constant || e.prim == Prim::index) return true;
  if (e.prim == Prim::load) {
    loads.push_back(id);
    return !is_stale(e, now);
  }
  if (is_reduction(e.prim)) return false;
  if (e.prim == Prim::reshape &&
      without_ones(e.shape) != without_ones(lowered_.exprs[static_cast<size_t>(e.operands[0])].shape)) {
    return false;
  }
  cost += prim_cost(e.prim);
  if (cost > budget) return false;
  return std::all_of(e.operands.begin(), e.operands.end(),
                     [&](ExprId o) { return can_inline(o, now, budget, loads, cost); });
}

// Whether `expr`, an operand of which is computed in `group`, can be computed there too.
bool Grouping::fits(const Group& group, int32_t id, ExprId expr, Space& space) const {
  const Expr& e = lowered_.exprs[static_cast<size_t>(expr)];
  space = group.space;
  if (is_reduction(e.prim)) {
    const Expr& operand = lowered_.exprs[static_cast<size_t>(e.operands[0])];
    int64_t row = 1;
    for (size_t k = operand.shape.size() - static_cast<size_t>(e.reduced); k < operand.shape.size(); ++k) {
      row *= operand.shape[k];
    }
    if (numel(operand.shape) != space.elements) return false;
    if (row == 1 || (space.row != 1 && space.row != row)) return false;
    // What is full now has to stay full.
    space.row = row;
    return space.add_bounds(operand.shape, 1);
  }
  const int64_t elements = numel(e.shape);
  const bool full = elements == space.elements;
  if (!full && (space.row == 1 || elements * space.row != space.elements)) return false;
  for (ExprId o : e.operands) {
    const ExprId real = lowered_.strip(o);
    if (is_free(real) || group_of(real) != id) continue;
    const ir::Dims& shape = lowered_.exprs[static_cast<size_t>(o)].shape;
    const bool operand_row = is_row(id, real);
    if (full && !operand_row && numel(shape) != elements) return false;
    if (full && operand_row && !broadcasts_along_row(e.shape, shape, space.row)) return false;
    if (!full && (!operand_row || numel(shape) != elements)) return false;
  }
  return space.add_bounds(e.shape, full ? 1 : space.row);
}

bool Grouping::merge_spaces(Space& into, const Space& other) const {
  if (into.elements != other.elements) return false;
  if (into.row != other.row && into.row != 1 && other.row != 1) return false;
  ir::Dims sizes;  // the other's bounds as a shape
  int64_t last = 1;
  for (int64_t bound : other.bounds) {
    sizes.insert(sizes.begin(), bound / last);
    last = bound;
  }
  if (!into.add_bounds(sizes, 1)) return false;
  into.row = std::max(into.row, other.row);
  return true;
}

const ir::TensorMeta& Grouping::meta(ir::ValueId id) const {
  const auto i = static_cast<size_t>(id);
  return i < graph_.values.size() ? meta_of(graph_.values[i]) : extra_[i - graph_.values.size()].meta;
}

ExprId Grouping::expr_of(ir::ValueId id) const {
  const auto i = static_cast<size_t>(id);
  return i < graph_.values.size() ? lowered_.values[i].expr : extra_exprs_[i - graph_.values.size()];
}

// ---- placing

void Grouping::mark_user(ir::ValueId value) {
  value = lowered_.tensor_of(value);
  for (ir::ValueId id : {value, lowered_.values[static_cast<size_t>(value)].root}) {
    if (id == ir::kNoValue || producer_[static_cast<size_t>(id)] < 0) continue;
    if (lowered_.nodes[static_cast<size_t>(producer_[static_cast<size_t>(id)])] != NodeKind::kLowered)
      continue;
    const int32_t group = group_of(lowered_.strip(lowered_.values[static_cast<size_t>(id)].expr));
    if (group >= 0) groups_[static_cast<size_t>(group)].used_outside = true;
  }
}

void Grouping::place_call(int32_t node) {
  const int64_t key = next_key_++;
  node_key_[static_cast<size_t>(node)] = key;
  if (lowered_.nodes[static_cast<size_t>(node)] == NodeKind::kMemory) {
    call_key_[set_of(graph_.nodes[static_cast<size_t>(node)].outputs[0].first)] = key;
    return;  // it looks at nothing
  }
  if (lowered_.barriers[static_cast<size_t>(node)]) barrier_key_ = key;
  for (const ir::Arg& arg : graph_.nodes[static_cast<size_t>(node)].args) {
    ir::for_each_value(arg, [&](ir::ValueId id) {
      mark_user(id);
      call_key_[set_of(id)] = key;
    });
  }
  for (const ir::Output& output : graph_.nodes[static_cast<size_t>(node)].outputs) {
    for (int32_t k = 0; k < output.count; ++k) call_key_[set_of(output.first + k)] = key;
  }
}

void Grouping::add_load(int32_t group, ExprId load) {
  groups_[static_cast<size_t>(group)].loads.push_back(load);
  auto& readers = readers_[set_of(lowered_.exprs[static_cast<size_t>(load)].root)];
  if (readers.empty() || readers.back() != group) readers.push_back(group);
}

// ---- writes

// Whether a kernel that computes what is written may write it as it goes: of the memory it reads only the
// element that it writes at each point, and it does nothing else there.
bool Grouping::writes_in_step(int32_t id, const Write& write) const {
  const Group& group = groups_[static_cast<size_t>(id)];
  const int32_t set = set_of(write.root);
  const bool row = numel(write.sizes) != group.space.elements;
  const auto dims = [](const ir::Dims& sizes, const ir::Dims& strides) {
    std::vector<std::pair<int64_t, int64_t>> result;
    for (size_t d = 0; d < sizes.size(); ++d) {
      if (sizes[d] != 1) result.emplace_back(sizes[d], strides[d]);
    }
    return result;
  };
  for (ExprId load : group.loads) {
    const Expr& e = lowered_.exprs[static_cast<size_t>(load)];
    if (set_of(e.root) != set) continue;
    if (e.root != write.root || e.offset != write.offset) return false;
    if (dims(e.shape, e.strides) != dims(write.sizes, write.strides)) return false;
    if (!row) continue;
    // A row's value must not be read along the columns.
    if (std::find(group.inlined.begin(), group.inlined.end(), load) != group.inlined.end()) return false;
    for (ExprId member : group.members) {
      const auto& operands = lowered_.exprs[static_cast<size_t>(member)].operands;
      const bool uses =
          std::any_of(operands.begin(), operands.end(), [&](ExprId o) { return lowered_.strip(o) == load; });
      if (uses && (!is_row(id, member) || is_reduction(lowered_.exprs[static_cast<size_t>(member)].prim)))
        return false;
    }
  }
  const auto touches = [&](ir::ValueId value) {
    return static_cast<size_t>(value) < graph_.values.size() && set_of(value) == set;
  };
  for (const auto& [expr, read] : group.reads) {
    if (touches(read.value)) return false;
  }
  if (std::any_of(group.stores.begin(), group.stores.end(), touches)) return false;
  return std::none_of(group.writes.begin(), group.writes.end(), [&](int32_t other) {
    const Write& before = lowered_.writes[static_cast<size_t>(other)];
    return touches(before.root) && !before.is_apart_from(write);
  });
}

// The last place at which anything but this kernel has to do with the memory, or must not see it written
// early.
int64_t Grouping::last_touch(const Write& write, int32_t except) const {
  if (write.versions == 0) {  // nobody knows the memory yet but who writes other parts of it
    return node_key_[static_cast<size_t>(producer_[static_cast<size_t>(write.root)])];
  }
  int64_t key = barrier_key_;
  const int32_t set = set_of(write.root);
  if (const auto call = call_key_.find(set); call != call_key_.end()) key = call->second;
  if (const auto readers = readers_.find(set); readers != readers_.end()) {
    for (int32_t reader : readers->second) {
      const int32_t group = resolve(reader);
      if (group != except) key = std::max(key, groups_[static_cast<size_t>(group)].key);
    }
  }
  const int32_t node = producer_[static_cast<size_t>(write.root)];
  if (node >= 0 && lowered_.nodes[static_cast<size_t>(node)] == NodeKind::kLowered) {
    const ExprId real = lowered_.strip(lowered_.values[static_cast<size_t>(write.root)].expr);
    key = std::max(key, groups_[static_cast<size_t>(group_of(real))].key);
  }
  return key;
}

void Grouping::place_write(int32_t index) {
  const Write& write = lowered_.writes[static_cast<size_t>(index)];
  if (!needs_tensor_[static_cast<size_t>(lowered_.tensor_of(write.root))]) return;
  const ExprId real = lowered_.strip(write.expr);
  int32_t id = group_of(real);
  mark_user(write.root);  // its tensor must be there before
  const bool in_step = writes_in_step(id, write);
  const bool moves = can_move(groups_[static_cast<size_t>(id)], write.time);
  if (in_step && moves) {
    groups_[static_cast<size_t>(id)].key = next_key_++;
  } else if (!in_step || last_touch(write, id) >= groups_[static_cast<size_t>(id)].key) {
    // Computed where it can be, copied when it is time.
    const MemoryRead read = read_from_memory(real);
    Group copying;
    const ir::Dims& shape = lowered_.exprs[static_cast<size_t>(real)].shape;
    copying.key = next_key_++;
    copying.space.elements = numel(shape);
    copying.space.add_bounds(shape, 1);
    copying.reads.emplace(real, read);
    id = static_cast<int32_t>(groups_.size());
    groups_.push_back(std::move(copying));
  }
  Group& group = groups_[static_cast<size_t>(id)];
  group.writes.push_back(index);
  write_key_[static_cast<size_t>(index)] = group.key;
  readers_[set_of(write.root)].push_back(id);
}

// A value whose tensor holds the operand's elements; made up if none that can be read that way is stored.
MemoryRead Grouping::read_from_memory(ExprId operand) {
  const ExprId real = lowered_.strip(operand);
  const ir::Dims& shape = lowered_.exprs[static_cast<size_t>(operand)].shape;
  Group& group = groups_[static_cast<size_t>(group_of(real))];
  group.used_outside = true;
  auto& homes = homes_[real];
  for (ir::ValueId home : homes) {
    // Its tensor may have been written to since.
    if (lowered_.mutations.count(home) != 0) continue;
    const ir::TensorMeta& m = meta(home);
    if (const auto strides = strides_for(m.sizes, m.strides, shape)) return {home, *strides};
  }
  const Expr& e = lowered_.exprs[static_cast<size_t>(real)];
  ir::Value value;
  value.meta.dtype = e.dtype;
  value.meta.sizes = e.shape;
  value.meta.strides = ir::contiguous_strides(e.shape);
  const auto id = static_cast<ir::ValueId>(graph_.values.size() + extra_.size());
  const auto strides = strides_for(value.meta.sizes, value.meta.strides, shape);
  FP_CHECK(strides.has_value(), "contiguous memory reads as any shape");
  extra_.push_back(std::move(value));
  extra_exprs_.push_back(real);
  group.stores.push_back(id);
  homes.push_back(id);
  return {id, *strides};
}

void Grouping::place(ExprId id, int32_t now) {
  const Expr& e = lowered_.exprs[static_cast<size_t>(id)];
  struct Candidate {
    int32_t group;
    Space space;
  };
  std::vector<Candidate> candidates;
  std::vector<ExprId> loads;
  std::vector<ExprId> inlined_loads;
  std::vector<ExprId> foreign;  // operands of kernels that this expression cannot join
  int64_t after = 0;
  for (ExprId o : e.operands) {
    const ExprId real = lowered_.strip(o);
    if (is_free(real)) {
      if (lowered_.exprs[static_cast<size_t>(real)].prim == Prim::load) loads.push_back(real);
      continue;
    }
    const int32_t group = group_of(real);
    const bool known = std::any_of(candidates.begin(), candidates.end(),
                                   [&](const Candidate& c) { return c.group == group; });
    Space space;
    const Group& g = groups_[static_cast<size_t>(group)];
    if (known) continue;
    if (g.members.size() < options_.max_exprs && fits(g, group, id, space)) {
      candidates.push_back({group, space});
      continue;
    }
    std::vector<ExprId> inlined;
    int cost = 0;
    if (numel(lowered_.exprs[static_cast<size_t>(real)].shape) < numel(e.shape) && !is_reduction(e.prim) &&
        can_inline(o, now, kInlineCost, inlined, cost)) {
      loads.insert(loads.end(), inlined.begin(), inlined.end());
      inlined_loads.insert(inlined_loads.end(), inlined.begin(), inlined.end());
      continue;
    }
    foreign.push_back(o);
    after = std::max(after, g.key);
  }
  for (ExprId load : loads) {
    const Expr& l = lowered_.exprs[static_cast<size_t>(load)];
    FP_CHECK(!is_stale(l, now), "a load is placed after the write that ends it");
    after = std::max(after, ready_key(l));
    mark_user(l.root);  // what it is read from cannot be the kernel that reads it
  }

  // The last kernel that cannot move is where the expression goes, if it can go into any.
  int32_t target = -1;
  for (const Candidate& c : candidates) {
    const Group& g = groups_[static_cast<size_t>(c.group)];
    if (can_move(g, now)) continue;
    if (target < 0 || g.key > groups_[static_cast<size_t>(target)].key) target = c.group;
  }
  if (target >= 0) {
    const int64_t at = groups_[static_cast<size_t>(target)].key;
    bool reachable = at > after;
    for (const Candidate& c : candidates) {
      reachable = reachable && (c.group == target || groups_[static_cast<size_t>(c.group)].key < at);
    }
    if (!reachable) target = -1;
  }
  Space space;
  int64_t key = 0;
  if (target >= 0) {
    key = groups_[static_cast<size_t>(target)].key;
  } else {
    key = next_key_++;
    for (const Candidate& c : candidates) {  // the biggest that can move becomes the kernel
      const Group& g = groups_[static_cast<size_t>(c.group)];
      if (!can_move(g, now)) continue;
      if (target < 0 || g.members.size() > groups_[static_cast<size_t>(target)].members.size())
        target = c.group;
    }
  }
  if (target < 0) {
    target = static_cast<int32_t>(groups_.size());
    Group group;
    const Expr& shape_of = is_reduction(e.prim) ? lowered_.exprs[static_cast<size_t>(e.operands[0])] : e;
    group.space.elements = numel(shape_of.shape);
    for (size_t k = shape_of.shape.size() - static_cast<size_t>(e.reduced); k < shape_of.shape.size(); ++k) {
      group.space.row *= shape_of.shape[k];
    }
    group.space.add_bounds(shape_of.shape, 1);
    space = group.space;
    groups_.push_back(std::move(group));
  } else {
    for (const Candidate& c : candidates) {
      if (c.group == target) space = c.space;
    }
  }
  groups_[static_cast<size_t>(target)].key = key;

  // The other candidates are absorbed where they can be, and read from otherwise.
  for (const Candidate& c : candidates) {
    if (c.group == target) continue;
    Group& other = groups_[static_cast<size_t>(c.group)];
    Group& into = groups_[static_cast<size_t>(target)];
    Space merged = space;
    if (can_move(other, now) && other.key < key && merge_spaces(merged, c.space) &&
        into.members.size() + other.members.size() < options_.max_exprs) {
      space = merged;
      into.members.insert(into.members.end(), other.members.begin(), other.members.end());
      into.loads.insert(into.loads.end(), other.loads.begin(), other.loads.end());
      into.inlined.insert(into.inlined.end(), other.inlined.begin(), other.inlined.end());
      into.reads.insert(other.reads.begin(), other.reads.end());
      into.stores.insert(into.stores.end(), other.stores.begin(), other.stores.end());
      other.merged_into = target;
      continue;
    }
    for (ExprId o : e.operands) {
      const ExprId real = lowered_.strip(o);
      if (!is_free(real) && group_of(real) == c.group) foreign.push_back(o);
    }
  }
  groups_[static_cast<size_t>(target)].space = space;
  for (ExprId o : foreign) {
    const MemoryRead read = read_from_memory(o);
    groups_[static_cast<size_t>(target)].reads.emplace(o, read);
  }
  for (ExprId load : loads) add_load(target, load);
  auto& inlined = groups_[static_cast<size_t>(target)].inlined;
  inlined.insert(inlined.end(), inlined_loads.begin(), inlined_loads.end());
  groups_[static_cast<size_t>(target)].members.push_back(id);
  group_of_[static_cast<size_t>(id)] = target;
}

std::vector<Grouping::Step> Grouping::steps() const {
  std::vector<Step> steps;
  for (size_t i = 0; i < graph_.nodes.size(); ++i) {
    if (node_key_[i] != 0) steps.push_back({node_key_[i], static_cast<int32_t>(i), -1});
  }
  for (size_t i = 0; i < groups_.size(); ++i) {
    if (groups_[i].merged_into < 0) steps.push_back({groups_[i].key, -1, static_cast<int32_t>(i)});
  }
  std::sort(steps.begin(), steps.end(), [](const Step& a, const Step& b) { return a.key < b.key; });
  return steps;
}

}  // namespace flashpoint::native
