#include "driver/entry.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cstdlib>

#include "backend/eager/program.h"
#include "base/check.h"
#include "base/counters.h"
#include "driver/guard_errors.h"
#include "ir/schema.h"
#include "py/generators.h"
#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/visible_death.h"
#include "replay/scalar_program.h"

namespace flashpoint {

namespace {

constexpr const char* kGlobalState = "global state";

void visit_recipe(const RecipeValue& v, std::vector<NodeId>& nodes) {
  if (v.kind == RecipeValue::Kind::kNode) nodes.push_back(v.index);
}

}  // namespace

Entry::Entry(GuardTree tree, GlobalState state, std::unique_ptr<ir::Graph> graph,
             std::unique_ptr<GraphProgram> program, std::vector<MadeObject> recipes,
             std::vector<PlannedEffect> effects, RecipeValue result)
    : tree_(std::move(tree)),
      state_(state),
      graph_(std::move(graph)),
      program_(std::move(program)),
      recipes_(std::move(recipes)),
      effects_(std::move(effects)),
      result_(std::move(result)) {
  for (const ir::Op& op : graph_->ops) draws_random_ = draws_random_ || ir::traits_of(op).rng;
}

void Entry::finish() {
  tree_.let_go();  // of the closing audit
  visit_recipe(result_, kept_nodes_);
  if (suspension) {
    visit_recipe(suspension->handled, kept_nodes_);
    for (const FramePlan& f : suspension->frames) {
      visit_recipe(f.function, kept_nodes_);
      visit_recipe(f.self, kept_nodes_);
      for (const RecipeValue& v : f.slots) visit_recipe(v, kept_nodes_);
    }
  }
  for (const PlannedEffect& e : effects_) {
    if (e.owner != kNoNode) kept_nodes_.push_back(e.owner);
    for (const RecipeValue& v : e.items) visit_recipe(v, kept_nodes_);
  }
  for (const MadeObject& m : recipes_) {
    for (const RecipeValue& v : m.items) visit_recipe(v, kept_nodes_);
    for (const auto& [name, v] : m.attributes) visit_recipe(v, kept_nodes_);
    for (const auto& [slot, v] : m.slots) visit_recipe(v, kept_nodes_);
  }
  for (const ir::Input& input : graph_->inputs) {
    if (!is_number(input)) kept_nodes_.push_back(input.source);
  }
  std::sort(kept_nodes_.begin(), kept_nodes_.end());
  kept_nodes_.erase(std::unique(kept_nodes_.begin(), kept_nodes_.end()), kept_nodes_.end());
}

void Entry::add_sites(const std::vector<ProgramPosition>& sites) {
  for (const ProgramPosition& site : sites) {
    auto* code = static_cast<PyObject*>(const_cast<void*>(site.code));
    sites_.push_back({Ref::share(code), static_cast<size_t>(site.instruction)});
  }
}

const ExpectationSite* Entry::unexpected_site() const {
  const auto i = static_cast<size_t>(unexpected_);
  return unexpected_ < 0 || i >= sites_.size() || !sites_[i].code ? nullptr : &sites_[i];
}

std::string Entry::describe_site() const {
  const ExpectationSite* site = unexpected_site();
  if (site == nullptr) return "a tensor's value";
  auto* code = reinterpret_cast<PyCodeObject*>(site->code.get());
  const char* file = PyUnicode_AsUTF8(code->co_filename);
  return std::string("a tensor's value, read at ") + (file == nullptr ? "?" : file) + ":" +
         std::to_string(PyCode_Addr2Line(code, static_cast<int>(site->instruction)));
}

namespace {

// No tensor twice, and none that shares memory with one that is written to. With many of them: by storage.
bool are_distinct(const std::vector<PyObject*>& values, const std::vector<NodeId>& tensors,
                  const std::vector<NodeId>& mutated) {
  std::vector<std::pair<const void*, NodeId>> by_storage;
  by_storage.reserve(tensors.size());
  for (NodeId node : tensors) {
    c10::TensorImpl* impl = tensor_impl(values[node]);
    by_storage.emplace_back(impl->has_storage() ? impl->unsafe_storage().unsafeGetStorageImpl() : nullptr,
                            node);
  }
  std::sort(by_storage.begin(), by_storage.end());
  const auto is_mutated = [&](NodeId node) {
    return std::find(mutated.begin(), mutated.end(), node) != mutated.end();
  };
  for (size_t i = 0; i < by_storage.size(); ++i) {
    for (size_t k = i + 1; k < by_storage.size() && by_storage[k].first == by_storage[i].first; ++k) {
      const NodeId a = by_storage[i].second, b = by_storage[k].second;
      if (values[a] == values[b]) return false;
      if (tensors_overlap(values[a], values[b]) && (is_mutated(a) || is_mutated(b))) return false;
    }
  }
  return true;
}

// Of a number among the graph's outputs.
PyObject* python_number(const at::Tensor& number) {
  if (number.scalar_type() == c10::kLong) return PyLong_FromLongLong(*number.const_data_ptr<int64_t>());
  return PyFloat_FromDouble(*number.const_data_ptr<double>());
}

}  // namespace

bool Entry::overlaps() const {
  const auto& values = tree_.values();
  if (distinct_tensors) return !are_distinct(values, tensor_nodes, mutated_nodes);
  for (NodeId mutated : mutated_nodes) {
    for (NodeId other : tensor_nodes) {
      if (other != mutated && values[other] != values[mutated] &&
          tensors_overlap(values[mutated], values[other])) {
        return true;
      }
      if (other != mutated && values[other] == values[mutated]) return true;
    }
  }
  return false;
}

at::Tensor Entry::number(const NumberInput& input, const std::vector<Ref>& scalars) const {
  const ScalarOperand& from = input.from;
  PyObject* value = from.kind == ScalarOperand::Kind::kConstant ? from.constant.get()
                    : from.kind == ScalarOperand::Kind::kNode   ? tree_.values()[from.index]
                                                                : scalars[from.index].get();
  c10::IValue number;
  if (input.is_float) {
    number = PyFloat_AsDouble(value);
  } else {
    number = static_cast<int64_t>(PyLong_AsLongLong(value));
  }
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    return {};
  }
  return eager::make_wrapped(number);
}

