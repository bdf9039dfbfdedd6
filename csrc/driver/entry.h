// One compiled specialization of a callable: guards, graph, program, recipes, effects.
//
// An entry answers a call in three steps: the guards fetch its inputs, the program runs on them, and then
// the effects are committed and the result is built. Nothing is visible to the program before the graph
// has run, except writes of the graph itself to tensors that existed before.
//
// Ownership: owned by the CompiledFunction. GIL: required.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/program.h"
#include "guard/global_state.h"
#include "guard/guard_access.h"
#include "guard/guard_tree.h"
#include "ir/graph.h"
#include "record/call_trace.h"
#include "record/op_log.h"
#include "replay/recipe.h"

namespace flashpoint {

enum class Outcome : uint8_t {
  kMiss,     // the guards do not hold
  kDone,     // result is the call's result, or null with the Python error set
  kRestart,  // the program failed before anything was visible: run eagerly
};

// The instruction that made a recording expect a value.
struct ExpectationSite {
  Ref code;
  size_t instruction;
};

class Entry {
 public:
  Entry(GuardTree tree, GlobalState state, std::unique_ptr<ir::Graph> graph,
        std::unique_ptr<GraphProgram> program, std::vector<MadeObject> recipes,
        std::vector<PlannedEffect> effects, RecipeValue result);

  // outer: what was being handled when the function was called.
  Outcome call(PyObject* const* args, size_t nargs, PyObject* kwnames, const GlobalState& now,
               const OuterHandling& outer, PyObject** result, BuiltStack* stack);
  // The first thing call() does: whether the guards hold. let_go() when that is all that was wanted.
  bool fits(PyObject* const* args, size_t nargs, PyObject* kwnames, const GlobalState& now,
            const OuterHandling& outer);
  void let_go() { tree_.let_go(); }

  // The names of keyword arguments of the call (tuple or null) and how many positional ones there were.
  Ref kwnames;
  size_t positional = 0;
  uint64_t abc_token = 0;                  // 0: no abstract base class was asked
  bool any_higher_recursion_limit = true;  // is as good as the one that was recorded under
  PyObject* function = nullptr;            // that was recorded from its start; the guards keep it alive
  std::string compile_id;                  // of the code object, and of the entry among its entries
  std::optional<GlobalState> state_after;  // where it differs
  std::optional<uint8_t> outer_kind;       // OuterHandling::kind(), where it matters
  Ref backend_callable;                    // what the program calls, where a Python backend compiled it
  // Set when the recording ended at a break: then a call gives these frames instead of a result.
  std::unique_ptr<Suspension> suspension;
  std::vector<SpentHistory> histories;  // of outputs
  bool distinct_tensors = false;        // no two of them may be one tensor
  std::vector<NodeId> tensor_nodes;     // all guarded tensors, for overlap guards
  std::vector<NodeId> mutated_nodes;    // those the graph writes to
  // The entry that ran behind this one's break the last time.
  std::weak_ptr<Entry> successor;
  std::vector<ScalarStep> scalar_steps;
  std::vector<NumberInput> numbers;             // by the source of the graph's number inputs
  std::vector<std::pair<int32_t, Ref>> pinned;  // arguments guarded by value, and that value

  const GuardTree& guards() const { return tree_; }
  bool expects_other_slice(size_t argument, PyObject* now) const {
    return tree_.expects_other_slice(argument, now);
  }
  void changed_numbers(PyObject* const* args, size_t nargs, std::unordered_set<std::string>& places) {
    tree_.changed_numbers(args, nargs, places);
  }
  const ir::Graph& graph() const { return *graph_; }
  const GlobalState& state() const { return state_; }
  size_t effect_count() const { return effects_.size(); }
  std::string explain_miss() const;  // why the last call missed
  int traverse(visitproc visit, void* arg) const;
  void add_sites(const std::vector<ProgramPosition>& sites);
  // The last call missed because of a value met here; else null. And how often that has happened.
  const ExpectationSite* unexpected_site() const;
  uint64_t unexpected_count() const { return unexpected_count_; }
  // Once, when everything is in place.
  void finish();

  // For the store: the code objects that were evaluated, and why no other process may use the entry (null: it
  // may, as far as the recording knows).
  std::vector<Ref> codes;
  std::vector<std::pair<Ref, Ref>> class_questions;  // abstract base classes, and what they were asked about
  const char* process_local = nullptr;
  std::unique_ptr<KeptTrace> trace;  // of a graph for Python backends, until the store has it
  bool tells_what_it_met = true;     // after a miss, at the cost of looking
  bool kept = false;                 // handed to the store, or refused by it
  double recorded_us = -1;           // what recording took, the program itself included; negative: loaded
  const void* loaded_by = nullptr;   // the CodeState that got it from the store, for identity only
  int loaded_backend = 0;            // that it was made with: backend_number()

 private:
  friend struct EntryAccess;
  bool overlaps() const;
  bool is_number(const ir::Input& input) const {
    return graph_->values[static_cast<size_t>(input.value)].kind != ir::ValueKind::kTensor;
  }
  // Null where it does not fit the operator's type.
  at::Tensor number(const NumberInput& input, const std::vector<Ref>& scalars) const;
  std::string describe_site() const;
  std::string describe_decision(const std::vector<Ref>& scalars) const;
  std::string describe_argument(const std::string& guard) const;
  bool build_frames(BuildContext& context, BuiltStack& stack) const;

  GuardTree tree_;
  GlobalState state_;
  std::unique_ptr<ir::Graph> graph_;
  std::unique_ptr<GraphProgram> program_;
  std::vector<MadeObject> recipes_;
  std::vector<PlannedEffect> effects_;
  RecipeValue result_;
  std::vector<NodeId> kept_nodes_;  // nodes that recipes and effects refer to
  std::vector<ExpectationSite> sites_;
  int32_t unexpected_ = -1;
  uint64_t unexpected_count_ = 0;
  bool draws_random_ = false;
  std::string last_miss_;
  Found found_;               // where the tree says why
  GlobalState missed_state_;  // described on demand
};

}  // namespace flashpoint
