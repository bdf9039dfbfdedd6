#include "driver/session.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/counters.h"
#include "base/log.h"
#include "driver/position_key.h"
#include "driver/recording.h"
#include "driver/stance.h"
#include "eval/frame_state.h"
#include "eval/liveness.h"
#include "eval/thread_context.h"
#include "guard/forward_ad.h"
#include "ir/printer.h"
#include "py/frame.h"
#include "py/generators.h"
#include "py/saved_error.h"
#include "py/torch_bridge.h"
#include "record/break_details.h"
#include "record/call_trace.h"
#include "record/graph_recorder.h"
#include "record/read_generator.h"
#include "record/regions.h"
#include "record/tracer_mode.h"
#include "record/visible_death.h"

namespace flashpoint {

namespace {

// So many recordings of a whole call have guarded an argument by other values.
constexpr int kOthersAtStart = 3;
constexpr int kOtherTextsAtStart = 6;

thread_local Recorder* active = nullptr;

void log_entry(const std::string& where, const Entry& entry) {
  if (log_enabled(LogKind::kCapture)) {
    log_line("capture " + where + ": " + std::to_string(entry.graph().nodes.size()) + " ops, " +
             std::to_string(entry.guards().check_count()) + " guards, " +
             std::to_string(entry.effect_count()) + " effects" + (entry.suspension ? ", up to a break" : ""));
  }
  if (log_enabled(LogKind::kDumpGraph)) log_line(ir::print(entry.graph()));
  if (log_enabled(LogKind::kDumpGuards)) log_line(entry.guards().text());
}

}  // namespace

bool capturing() { return active != nullptr; }

Session::Session(std::shared_ptr<CodeState> state, const SessionOptions& options)
    : state_(std::move(state)),
      options_(options),
      traced_before_(is_dispatch_enabled()),
      in_forward_ad_(in_forward_ad()),
      outer_(OuterHandling::now()) {}

Session::~Session() {
  recording_.reset();
  // A guard of the thread's dispatch keys (inference mode) that the program took while recording puts back
  // what it found, our key included.
  if (current_sink() != nullptr) return;
  if (keys_were_saved_ && !traced_before_ && is_dispatch_enabled()) set_dispatch_enabled(false);
  clear_base_key();  // functorch, too, puts back what it found
}

PyObject* Session::record(PyObject* function, PyObject* const* args, size_t nargs, PyObject* kwnames) {
  const size_t total = nargs + (kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames));
  std::vector<Ref> kept;
  for (size_t i = 0; i < total; ++i) kept.push_back(Ref::share(args[i]));
  state_->reports.clear();
  state_->costs.clear();
  state_->has_report = true;
  state_->learned_level = false;
  state_->kept_last = true;
  ArmedScope armed(nullptr);
  ThreadContext& context = thread_context();
  context.control = this;
  outermost_ = context.frames_started + 1;
  start_recording(std::move(kept), "", {}, function, nargs, kwnames);
  PyObject* result = PyObject_Vectorcall(function, args, nargs, kwnames);
  finish_call(result);
  return or_backend_error(result);
}

PyObject* Session::resume(const std::shared_ptr<Entry>& entry, BuiltStack stack) {
  last_entry_ = entry;
  ArmedScope armed(nullptr);
  ThreadContext& context = thread_context();
  context.control = this;
  outermost_ = context.frames_started + 1;
  entry_ = entry;
  begin_hand_over();
  plan_ = entry->suspension.get();
  built_ = std::move(stack);
  next_ = 0;
  EvalFrame none;
  PyObject* result = run_callee(none);
  finish_call(result);
  return or_backend_error(result);
}

PyObject* Session::or_backend_error(PyObject* result) {
  if (!backend_error_.held()) return result;
  Py_XDECREF(result);
  backend_error_.raise();
  return nullptr;
}

