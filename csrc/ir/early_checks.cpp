#include "ir/early_checks.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "ir/index_bounds.h"
#include "ir/schema.h"

namespace flashpoint::ir {
namespace {

bool is_item(PseudoOp op) { return op == PseudoOp::item_float || op == PseudoOp::item_int; }
bool is_arithmetic(PseudoOp op) { return op == PseudoOp::number_float || op == PseudoOp::number_int; }
bool expects_number(PseudoOp op) { return op == PseudoOp::expect_number; }
bool expects_value(PseudoOp op) { return op == PseudoOp::expect_number || op == PseudoOp::expect_true; }

class Hoist {
 public:
  explicit Hoist(Graph& graph) : graph_(graph), count_(static_cast<int32_t>(graph.nodes.size())) {
    for (const Op& op : graph.ops) {
      pseudo_.push_back(pseudo_op(op));
      traits_.push_back(traits_of(op));
    }
  }

  bool plan(bool indices) {
    while (first_ < count_ && node(first_).mutates.empty()) ++first_;
    for (int32_t i = first_; i < count_; ++i) {
      if (is(i, is_arithmetic) || expects_computed(i)) moved_.insert(i);
      if (!expects_tensor(i)) continue;
      moved_.insert(i);
      expected_.push_back(i);
    }
    if (indices && !find_indices()) return false;
    if (moved_.empty() && indices_.empty()) return false;
    for (auto it = moved_.rbegin(); it != moved_.rend(); ++it) {
      for (const Arg& arg : node(*it).args) for_each_value(arg, [&](ValueId id) { move_item(id); });
    }
    const std::set<int32_t> read = items_;
    for (const int32_t item : read) require(node(item).args[0].value, item);
    moved_.insert(items_.begin(), items_.end());
    for (const IndexBounds& index : indices_) require(index.value, index.node);
    for (const int32_t i : expected_) require(node(i).args[0].value, i);
    // What a view shows changes with writes that are not followed here; indices are checked in their place
    // too.
    const bool follows_views = written_.empty() && expected_.empty();
    return possible_ && alone() && (follows_views || !views_);
  }
  std::vector<int32_t> checked;  // nodes of the result

  Graph apply() {
    Graph result = graph_;
    result.nodes.clear();
    result.values.clear();
    std::vector<ValueId> main(graph_.values.size(), kNoValue), early;
    for (const Input& input : graph_.inputs) {
      main[static_cast<size_t>(input.value)] = static_cast<ValueId>(result.values.size());
      result.values.push_back(graph_.values[static_cast<size_t>(input.value)]);
    }
    for (int32_t i = 0; i < count_; ++i) {
      if (i == first_) {
        early = main;
        clone_inputs(result, early);
        for (int32_t k = 0; k < count_; ++k) {
          for (const IndexBounds& index : indices_) {
            if (index.node == k) add_check(index, result, early);
          }
          if (slice_.count(k) != 0 && !node(k).mutates.empty()) stated_.clear();
          if (slice_.count(k) != 0 || moved_.count(k) != 0) copy(k, result, early, true);
          if (moved_.count(k) == 0 || node(k).outputs.empty()) continue;
          const auto value = static_cast<size_t>(node(k).outputs[0].first);
          main[value] = early[value];
        }
      }
      if (is_checked(i)) checked.push_back(static_cast<int32_t>(result.nodes.size()));
      if (moved_.count(i) == 0) copy(i, result, main, false);
    }
    for (ValueId& id : result.outputs) id = main[static_cast<size_t>(id)];
    return result;
  }

 private:
  const Node& node(int32_t i) const { return graph_.nodes[static_cast<size_t>(i)]; }
  const Value& value(ValueId id) const { return graph_.values[static_cast<size_t>(id)]; }
  template <typename Test>
  bool is(int32_t i, Test test) const {
    const auto& pseudo = pseudo_[node(i).op];
    return pseudo && test(*pseudo);
  }

  // What the program decided by arithmetic on numbers.
  bool expects_computed(int32_t i) const {
    return is(i, expects_number) && value(node(i).args[0].value).kind != ValueKind::kTensor &&
           value(node(i).args[0].value).node != kNoNode &&
           is(value(node(i).args[0].value).node, is_arithmetic);
  }

  // What the program asserted of a tensor.
  bool expects_tensor(int32_t i) const {
    return is(i, expects_value) && value(node(i).args[0].value).kind == ValueKind::kTensor;
  }

  // The indices of what takes some behind the first write. False: something else may raise there.
  bool find_indices() {
    for (int32_t i = first_ + 1; i < count_; ++i) {
      if (moved_.count(i) != 0 || !may_raise_on_values(graph_, node(i))) continue;
      if (!index_bounds(graph_, i, indices_)) return false;
    }
    return true;
  }

