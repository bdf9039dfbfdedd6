// The parts of a guard tree, for whoever writes trees as data and builds them again (driver/entry_writer.h,
// driver/entry_reader.h). GIL: required.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "guard/guard_tree.h"

namespace flashpoint {

// A value, the type of one that says little, or a tensor's metadata.
struct Found {
  Ref object;
  std::optional<TensorMeta> tensor;
  std::string text() const;  // "" for nothing
};

struct GuardAccess {
  static const Node& node(const GuardTree& tree, NodeId id) { return tree.nodes_[id]; }
  static const Check& check(const GuardTree& tree, int32_t index) { return tree.checks_[index]; }
  static const TensorMeta& meta(const GuardTree& tree, int32_t index) { return tree.metas_[index]; }

  // Calls visit(check) for each check of a node, those that version tags stand for last.
  template <typename Visit>
  static void for_each_check(const GuardTree& tree, NodeId id, Visit&& visit) {
    for (const int32_t head : {tree.nodes_[id].checks, tree.nodes_[id].tagged_checks}) {
      for (int32_t at = head; at >= 0; at = tree.checks_[at].next) visit(tree.checks_[at]);
    }
  }

  // At the end, also beside one that is reached alike: keys that are equal, and another object each where
  // they were recorded, can be the same one here.
  static void add_node(GuardTree& tree, NodeId parent, Step step, PyObject* key, int32_t index) {
    tree.plan_.ready = false;
    tree.nodes_.push_back(Node{step, parent, index, Ref::share(key)});
  }
  // What the last node reaches, given what its parents reached; borrowed, null when it is not there.
  static PyObject* reach_last(GuardTree& tree, PyObject* const* args, size_t nargs) {
    tree.values_.resize(tree.nodes_.size() - 1);
    PyObject* found = tree.fetch(tree.nodes_.back(), args, nargs);
    tree.values_.push_back(found);
    return found;
  }
  static const std::vector<PyObject*>& values(const GuardTree& tree) { return tree.values_; }
  // Adds the check and says whether it holds for the object.
  static bool add(GuardTree& tree, NodeId id, CheckKind kind, int32_t number, Ref operand, Ref second,
                  PyObject* object) {
    Check& added = tree.add_check(id, kind);
    added.number = number;
    added.operand = std::move(operand);
    added.second = std::move(second);
    return tree.holds(tree.nodes_[id], added, object);
  }
  static const Check& last_check(const GuardTree& tree) { return tree.checks_.back(); }
  static int32_t add_meta(GuardTree& tree, TensorMeta meta) { return tree.add_meta(std::move(meta)); }
  static int32_t add_plain_call(GuardTree& tree) {
    tree.plain_calls_.emplace_back();
    return static_cast<int32_t>(tree.plain_calls_.size()) - 1;
  }
  // What the check that failed in the last evaluation met instead; to be asked right behind it.
  static Found found_instead(const GuardTree& tree);
  static void forget_values(GuardTree& tree) {
    tree.values_.clear();
    tree.temporaries_.clear();
  }
};

}  // namespace flashpoint