void Session::start_recording(std::vector<Ref> args, std::string key, Chain chain, PyObject* function,
                              size_t nargs, PyObject* kwnames) {
  PositionEntries& position = key.empty() ? state_->start : state_->positions[key];
  if (position.level == TracerLevel::kBase && !autograd_is_plain()) return give_up();
  ++counters().captures_started;
  GraphRecorder::Options graph_options;
  graph_options.observing = &thread_context().armed;
  graph_options.level = position.level;
  // A backend's graph cannot stop half way where a value differs.
  graph_options.may_stop = !state_->compiler;
  graph_options.expect_values = options_.value_guards && !state_->compiler;
  auto trace = state_->compiler ? std::make_unique<CallTrace>() : nullptr;
  graph_options.positions = trace.get();
  recording_ = std::make_unique<Recording>(graph_options, std::move(trace));
  Recording& r = *recording_;
  r.before = GlobalState::now();
  r.handled_before = handled_in(outer_);
  r.args = std::move(args);
  for (const Ref& arg : r.args) r.arg_pointers.push_back(arg.get());
  r.key = std::move(key);
  r.chain = std::move(chain);
  r.positional = nargs;
  r.kwnames = Ref::share(kwnames);
  r.function = Ref::share(function);
  r.suspensions = hook_suspensions();
  // A number that changes is an input of an FX graph where a tensor may stand for it. Elsewhere it is a
  // break, or, where none may be, a constant of one recording among several. Of a whole call several
  // recordings are worth more than a break.
  const bool fx = static_cast<bool>(state_->compiler);
  const bool at_start = r.key.empty() && !fx;
  const bool breaks_at_numbers = !options_.fullgraph && (options_.resume || !at_start);
  std::vector<bool> varies;
  if (breaks_at_numbers)
    varies = position.varying(r.args, at_start ? kOthersAtStart : 2, at_start ? kOtherTextsAtStart : 2);
  r.recorder =
      std::make_unique<Recorder>(r.graph, function, r.arg_pointers.data(), r.arg_pointers.size(), varies);
  r.recorder->shadow().set_outermost(outermost_);
  r.recorder->shadow().exports_graph = fx;
  if (fx) {
    const std::vector<bool> changed = position.varying(r.args, 1, 1);
    for (size_t i = 0; i < changed.size(); ++i) {
      if (changed[i]) r.recorder->shadow().set_changed(i);
    }
  }
  r.recorder->shadow().captures_scalars = options_.capture_scalars || options_.fullgraph;
  r.recorder->shadow().settles_late = options_.fullgraph;
  std::unordered_set<std::string> changed;
  for (const auto& entry : position.entries) {
    entry->changed_numbers(r.arg_pointers.data(), r.arg_pointers.size(), changed);
  }
  for (const std::string& place : changed) ++position.open_places[place];
  r.recorder->shadow().open_places = &position.open_places;
  r.recorder->shadow().breaks_at_places = options_.resume && !options_.fullgraph;
  if (r.key.empty()) r.recorder->shadow().starts_with(function, nargs, kwnames);
  r.recorder->outer = outer_;
  r.recorder->answers_tracing_queries = options_.tracing_state_queries;
  r.recorder->keeps_slots = !r.chain.empty();
  r.recorder->fail_at_event = options_.fail_at_event;
  r.recorder->break_at_event = options_.break_at_event;
  if (!state_->break_before.empty()) r.recorder->break_before = &state_->break_before;
  if (r.recorder->ended()) {
    const BreakReport report = r.recorder->report();
    dropped(report);
    recording_.reset();
    return give_up();
  }
  r.recorder->sink = this;
  r.recorder->trace = r.trace.get();
  if (r.trace) r.trace->follow(r.recorder.get());
  active = r.recorder.get();
  thread_context().observer = r.recorder.get();
  r.tracer.emplace(&r.graph, position.level);
}