  bool is_checked(int32_t i) const {
    return std::any_of(indices_.begin(), indices_.end(), [&](const IndexBounds& b) { return b.node == i; });
  }

  void add_check(const IndexBounds& index, Graph& result, const std::vector<ValueId>& early) {
    const ValueId value = early[static_cast<size_t>(index.value)];
    if (!stated_.insert({value, index.low, index.high, index.ignored}).second) return;
    Node check;
    check.op = result.intern_op(op_of(PseudoOp::check_range));
    check.state = node(index.node).state;
    check.args = {Arg::of_value(value), Arg::of_constant(index.low), Arg::of_constant(index.high),
                  Arg::of_constant(index.ignored)};
    result.nodes.push_back(std::move(check));
  }

  // A number that moved arithmetic needs.
  void move_item(ValueId id) {
    const int32_t producer = value(id).node;
    if (producer != kNoNode && producer >= first_ && is(producer, is_item)) items_.insert(producer);
  }

  // The value as it is when node `limit` begins has to be there early. aliased: to be written to, or viewed.
  void require(ValueId id, int32_t limit, bool aliased = false) {
    if (value(id).kind != ValueKind::kTensor) {
      // Arithmetic behind the first write is moved in any case.
      const int32_t producer = value(id).node;
      if (producer >= first_ && is(producer, is_item) && items_.insert(producer).second)
        require(node(producer).args[0].value, producer);
      return;
    }
    if (value(id).node != kNoNode) {
      if (aliased || !is_there(id)) return add(value(id).node);
      there_.insert(id);
      return;
    }
    int32_t& known = inputs_[id];
    for (int32_t i = known; i < limit; ++i) {
      const auto& mutates = node(i).mutates;
      if (std::find(mutates.begin(), mutates.end(), id) == mutates.end()) continue;
      known = std::max(known, i);  // a new look at it ends here
      add(i);
    }
    known = std::max(known, limit);
  }

  void add(int32_t i) {
    if (!possible_ || !slice_.insert(i).second) return;
    possible_ = is_small(node(i));
    for (const ValueId id : node(i).mutates) {
      written_.insert(id);
      possible_ = possible_ && !value(id).meta.requires_grad;
      if (possible_) require(id, i);
    }
    for (size_t a = 0; a < node(i).args.size(); ++a) {
      const bool aliased = may_alias(node(i), a);
      for_each_value(node(i).args[a], [&](ValueId id) {
        if (possible_) require(id, i, aliased);
      });
    }
  }

  // Computed before the first write, and no view. Numbers are computed anew from what leads to them.
  bool is_there(ValueId id) const {
    return items_.empty() && value(id).node < first_ && !returns_view(node(value(id).node));
  }

  bool returns_view(const Node& n) const {
    const auto* schema = find_schema(graph_.ops[n.op]);
    return std::any_of(schema->returns().begin(), schema->returns().end(), [](const auto& result) {
      return result.alias_info() != nullptr && !result.alias_info()->isWrite();
    });
  }

  static int64_t elements(const TensorMeta& meta) {
    int64_t count = 1;
    for (const int64_t size : meta.sizes) count *= size;
    return count;
  }

  bool takes_mask(const Node& n) const {
    bool mask = false;
    for_each_value(n.args[1], [&](ValueId id) {
      const c10::ScalarType dtype = value(id).meta.dtype;
      mask = mask || (dtype != c10::ScalarType::Long && dtype != c10::ScalarType::Int);
    });
    return mask;
  }

  // A few elements, without randomness, and without views where numbers are computed.
  bool is_small(const Node& n) {
    if (slice_.size() > kFewNodes * (items_.size() + indices_.size() + expected_.size())) return false;
    const OpTraits& traits = traits_[n.op];
    const Op& op = graph_.ops[n.op];
    const bool dynamic = traits.dynamic_shape && (op.name != "aten::where" || op.overload.empty()) &&
                         (op.name != "aten::index" || takes_mask(n));
    if (traits.rng || dynamic || traits.hidden_writes != 0) return false;
    if (pseudo_[n.op] && *pseudo_[n.op] != PseudoOp::constant) return false;
    if (returns_view(n)) {
      if (!items_.empty()) return false;
      views_ = true;
    }
    bool small = true;
    const int64_t few = indices_.empty() && expected_.empty() ? kFewElements : kFewIndices;
    const auto check = [&](ValueId id) {
      const Value& v = value(id);
      small = small && (v.kind != ValueKind::kTensor || (v.meta.defined() && elements(v.meta) <= few));
    };
    for (const Arg& arg : n.args) for_each_value(arg, check);
    for (const Output& output : n.outputs) {
      small = small && !output.is_list;
      check(output.first);
    }
    return small;
  }