bool Entry::build_frames(BuildContext& context, BuiltStack& stack) const {
  if (!build_slot(context, suspension->handled, &stack.handled)) return false;
  for (const FramePlan& plan : suspension->frames) {
    BuiltFrame& frame = stack.frames.emplace_back();
    if (!build_slot(context, plan.function, &frame.function) || !build_slot(context, plan.self, &frame.self))
      return false;
    frame.slots.resize(plan.slots.size());
    for (size_t i = 0; i < plan.slots.size(); ++i) {
      if (!build_slot(context, plan.slots[i], &frame.slots[i])) return false;
    }
  }
  return true;
}

// The step that came out otherwise: what it asked, of what, and what the operands were this time.
std::string Entry::describe_decision(const std::vector<Ref>& scalars) const {
  static const char* const kComparisons[] = {"<", "<=", "==", "!=", ">", ">="};
  const ScalarStep& step = scalar_steps[scalars.size()];
  const auto show = [](PyObject* o) {
    const Ref text = Ref::steal(PyObject_Repr(o));
    const char* utf8 = text ? PyUnicode_AsUTF8(text.get()) : nullptr;
    if (utf8 == nullptr) PyErr_Clear();
    return std::string(utf8 == nullptr ? "?" : utf8);
  };
  std::vector<std::string> names;
  std::string met, guard;
  for (const ScalarOperand& o : step.operands) {
    if (o.kind == ScalarOperand::Kind::kConstant) {
      names.push_back(show(o.constant.get()));
      continue;
    }
    const bool node = o.kind == ScalarOperand::Kind::kNode;
    names.push_back(node ? tree_.path(o.index) : "a result");
    if (node && guard.empty()) guard = names.back();
    met += (met.empty() ? "" : ", ") + show(node ? tree_.values()[o.index] : scalars[o.index].get());
  }
  std::string asked;
  if (step.kind == ScalarStep::Kind::kCompare && names.size() == 2 && step.detail >= 0 && step.detail < 6) {
    asked = names[0] + " " + kComparisons[step.detail] + " " + names[1];
  } else {
    for (const std::string& name : names) asked += (asked.empty() ? "" : ", ") + name;
    if (step.callable) asked = show(step.callable.get()) + " of " + asked;
  }
  return "a decision by a number: " + asked + " was " +
         (step.type == &PyBool_Type ? step.expected ? "True" : "False" : step.type->tp_name) + ", found " +
         met + describe_argument(guard);
}