// From here on the program runs unobserved, and nothing of it may see our dispatch key.
void Session::stop_recording() {
  thread_context().observer = nullptr;
  active = nullptr;
  if (GlobalState::now().inference_mode != recording_->before.inference_mode || !global_state_supported() ||
      keeps_inference_region(recording_->recorder->serial))
    keys_were_saved_ = true;
  recording_->tracer.reset();
}

void Session::give_up() {
  off_ = true;
  ThreadContext& context = thread_context();
  if (context.control == this) context.control = nullptr;
}

void Session::dropped(const BreakReport& report) {
  ++counters().captures_dropped;
  state_->kept_last = false;
  PositionEntries& position = recording_->key.empty() ? state_->start : state_->positions[recording_->key];
  if (learn_level(position, report)) return;
  // What was learned makes the next one end in another place.
  const bool ours = report.reason != Break::k_exception && report.reason != Break::k_backend_failed;
  if (ours && !backend_error_.held() && !std::exchange(learned_, false))
    position.drop(std::string(break_message(report.reason)) +
                  (report.detail.empty() ? "" : " (" + report.detail + ")") + " at " + report.location);
}

// Which level the next recording at this position is made at; true when that is another one.
bool Session::learn_level(PositionEntries& position, const BreakReport& report) {
  if (position.level == TracerLevel::kBase) {
    if (report.reason == Break::k_exception) return false;
    position.level = TracerLevel::kComposite;
    return position.base_refused = true;
  }
  if (!may_go_below()) return false;
  // From the start, where that was not tried yet: what is in hand here has a history by now.
  PositionEntries& start = state_->start;
  if (start.base_refused || start.level == TracerLevel::kBase) {
    position.level = TracerLevel::kBase;
    return true;
  }
  start.level = TracerLevel::kBase;
  start.entries.clear();
  start.hits.clear();
  state_->break_before = {};  // some of them were for the first call alone
  return true;
}

// The recording ended at something that one at base level would follow.
bool Session::may_go_below() const {
  if (state_->compiler) return false;  // its graphs are of whole operators
  const PositionEntries& position =
      recording_->key.empty() ? state_->start : state_->positions[recording_->key];
  const bool start_untried = !state_->start.base_refused && state_->start.level != TracerLevel::kBase;
  if (position.level == TracerLevel::kBase || (position.base_refused && !start_untried)) return false;
  switch (recording_->graph.break_reason()) {
    case GraphBreak::autograd_engine:
    case GraphBreak::dispatch_keys:
    case GraphBreak::saved_tensor_hooks:
    case GraphBreak::requires_grad_changed:
    case GraphBreak::forward_ad:
    case GraphBreak::seal_broken:
      return true;
    default:
      return recording_->recorder->wants_base();
  }
}

void Session::finish_call(PyObject* result) {
  if (!recording_ || recording_->recorder->ended()) return;
  stop_recording();
  Recording& r = *recording_;
  SavedError error;
  DisarmedScope disarmed;
  r.recorder->sink = nullptr;
  r.recorder->left();
  if (result == nullptr) r.recorder->end(Break::k_exception);
  std::unique_ptr<Entry> entry = finish(result, nullptr, {});
  if (entry) {
    add(std::move(entry));
  } else {
    const BreakReport report = r.recorder->report();
    state_->reports.push_back(report);
    if (const auto* made = r.recorder->blamed(); made != nullptr && options_.resume)
      remember(made->first, made->second);
    dropped(report);
  }
}

void Session::add(std::unique_ptr<Entry> entry) {
  log_entry(options_.name, *entry);
  PositionEntries& position = recording_->key.empty() ? state_->start : state_->positions[recording_->key];
  position.add(std::move(entry), outermost_);
  has_recorded_ = true;
  ++counters().captures_kept;
  follow(position.entries.front());
}

void Session::follow(const std::shared_ptr<Entry>& entry) {
  if (last_entry_) last_entry_->successor = entry;
  last_entry_ = entry;
}

