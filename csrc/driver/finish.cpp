// The end of a recording: what was noted becomes an entry, or the reason why it cannot.
#include <algorithm>
#include <utility>

#include "backend/eager/program.h"
#include "backend/fx/python_program.h"
#include "backend/native/program.h"
#include "base/check.h"
#include "base/counters.h"
#include "driver/fx_backend.h"
#include "driver/host_function.h"
#include "driver/recording.h"
#include "driver/session.h"
#include "eval/thread_context.h"
#include "guard/forward_ad.h"
#include "ir/schema.h"
#include "ir/verifier.h"
#include "py/torch_bridge.h"
#include "record/recorder.h"
#include "record/regions.h"

namespace flashpoint {

PyObject* dead_slot() {
  static char address;
  return reinterpret_cast<PyObject*>(&address);
}

std::unique_ptr<Entry> Session::finish(PyObject* result, std::unique_ptr<Suspension> suspension,
                                       const std::vector<Slots>& slots) {
  Recording& r = *recording_;
  Recorder& recorder = *r.recorder;
  counters().ops_recorded += r.graph.node_count();
  if (hook_suspensions() != r.suspensions)
    recorder.end(Break::k_foreign_frame, "near the end of the C stack");
  if (r.graph.broken()) recorder.end(Break::k_graph, graph_break_text(r.graph));
  if (recorder.ended()) return nullptr;
  try {
    const GlobalState after = GlobalState::now();
    // A whole function leaves regions as it found them; behind a break it may leave one.
    const bool in_region = suspension && open_inference_region(recorder.serial) != nullptr;
    const bool restorable = in_region ? after.with_inference_of(r.before).differs_only_in_regions(r.before)
                            : suspension || !r.key.empty() ? after.differs_only_in_regions(r.before)
                                                           : after.differs_only_in_settings(r.before);
    if (!(after == r.before) && !restorable) {
      recorder.end(Break::k_global_state, r.before.changes(after));
      return nullptr;
    }
    if (!global_state_supported() || in_forward_ad() != in_forward_ad_) {
      recorder.end(Break::k_global_state, "a mode was left on");
      return nullptr;
    }
    if (!recorder.histories_hold()) {
      recorder.end(Break::k_foreign_history, "the history of a tensor from outside was changed");
      return nullptr;
    }
    RecipeWriter writer(recorder);
    RecipeValue result_recipe;
    if (suspension) {
      writer.running = r.running;
      if (PyObject* handled = handled_in(outer_); handled != r.handled_before) {
        recorder.sees_outer = true;
        suspension->handled = handled == nullptr ? RecipeValue{} : writer.describe(handled);
      }
      for (size_t i = 0; i < slots.size(); ++i) {
        const auto describe = [&](const Slot& slot) {
          return slot.value == nullptr ? RecipeValue{} : writer.describe(slot.value, slot.tag);
        };
        FramePlan& f = suspension->frames[i];
        f.function = describe(slots[i][0]);
        f.self = describe(slots[i][1]);
        for (size_t s = 2; s < slots[i].size(); ++s) {
          const bool dead = slots[i][s].value == dead_slot();
          f.slots.push_back(dead ? RecipeValue{RecipeValue::Kind::kKeep, 0, Ref()} : describe(slots[i][s]));
        }
      }
    } else {
      result_recipe = writer.describe(result, recorder.shadow().result_tag());
    }
    std::vector<PlannedEffect> effects;
    if (!writer.failure().empty() || !writer.describe_effects(effects)) {
      recorder.end(r.graph.broken() ? Break::k_graph : Break::k_unsupported_escape,
                   r.graph.broken() ? graph_break_text(r.graph) : writer.failure());
      return nullptr;
    }
    if (in_region != writer.enters_inference) {
      recorder.end(Break::k_global_state, "a region of inference mode that nothing in the frames keeps open");
      return nullptr;
    }
    auto graph = r.graph.finish();
    if (!graph) {
      recorder.end(Break::k_graph, graph_break_text(r.graph));
      return nullptr;
    }
    if (options_.verify || strict_mode()) {
      const std::string violation = ir::verify(*graph);
      FP_CHECK(violation.empty(), violation);
    }
    if (r.graph.may_fail_after_write()) {
      // The next recording breaks there: what comes behind has no write before it.
      const ProgramPosition at = r.graph.failing_position();
      if (at.code != nullptr && !state_->fullgraph)
        remember(static_cast<PyCodeObject*>(const_cast<void*>(at.code)), static_cast<size_t>(at.instruction));
      recorder.end(Break::k_mutation_may_fail, r.graph.failing_operator());
      return nullptr;
    }
    recorder.shadow().finish();
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
    const std::vector<PyObject*> objects = recorder.objects();
    const auto object_of = [&](NodeId node) { return objects[static_cast<size_t>(node)]; };
    // With memory shared between a mutated tensor and another the entry could never be used.
    for (NodeId node : mutated) {
      for (NodeId other : recorder.tensor_nodes()) {
        if (node != other && tensors_overlap(object_of(node), object_of(other))) {
          recorder.end(Break::k_overlap);
          return nullptr;
        }
      }
    }
    if (!recorder.tree().audit(r.arg_pointers.data(), r.arg_pointers.size(), skip)) {
      recorder.end(Break::k_audit, recorder.tree().explain_failure());
      return nullptr;
    }
    std::vector<HostedCall> hosted_calls = recorder.take_hosted_calls();
    std::unique_ptr<GraphProgram> program;
    Ref compiled = Ref::share(Py_None);
    // As for torch.compile, a graph without operators is none.
    auto trace = r.trace ? std::make_unique<KeptTrace>(r.trace->kept(recorder)) : nullptr;
    if (state_->compiler && !graph->nodes.empty()) {
      const std::vector<NumberInput> numbers = recorder.shadow().numbers();
      const RecordedGraph recorded{
          *graph, recorder.tree(), *trace, hosted_calls, numbers, object_of, [&](int32_t source) {
            return recorder.shadow().number_value(source);
          }};
      PyObject* first = r.arg_pointers.empty() ? nullptr : r.arg_pointers.front();
      const RecordedCall call{r.function.get(), first, r.positional, r.kwnames.get()};
      compiled = compile_graph(state_->compiler.get(), recorded, call, r.before, after);
      if (!compiled) {
        backend_error_.take();
        recorder.end(Break::k_backend_failed);
        return nullptr;
      }
    }
    const auto functions = make_host_functions(std::move(hosted_calls));
    const auto replay = [&] {
      eager::Options program_options;
      program_options.functions = functions;
      program_options.poison_empty = options_.poison_empty;
      return eager::compile_later(*graph, program_options);
    };
    if (compiled.get() != Py_None) {
      program =
          fx::make_program(*graph, compiled.get(), fx::compiles_later(compiled.get()) ? replay() : nullptr);
    } else if (state_->backend == Backend::kNative) {
      native::ScheduleOptions program_options;
      program_options.functions = functions;
      program_options.poison_empty = options_.poison_empty;
      program = native::compile(*graph, program_options);
    } else {
      program = replay();
    }
    auto entry =
        std::make_unique<Entry>(std::move(recorder.tree()), r.before, std::move(graph), std::move(program),
                                writer.take(), std::move(effects), std::move(result_recipe));
    entry->histories = writer.take_histories();
    entry->distinct_tensors = r.graph.is_base();
    if (compiled.get() != Py_None) entry->backend_callable = std::move(compiled);
    if (state_->uses_store) entry->trace = std::move(trace);
    entry->tensor_nodes = recorder.tensor_nodes();
    entry->mutated_nodes = std::move(mutated);
    if (!(after == r.before)) entry->state_after = after;
    entry->numbers = recorder.shadow().numbers();
    entry->scalar_steps = recorder.shadow().table().take_steps();
    recorder.shadow().table().for_each_source([&](NodeId node, PyObject* value, bool pinned) {
      // Numbers found elsewhere are followed by their places.
      const Node& source = entry->guards().node(node);
      if (pinned && source.step == Step::kArg) entry->pinned.emplace_back(source.index, Ref::share(value));
    });
    entry->suspension = std::move(suspension);
    entry->add_sites(r.graph.sites());
    entry->positional = r.positional;
    entry->kwnames = r.kwnames;
    entry->function = r.function.get();
    if (recorder.reads_abc_registry) entry->abc_token = abc_token();
    entry->any_higher_recursion_limit = !recorder.reads_recursion_limit;
    if (recorder.sees_outer) entry->outer_kind = recorder.outer.kind();
    entry->codes = recorder.evaluated_codes();
    entry->class_questions = std::move(recorder.class_questions);
    entry->process_local = recorder.process_local;
    entry->finish();
    using microseconds = std::chrono::duration<double, std::micro>;
    entry->recorded_us = microseconds(std::chrono::steady_clock::now() - r.began).count();
    return entry;
  } catch (const std::exception& e) {
    if (strict_mode()) check_failed("finishing a recording threw", __FILE__, __LINE__, e.what());
    recorder.end(Break::k_internal, e.what());
    ++counters().internal_errors;
    return nullptr;
  }
}

}  // namespace flashpoint