// Which parameter the guard of an argument is about, and where the function stands.
std::string Entry::describe_argument(const std::string& guard) const {
  if (function == nullptr || !PyFunction_Check(function) || guard.rfind("arg", 0) != 0) return "";
  auto* code = reinterpret_cast<PyCodeObject*>(PyFunction_GET_CODE(function));
  const size_t index = std::strtoul(guard.c_str() + 3, nullptr, 10);
  PyObject* name = nullptr;
  if (index >= positional) {
    const auto named = static_cast<Py_ssize_t>(index - positional);
    if (kwnames && named < PyTuple_GET_SIZE(kwnames.get())) name = PyTuple_GET_ITEM(kwnames.get(), named);
  } else if (index < static_cast<size_t>(code->co_argcount)) {
    name = PyTuple_GET_ITEM(code->co_localsplusnames, static_cast<Py_ssize_t>(index));
  }
  const char* text = name == nullptr ? nullptr : PyUnicode_AsUTF8(name);
  const char* file = PyUnicode_AsUTF8(code->co_filename);
  if (text == nullptr || file == nullptr) return PyErr_Clear(), "";
  return std::string(" (") + text + " of " + file + ":" + std::to_string(code->co_firstlineno) + ")";
}

std::string Entry::explain_miss() const {
  if (last_miss_.empty()) {
    const std::string guard = tree_.explain_failure();
    const std::string now = found_.text();
    return guard + (now.empty() ? "" : ", found " + now) + describe_argument(guard);
  }
  return last_miss_ == kGlobalState ? last_miss_ + ": " + state_.changes(missed_state_) : last_miss_;
}

bool Entry::fits(PyObject* const* args, size_t nargs, PyObject* names, const GlobalState& now,
                 const OuterHandling& outer) {
  const size_t total = nargs + (names == nullptr ? 0 : PyTuple_GET_SIZE(names));
  auto miss = [&](const char* why) {
    last_miss_ = why;
    return false;
  };
  if (nargs != positional) return miss("number of positional arguments");
  if (names != kwnames.get()) {
    if (names == nullptr || !kwnames || PyObject_RichCompareBool(names, kwnames.get(), Py_EQ) != 1) {
      PyErr_Clear();
      return miss("names of keyword arguments");
    }
  }
  if (!state_.holds(now, any_higher_recursion_limit)) {
    missed_state_ = now;
    return miss(kGlobalState);
  }
  if (outer_kind && *outer_kind != outer.kind()) return miss("whether an exception is being handled");
  if (distinct_tensors && !autograd_is_plain()) return miss("hooks on saved tensors, or forward AD");
  if (abc_token != 0 && abc_token != flashpoint::abc_token())
    return miss("abstract base class registrations");
  try {
    if (fail_at_guards != 0 && --fail_at_guards == 0) throw std::runtime_error("injected");
    if (!tree_.evaluate(args, total)) {
      last_miss_.clear();  // explained on demand from the tree
      found_ = tells_what_it_met ? GuardAccess::found_instead(tree_) : Found();
      return false;
    }
    if ((distinct_tensors || !mutated_nodes.empty()) && overlaps())
      return miss("overlapping memory of mutated tensors");
    // What a generator holds is let go of when everything else is done.
    for (const PlannedEffect& effect : effects_) {
      if (effect.kind == EffectKind::kGenerator &&
          dies_visibly(py::generator_slots(tree_.values()[effect.owner])))
        return miss("a generator that holds what would be seen to live longer");
    }
  } catch (const std::exception& error) {
    PyErr_Clear();
    report_guard_error(*this, error.what());
    return miss("an error while its guards were evaluated");
  }
  return true;
}