void Session::remember(EvalFrame* frame) {
  if (frame == nullptr) return;
  remember(py::frame_code(frame->frame), static_cast<size_t>(py::frame_instruction(frame->frame)));
}

void Session::remember(PyCodeObject* code, size_t at) {
  if (state_->break_before.size() < 1000 && state_->break_before.try_emplace({code, at}).second) {
    state_->kept.push_back(Ref::share(reinterpret_cast<PyObject*>(code)));
    learned_ = true;
  }
}

bool Session::on_break(Recorder& recorder, EvalFrame* frame, const Operands* operands) {
  begin_hand_over();
  const bool raises = end_at_break(recorder, frame, operands);
  end_hand_over();
  if (options_.measure) {
    state_->costs.resize(state_->reports.size());
    state_->costs.back() = cost_;
  }
  return raises;
}

bool Session::end_at_break(Recorder& recorder, EvalFrame* frame, const Operands* operands) {
  stop_recording();
  SavedError error;
  DisarmedScope disarmed;
  const BreakReport report = recorder.report();
  state_->reports.push_back(report);
  recorder.sink = nullptr;
  bool kept = false;
  const bool below = may_go_below();
  state_->learned_level = state_->learned_level || below;
  const bool must_not_break = options_.fullgraph || errors_on_graph_break();
  const bool failed_import = recorder.failed_import.held();
  if (failed_import) remember(frame);
  // A cache or an optimizer's state is filled by now: the next call meets another situation, once.
  const auto passes = [&](EvalFrame* at) {
    const std::pair place{py::frame_code(at->frame), static_cast<size_t>(py::frame_instruction(at->frame))};
    if (!state_->filled_caches.try_emplace(place).second) return false;
    state_->kept.push_back(Ref::share(reinterpret_cast<PyObject*>(place.first)));
    learned_ = true;
    return true;
  };
  const bool fills = frame != nullptr && report.detail == kNoObjectForTensor && passes(frame);
  if (options_.resume && !must_not_break && !off_ && !below && !failed_import && !fills &&
      report.reason != Break::k_internal && report.reason != Break::k_too_large) {
    if (frame != nullptr && operands->event != Event::kUnsupported) {
      kept = suspend(*frame, *operands);
      if (!kept && recorder.blamed() != nullptr)
        remember(recorder.blamed()->first, recorder.blamed()->second);
      if (!kept && recorder.report().reason != report.reason) {
        std::string& detail = state_->reports.back().detail;
        detail += (detail.empty() ? "" : "; ") + std::string("not resumed: ") +
                  break_message(recorder.report().reason);
        if (!recorder.report().detail.empty()) detail += " (" + recorder.report().detail + ")";
      }
    } else if (frame == nullptr && recorder.innermost() != nullptr) {
      // Too late: the instruction has run. The next call stops before the outermost instruction that can
      // be stopped at.
      const Chain chain = chain_to(*recorder.innermost());
      EvalFrame* at = recorder.innermost();
      for (size_t i = chain.size(); i-- > 1;) {
        if (chain[i].frame->link == FrameLink::kOpaque) at = chain[i - 1].frame;
      }
      if (report.reason != Break::k_cached_call || !passes(at)) remember(at);
    }
  }
  recorder.reopen();
  recorder.end(report.reason, report.detail);
  if (kept) return false;
  recording_->graph.break_off(GraphBreak::stopped, "the recording ended");
  recording_->graph.forget_tensors();
  dropped(report);
  if (backend_error_.held()) {
    give_up();
    error.replace([&] { backend_error_.raise(); });
    return true;
  }
  if (failed_import && !must_not_break) {
    give_up();
    error.replace([&] { recorder.failed_import.raise(); });
    return true;
  }
  raising_ =
      must_not_break && !below && report.reason != Break::k_exception && report.reason != Break::k_internal;
  if (raising_ && frame == nullptr) return false;  // at the next boundary
  if (!raising_) {
    off_ = true;  // at the next boundary, where the recording lets go of what it has kept alive
    return false;
  }
  give_up();
  error.replace([&] { raise_break(report); });
  return true;
}