  // Nothing else touches what the slice makes: it could be a write, or a view to be written through.
  bool alone() const {
    std::set<ValueId> made = there_;
    for (const int32_t i : slice_) {
      if (!node(i).mutates.empty()) continue;  // in the memory of an input, whose writers are all here
      for (const Output& output : node(i).outputs) made.insert(output.first);
    }
    int32_t last = made.empty() || items_.empty() ? 0 : *items_.rbegin();
    for (const IndexBounds& index : indices_) last = std::max(last, made.empty() ? 0 : index.node);
    if (!expected_.empty() && !made.empty()) last = std::max(last, expected_.back());
    for (int32_t i = 0; i < last; ++i) {
      if (slice_.count(i) != 0 || moved_.count(i) != 0) continue;
      const Node& n = node(i);
      for (size_t a = 0; a < n.args.size(); ++a) {
        bool touches = false;
        for_each_value(n.args[a], [&](ValueId id) { touches = touches || made.count(id) != 0; });
        // What is checked early is computed in its place as well, so others may read that.
        if (touches && (!items_.empty() || may_alias(n, a))) return false;
      }
    }
    return true;
  }

  // Writes to the argument, or returns a view of it.
  bool may_alias(const Node& n, size_t argument) const {
    const auto* schema = find_schema(graph_.ops[n.op]);
    return schema == nullptr || argument >= schema->arguments().size() || traits_[n.op].hidden_writes != 0 ||
           schema->arguments()[argument].alias_info() != nullptr;
  }

  void clone_inputs(Graph& result, std::vector<ValueId>& early) {
    for (const ValueId input : written_) {
      Node clone;
      clone.op = result.intern_op({"aten::clone", ""});
      clone.state = node(!items_.empty()     ? *items_.begin()
                         : !indices_.empty() ? indices_.front().node
                                             : expected_.front())
                        .state;
      clone.args = {Arg::of_value(early[static_cast<size_t>(input)]), Arg::of_constant(c10::IValue())};
      Value made = value(input);
      made.node = static_cast<int32_t>(result.nodes.size());
      early[static_cast<size_t>(input)] = static_cast<ValueId>(result.values.size());
      clone.outputs.push_back({false, early[static_cast<size_t>(input)], 1});
      result.values.push_back(std::move(made));
      result.nodes.push_back(std::move(clone));
    }
  }

  void copy(int32_t i, Graph& result, std::vector<ValueId>& names, bool early) {
    Node n = node(i);
    for (Arg& arg : n.args) for_each_value(arg, [&](ValueId& id) { id = names[static_cast<size_t>(id)]; });
    for (Output& output : n.outputs) {
      const auto first = static_cast<ValueId>(result.values.size());
      for (int32_t k = 0; k < output.count; ++k) {
        names[static_cast<size_t>(output.first + k)] = static_cast<ValueId>(result.values.size());
        result.values.push_back(value(output.first + k));
        result.values.back().node = static_cast<int32_t>(result.nodes.size());
      }
      output.first = first;
    }
    if (early) {
      n.mutates.clear();
    } else {
      for (ValueId& id : n.mutates) id = names[static_cast<size_t>(id)];
    }
    result.nodes.push_back(std::move(n));
  }

  Graph& graph_;
  const int32_t count_;
  std::vector<std::optional<PseudoOp>> pseudo_;
  std::vector<OpTraits> traits_;
  int32_t first_ = 0;  // the first node that writes to an input
  std::set<int32_t> moved_, items_, slice_;
  std::set<ValueId> there_;        // values from before the first write that the slice reads
  std::vector<int32_t> expected_;  // assertions, by their nodes
  std::vector<IndexBounds> indices_;
  std::set<std::tuple<ValueId, int64_t, int64_t, std::optional<int64_t>>>
      stated_;                         // checks since the last early write
  std::map<ValueId, int32_t> inputs_;  // read early, and up to which node their writers were looked for
  std::set<ValueId> written_;
  bool possible_ = true;
  bool views_ = false;  // something in the slice is a view
};

}  // namespace

EarlyChecks with_early_checks(Graph graph, bool indices) {
  for (const bool both : {true, false}) {
    if (both && !indices) continue;
    Hoist hoist(graph);
    if (!hoist.plan(both)) continue;
    Graph result = hoist.apply();
    return {std::move(result), std::move(hoist.checked)};
  }
  return {std::move(graph), {}};
}

int32_t raises_after_write(const Graph& graph, const std::vector<int32_t>& checked) {
  bool wrote = false;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    const auto pseudo = pseudo_op(graph.ops[node.op]);
    if (wrote && ((pseudo && expects_value(*pseudo)) || may_raise_on_values(graph, node)) &&
        !std::binary_search(checked.begin(), checked.end(), static_cast<int32_t>(i)))
      return static_cast<int32_t>(i);
    wrote = wrote || !node.mutates.empty();
  }
  return -1;
}

}  // namespace flashpoint::ir