Outcome Entry::call(PyObject* const* args, size_t nargs, PyObject* names, const GlobalState& now,
                    const OuterHandling& outer, PyObject** result, BuiltStack* stack) {
  *result = nullptr;
  unexpected_ = -1;
  struct LetGo {
    GuardTree& tree;
    ~LetGo() { tree.let_go(); }
  } const at_the_end{tree_};
  if (!fits(args, nargs, names, now, outer)) return Outcome::kMiss;

  std::vector<Ref> scalars;
  if (!scalar_steps.empty()) {
    const ScalarOutcome outcome = run_scalars(scalar_steps, tree_.values(), scalars);
    if (outcome == ScalarOutcome::kDiffers) {
      last_miss_ = tells_what_it_met ? describe_decision(scalars) : "a decision by a number";
      return Outcome::kMiss;
    }
    if (outcome == ScalarOutcome::kFailed) {
      ++counters().restarts;
      return Outcome::kRestart;
    }
  }

  // Nothing of what replay refers to may die while effects are committed.
  std::vector<Ref> kept;
  kept.reserve(kept_nodes_.size());
  std::vector<PyObject*> nodes;
  const bool needs_nodes =
      suspension || !effects_.empty() || !recipes_.empty() || result_.kind == RecipeValue::Kind::kNode;
  for (NodeId node : kept_nodes_) kept.push_back(Ref::share(tree_.values()[node]));
  if (needs_nodes) nodes = tree_.values();
  std::vector<at::Tensor> inputs;
  inputs.reserve(graph_->inputs.size());
  for (const ir::Input& input : graph_->inputs) {
    if (!is_number(input)) {
      inputs.push_back(unpack_tensor(tree_.values()[input.source]));
      continue;
    }
    inputs.push_back(number(numbers[static_cast<size_t>(input.source)], scalars));
    if (!inputs.back().defined()) {
      ++counters().restarts;
      return Outcome::kRestart;
    }
  }

  at::Tensor random_state;
  if (draws_random_) random_state = at::detail::getDefaultCPUGenerator().get_state();
  std::vector<at::Tensor> outputs;
  RunStatus status;
  try {
    PyThreadState* saved = PyEval_SaveThread();
    try {
      outputs = program_->run(inputs, &status);
    } catch (...) {
      PyEval_RestoreThread(saved);
      throw;
    }
    PyEval_RestoreThread(saved);
  } catch (const UnexpectedValue& e) {
    FP_CHECK(!status.visible_mutation, "an expectation behind a visible write");
    if (draws_random_) at::Generator(at::detail::getDefaultCPUGenerator()).set_state(random_state);
    ++counters().unexpected_values;
    ++unexpected_count_;
    unexpected_ = e.site;
    last_miss_ = describe_site();
    return Outcome::kMiss;
  } catch (...) {
    if (!status.visible_mutation) {
      if (draws_random_) at::Generator(at::detail::getDefaultCPUGenerator()).set_state(random_state);
      ++counters().restarts;
      return Outcome::kRestart;
    }
    set_python_error(std::current_exception());
    return Outcome::kDone;
  }
  inputs.clear();
  counters().ops_replayed += program_->node_count();
  counters().kernels_run += status.kernels;
  for (const SpentHistory& history : histories)
    outputs[static_cast<size_t>(history.output)] =
        with_history(outputs[static_cast<size_t>(history.output)], history);
  std::vector<Ref> tensors;
  tensors.reserve(outputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    const ir::ValueKind kind = graph_->values[static_cast<size_t>(graph_->outputs[i])].kind;
    tensors.push_back(
        Ref::steal(kind == ir::ValueKind::kTensor ? wrap_tensor(outputs[i]) : python_number(outputs[i])));
  }
  outputs.clear();
  BuildContext context{nodes, tensors, recipes_, scalars, {}, outer, stack};
  if (!build_hashed(context)) {
    if (status.visible_mutation) return Outcome::kDone;
    PyErr_Clear();
    if (draws_random_) at::Generator(at::detail::getDefaultCPUGenerator()).set_state(random_state);
    ++counters().restarts;
    return Outcome::kRestart;
  }
  if (!commit(context, effects_)) return Outcome::kDone;
  if (suspension) {
    if (!build_frames(context, *stack)) stack->frames.clear();
  } else {
    *result = build(context, result_);
  }
  if (state_after) state_after->enter_regions();
  return Outcome::kDone;
}

int Entry::traverse(visitproc visit, void* arg) const {
  if (const int r = tree_.traverse(visit, arg)) return r;
  Py_VISIT(kwnames.get());
  Py_VISIT(backend_callable.get());
  auto value = [&](const RecipeValue& v) -> int {
    Py_VISIT(v.constant.get());
    return 0;
  };
  if (const int r = value(result_)) return r;
  if (suspension) {
    for (const FramePlan& f : suspension->frames) {
      if (const int r = value(f.function)) return r;
      for (const RecipeValue& v : f.slots) {
        if (const int r = value(v)) return r;
      }
    }
  }
  for (const ScalarStep& step : scalar_steps) Py_VISIT(step.callable.get());
  for (const PlannedEffect& e : effects_) {
    Py_VISIT(e.key.get());
    for (const RecipeValue& v : e.items) {
      if (const int r = value(v)) return r;
    }
  }
  for (const MadeObject& m : recipes_) {
    Py_VISIT(m.type.get());
    for (const RecipeValue& v : m.items) {
      if (const int r = value(v)) return r;
    }
    for (const auto* list : {&m.attributes, &m.slots}) {
      for (const auto& [name, v] : *list) {
        if (const int r = value(v)) return r;
      }
    }
  }
  return 0;
}

}  // namespace flashpoint