void Session::raise_break(const BreakReport& report) {
  raising_ = false;
  const char* hint = break_hint(report.reason);
  // What programs that come from torch.compile catch; a RuntimeError too.
  PyObject* peer = PyDict_GetItemString(PyImport_GetModuleDict(), "torch._dynamo.exc");
  Ref unsupported = Ref::steal(peer == nullptr ? nullptr : PyObject_GetAttrString(peer, "Unsupported"));
  if (!unsupported) PyErr_Clear();
  PyErr_Format(unsupported ? unsupported.get() : PyExc_RuntimeError,
               "[flashpoint.compile] %s, but the recording broke at %s (%s): %s%s%s%s. What ran "
               "before it stands.%s%s",
               options_.fullgraph ? "fullgraph=True" : "error_on_graph_break(True)", report.location.c_str(),
               report.function.c_str(), break_message(report.reason), report.detail.empty() ? "" : " (",
               report.detail.c_str(), report.detail.empty() ? "" : ")", *hint == 0 ? "" : " Hint: ", hint);
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  raised_ = Ref::share(value);
  PyErr_Restore(type, value, traceback);
}

bool Session::has_raised_break() const {
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  const bool same = raised_ && value == raised_.get();
  PyErr_Restore(type, value, traceback);
  return same;
}

Session::Chain Session::chain_to(EvalFrame& innermost) const {
  Chain chain;
  for (EvalFrame* f = &innermost; f != nullptr; f = f->caller) {
    chain.push_back({f, f->serial});
    if (f->serial == outermost_) {
      std::reverse(chain.begin(), chain.end());
      return chain;
    }
  }
  return {};
}

// Innermost first.
std::vector<PyObject*> Session::generators_of(const Chain& chain) {
  std::vector<PyObject*> generators;
  for (size_t i = chain.size(); i-- > 0;) {
    if (PyObject* generator = py::generator_of(chain[i].frame->frame)) generators.push_back(generator);
  }
  return generators;
}

// Code of the chain that can look at the locals of its callers.
bool Session::sees_locals(const Chain& chain) const {
  for (const Level& level : chain) {
    if (sees_all_locals(py::frame_code(level.frame->frame))) return true;
  }
  return false;
}

// Something would be noticed to die that lives for these frames alone.
bool Session::dies_visibly(const Chain& chain) const {
  std::vector<PyObject*> references;
  references.reserve(16 * chain.size());
  for (size_t i = 0; i < chain.size(); ++i) {
    add_references(*chain[i].frame, i + 1 < chain.size() ? chain[i + 1].frame : nullptr, &references);
  }
  for (PyObject* generator : generators_of(chain)) references.push_back(py::generator_handled(generator));
  if (PyObject* handled = handled_in(outer_); handled != outer_.saved) references.push_back(handled);
  return flashpoint::dies_visibly(references);
}

