#include "driver/capture.h"

#include <ATen/ATen.h>

#include "backend/eager/program.h"
#include "backend/native/program.h"
#include "base/check.h"
#include "base/counters.h"
#include "eval/thread_context.h"
#include "ir/schema.h"
#include "ir/verifier.h"
#include "py/frame.h"
#include "py/torch_bridge.h"
#include "record/graph_recorder.h"
#include "record/recorder.h"
#include "record/tracer_mode.h"

namespace flashpoint {

namespace {

thread_local Recorder* active = nullptr;

// A pending Python error, put aside while our own code runs.
class SavedError {
 public:
  SavedError() { PyErr_Fetch(&type_, &value_, &traceback_); }
  ~SavedError() { PyErr_Restore(type_, value_, traceback_); }
  SavedError(const SavedError&) = delete;
  SavedError& operator=(const SavedError&) = delete;

 private:
  PyObject *type_, *value_, *traceback_;
};

// True when an operation that may raise on tensor values follows a write to an input.
bool failure_after_mutation(const ir::Graph& graph) {
  bool mutated = false;
  for (const ir::Node& node : graph.nodes) {
    if (mutated && ir::traits_of(graph.ops[node.op]).raises_on_values) return true;
    mutated = mutated || !node.mutates.empty();
  }
  return false;
}

void finish(Recorder& recorder, GraphRecorder& graph_recorder, const GlobalState& before,
            PyObject* const* args, size_t total, PyObject* result, const CaptureOptions& options,
            Capture& out) {
  const GlobalState after = GlobalState::now();
  int8_t grad_after = -1;
  if (!(after == before)) {
    if (!after.differs_only_in_grad_mode(before)) return recorder.end(Break::k_global_state, after.text());
    // The dispatch keys do not depend on the grad mode.
    grad_after = after.grad_mode ? 1 : 0;
  }
  RecipeWriter writer(recorder);
  RecipeValue result_recipe = writer.describe(result);
  std::vector<PlannedEffect> effects;
  if (!writer.failure().empty() || !writer.describe_effects(effects)) {
    return recorder.end(graph_recorder.broken() ? Break::k_graph : Break::k_unsupported_escape,
                        graph_recorder.broken() ? graph_break_text(graph_recorder) : writer.failure());
  }
  auto graph = graph_recorder.finish();
  if (!graph) return recorder.end(Break::k_graph, graph_break_text(graph_recorder));
  if (options.verify || strict_mode()) {
    const std::string violation = ir::verify(*graph);
    FP_CHECK(violation.empty(), violation);
  }
  if (failure_after_mutation(*graph)) return recorder.end(Break::k_mutation_may_fail);
  recorder.finish_aliases();
  std::vector<bool> skip = recorder.audit_skips();
  std::vector<NodeId> mutated;
  for (ir::ValueId value : graph->mutated_inputs()) {
    for (const ir::Input& input : graph->inputs) {
      if (input.value == value) mutated.push_back(input.source);
    }
  }
  skip.resize(recorder.tree().size());
  for (NodeId node : mutated) skip[node] = true;
  // With memory shared between a mutated tensor and another the entry could never be used.
  for (NodeId node : mutated) {
    for (NodeId other : recorder.tensor_nodes()) {
      if (node != other && tensors_overlap(recorder.object_of(node), recorder.object_of(other))) {
        return recorder.end(Break::k_overlap);
      }
    }
  }
  if (!recorder.tree().audit(args, total, skip)) {
    return recorder.end(Break::k_audit, recorder.tree().explain_failure());
  }
  std::unique_ptr<GraphProgram> program;
  if (options.backend == Backend::kNative) {
    native::ScheduleOptions program_options;
    program_options.poison_empty = options.poison_empty;
    program = native::compile(*graph, program_options);
  } else {
    eager::Options program_options;
    program_options.poison_empty = options.poison_empty;
    program = std::make_unique<eager::Program>(eager::compile(*graph, program_options));
  }
  const auto& nodes = recorder.tensor_nodes();
  out.entry =
      std::make_unique<Entry>(std::move(recorder.tree()), before, std::move(graph), std::move(program),
                              writer.take(), std::move(effects), std::move(result_recipe));
  out.entry->tensor_nodes = nodes;
  out.entry->mutated_nodes = std::move(mutated);
  out.entry->grad_mode_after = grad_after;
}

}  // namespace

bool capturing() { return active != nullptr; }

Capture capture(PyObject* function, PyObject* const* args, size_t nargs, PyObject* kwnames,
                const CaptureOptions& options) {
  Capture out;
  ++counters().captures_started;
  const size_t total = nargs + (kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames));
  const GlobalState before = GlobalState::now();
  GraphRecorder::Options graph_options;
  graph_options.observing = &thread_context().armed;
  GraphRecorder graph_recorder(graph_options);
  Recorder recorder(graph_recorder, function, args, total);
  recorder.answers_tracing_queries = options.tracing_state_queries;
  recorder.fail_at_event = options.fail_at_event;
  recorder.on_end = [] {
    thread_context().observer = nullptr;
    if (active == nullptr) return;
    active->graph().break_off(GraphBreak::stopped, "the recording ended");
    active->graph().forget_tensors();
    // What runs from here on must not see our dispatch key: torch.compile guards on it.
    if (is_dispatch_enabled()) set_dispatch_enabled(false);
  };
  const uint64_t suspensions = hook_suspensions();
  if (recorder.ended()) {
    out.result = PyObject_Vectorcall(function, args, nargs, kwnames);
  } else {
    Recorder* outer = std::exchange(active, &recorder);
    ArmedScope armed(&recorder);
    {
      TracerScope tracing(&graph_recorder);
      out.result = PyObject_Vectorcall(function, args, nargs, kwnames);
    }
    thread_context().observer = nullptr;
    active = outer;
  }
  SavedError error;
  DisarmedScope disarmed;
  if (hook_suspensions() != suspensions) recorder.end(Break::k_foreign_frame, "near the end of the C stack");
  if (graph_recorder.broken()) recorder.end(Break::k_graph, graph_break_text(graph_recorder));
  if (out.result == nullptr) recorder.end(Break::k_exception);
  if (!recorder.ended()) {
    try {
      finish(recorder, graph_recorder, before, args, total, out.result, options, out);
    } catch (const std::exception& e) {
      if (strict_mode()) check_failed("finishing a recording threw", __FILE__, __LINE__, e.what());
      out.entry.reset();
      recorder.end(Break::k_internal, e.what());
      ++counters().internal_errors;
    }
  }
  counters().ops_recorded += graph_recorder.node_count();
  if (out.entry) {
    out.entry->positional = nargs;
    out.entry->kwnames = Ref::share(kwnames);
    if (recorder.reads_abc_registry) out.entry->abc_token = abc_token();
    ++counters().captures_kept;
  } else {
    out.report = recorder.report();
    ++counters().captures_dropped;
  }
  return out;
}

}  // namespace flashpoint