// The key of the position where the innermost frame stands at a boundary, and the arguments of its entries.
bool Session::describe(const Chain& chain, std::string* key, std::vector<PyObject*>* args) const {
  const bool all_live = sees_locals(chain);
  std::vector<PositionFrame> frames;
  for (size_t i = 0; i < chain.size(); ++i) {
    EvalFrame& frame = *chain[i].frame;
    const bool innermost = i + 1 == chain.size();
    if (!is_plain_frame(frame)) return false;
    if (i > 0 && frame.link == FrameLink::kOpaque) return false;
    const int at = innermost ? boundary_position(frame) : call_position(frame);
    if (at < 0) return false;
    const std::vector<PyObject*> slots = frame_slots(frame, !innermost);
    frames.push_back({py::frame_code(frame.frame), at, static_cast<int16_t>(slots.size()),
                      static_cast<int16_t>(frame.link)});
    args->push_back(py::frame_function(frame.frame));
    if (PyObject* self = receiver_of(frame)) args->push_back(self);
    const std::vector<bool>& live = live_locals(py::frame_code(frame.frame), at);
    for (size_t s = 0; s < slots.size(); ++s) {
      args->push_back(!all_live && s < live.size() && !live[s] ? nullptr : slots[s]);
    }
    if (PyObject* generator = py::generator_of(frame.frame))
      args->push_back(py::generator_handled(generator));
  }
  args->push_back(handled_in(outer_) == outer_.saved ? nullptr : handled_in(outer_));
  *key = position_key(frames, *args);
  return true;
}

// A local that nothing reads any more still keeps alive what would be noticed to die. What is older than the
// recording and not known to it has not left its slot.
bool Session::outlives_use(PyObject* value) const {
  return value != nullptr && !recording_->unread.contains(value) && holds_visible(value);
}

bool Session::suspend(EvalFrame& frame, const Operands& operands) {
  // A class that nothing in the frames refers to any more still shows, in its bases.
  if (recording_->recorder->makes_classes()) {
    recording_->recorder->blame(nullptr);
    return false;
  }
  const Chain chain = chain_to(frame);
  if (chain.empty()) return false;
  for (size_t i = 1; i < chain.size(); ++i) {
    // Addresses in the locals of what uses them as keys would be those of other objects.
    const bool by_address =
        rules().uses_identity_as_memo(reinterpret_cast<PyObject*>(py::frame_code(chain[i].frame->frame)));
    if (chain[i].frame->link == FrameLink::kOpaque || by_address) {
      remember(chain[i - 1].frame);
      return false;
    }
  }
  if (!is_at_item(outer_, generators_of(chain))) return false;
  const Chain& start = recording_->chain;
  size_t shared = 0;
  while (shared < chain.size() && shared < start.size() && chain[shared].serial == start[shared].serial)
    ++shared;
  auto plan = std::make_unique<Suspension>();
  plan->common = static_cast<int32_t>(shared) - 1;
  const bool all_live = sees_locals(chain);
  std::vector<Slots> slots;
  for (size_t i = shared == 0 ? 0 : shared - 1; i < chain.size(); ++i) {
    EvalFrame& level = *chain[i].frame;
    const bool innermost = i + 1 == chain.size();
    FramePlan& f = plan->frames.emplace_back();
    f.link = level.link;
    f.position = innermost ? restart_position(level, operands) : call_position(level);
    if (f.position < 0 || !is_plain_frame(level)) {
      remember(!innermost ? &level : i > 0 ? chain[i - 1].frame : nullptr);
      return false;
    }
    Slots& values = slots.emplace_back();
    const bool tagged = level.tags_of == recording_->recorder->serial;
    values.push_back({py::frame_function(level.frame), 0});
    values.push_back({receiver_of(level), 0});
    const std::vector<bool>& live = live_locals(py::frame_code(level.frame), f.position);
    const std::vector<PyObject*> all = frame_slots(level, !innermost);
    for (size_t s = 0; s < all.size(); ++s) {
      const bool dead = !all_live && s < live.size() && !live[s] && !outlives_use(all[s]);
      values.push_back({dead ? dead_slot() : all[s], tagged && !dead ? level.tags[s] : Tag{0}});
    }
    if (PyObject* generator = py::generator_of(level.frame))
      values.push_back({py::generator_handled(generator), 0});
  }
  recording_->recorder->reopen();
  recording_->running = frame_objects(chain);
  std::unique_ptr<Entry> entry = finish(nullptr, std::move(plan), slots);
  if (!entry) return false;
  add(std::move(entry));
  ++counters().breaks_resumed;
  return true;
}

}  // namespace flashpoint
