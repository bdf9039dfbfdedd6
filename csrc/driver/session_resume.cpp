// What a session does at an instruction boundary behind a break: which entry goes on there, or a recording.
#include <algorithm>
#include <chrono>
#include <utility>

#include "base/counters.h"
#include "base/log.h"
#include "driver/position_key.h"
#include "driver/recording.h"
#include "driver/recordings.h"
#include "driver/session.h"
#include "driver/stance.h"
#include "eval/frame_state.h"
#include "eval/thread_context.h"
#include "guard/forward_ad.h"
#include "py/frame.h"
#include "py/generators.h"
#include "py/saved_error.h"
#include "record/graph_recorder.h"
#include "record/nested_calls.h"
#include "record/read_generator.h"
#include "record/visible_death.h"

namespace flashpoint {

namespace {

// A position in a loop takes one entry for each step, in one call.
constexpr size_t kEntriesAtPosition = 512;
constexpr int kRecordingCalls = 32;

int64_t now_ns() { return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1); }

}  // namespace

void Session::begin_hand_over() {
  if (options_.measure) handing_over_since_ = now_ns();
}

void Session::end_hand_over() {
  if (handing_over_since_ == 0) return;
  cost_ = {static_cast<double>(now_ns() - std::exchange(handing_over_since_, 0)) / 1000, -1};
}

void Session::skip(const char* why) const {
  if (log_enabled(LogKind::kBreak)) log_line("skip the rest of " + options_.name + ": " + why);
}

FrameControl::Action Session::at_boundary(EvalFrame& frame) {
  if (!options_.measure || unwinding_) return go_on(frame);
  const int64_t begin = now_ns();
  const size_t reports = state_->reports.size();
  const bool recorded = recording_ != nullptr;
  const Action action = go_on(frame);
  // An entry that ran has taken its own time, which is no part of the cost.
  const int64_t end = ran_since_ == 0 ? now_ns() : std::exchange(ran_since_, 0);
  cost_.resume = static_cast<double>(end - begin) / 1000;
  if (recorded && reports > 0 && state_->costs.size() == reports) {
    state_->costs[reports - 1].resume = cost_.resume;
  } else if (cost_.hand_over >= 0 && log_enabled(LogKind::kBreak)) {
    log_line("resumed in " + options_.name + ": hand-over " + std::to_string(cost_.hand_over) +
             " us, resume " + std::to_string(cost_.resume) + " us");
  }
  return action;
}

FrameControl::Action Session::go_on(EvalFrame& frame) {
  const auto hand_over = [&](const char* why) {
    if (!off_) skip(why);
    give_up();
    return Action::kHandOver;
  };
  if (recording_ && waits_for_call(recording_->recorder.get())) waiting_.push_back(std::move(recording_));
  recording_.reset();
  if (unwinding_) return unwind(frame);  // a generator between was left as if it had yielded
  if (raising_) {
    give_up();
    raise_break(state_->reports.back());
    return Action::kError;
  }
  const Chain chain = chain_to(frame);
  if (off_ || chain.empty() || !is_at_item(outer_, generators_of(chain)))
    return hand_over("it is not one of the call's frames that goes on");
  if (!global_state_supported() || in_forward_ad() != in_forward_ad_)
    return hand_over("a mode is on that nothing is recorded under");
  std::string key;
  std::vector<PyObject*> args;
  if (!describe(chain, &key, &args)) return hand_over("a frame that cannot be restored");
  // Replayed or recorded, what follows would let go of it later than the frames do.
  if (dies_visibly(chain) || closes_late(chain))
    return hand_over("something of its own would be seen to live longer");
  PositionEntries& position = state_->positions[key];
  const GlobalState now = GlobalState::now();
  // In a loop each step has an entry of its own: the one that came next before comes first.
  const size_t guess = position.find(last_entry_ ? last_entry_->successor.lock().get() : nullptr);
  std::shared_ptr<Entry> first_tried;
  // Nothing where its guards do not hold.
  const auto answer = [&](size_t i) -> std::optional<Action> {
    std::shared_ptr<Entry> entry = position.entries[i];
    PyObject* result = nullptr;
    BuiltStack stack;
    const int64_t before = options_.measure ? now_ns() : 0;
    const Outcome outcome = entry->call(args.data(), args.size(), nullptr, now, outer_, &result, &stack);
    if (outcome == Outcome::kRestart) return hand_over("its graph failed");
    if (outcome == Outcome::kMiss) {
      if (!first_tried) first_tried = entry;
      return std::nullopt;
    }
    ran_since_ = before;
    ++counters().resume_hits;
    if (entry->loaded_by != nullptr) ++counters().precompile_hits;
    position.used(i, entry.get());
    follow(entry);
    if (entry->suspension) {
      if (stack.frames.empty()) return Action::kError;
      entry_ = entry;
      return apply(*entry->suspension, std::move(stack), frame, chain);
    }
    if (result == nullptr) return Action::kError;
    if (handled_in(outer_) != outer_.saved) set_handled_in(outer_, Ref::share(outer_.saved));
    result_ = Ref::steal(result);
    has_result_ = true;
    if (chain.size() == 1) return Action::kLeave;
    built_ = std::move(stack);
    return drop_to(outermost_, frame);
  };
  for (size_t n = 0; n < position.entries.size(); ++n) {
    if (const auto action = answer(PositionEntries::nth(n, guess))) return *action;
  }
  for (size_t i = position.entries.size(); i-- > 0;) position.wears_out(i, *state_);
  if (std::shared_ptr<Entry> loaded = load(key, args, now)) {
    position.take(std::move(loaded));
    if (const auto action = answer(0)) return *action;
  }
  if (backend_error_.held()) return hand_over("its backend raised");
  if (position.entries.size() >= kEntriesAtPosition || position.recording_calls >= kRecordingCalls)
    return hand_over("too many recordings of it");
  if (is_dispatch_hidden()) return hand_over("operators are hidden");
  if (std::any_of(args.begin(), args.end(), is_watched_instance))
    return hand_over("something that is weakly referred to may be seen to live longer");
  if (!position.may_record()) return hand_over(position.rest_reason.c_str());
  if (const Stance stance = current_stance(); stance == Stance::kFailOnRecompile) {
    give_up();
    PyErr_SetString(PyExc_RuntimeError,
                    "[flashpoint.compile] what follows a graph break would be recorded, and the stance is "
                    "'fail_on_recompile'");
    return Action::kError;
  } else if (stance >= Stance::kForceEager || is_run_only()) {
    return hand_over("the stance is to record nothing");
  }
  if (first_tried) {
    const std::string why = first_tried->explain_miss();
    if (log_enabled(LogKind::kMiss)) log_line("miss behind a break in " + options_.name + ": " + why);
    state_->note_recompile(why);
  }
  std::vector<Ref> kept;
  for (PyObject* arg : args) kept.push_back(Ref::share(arg));
  if (position.meets_other_ranges(kept)) {
    position.back_off("a loop whose length changes from call to call");
    return hand_over(position.rest_reason.c_str());
  }
  for (const Level& level : chain) {
    state_->kept.push_back(Ref::share(reinterpret_cast<PyObject*>(py::frame_code(level.frame->frame))));
  }
  start_recording(std::move(kept), std::move(key), chain, nullptr, args.size(), nullptr);
  if (!off_) attach_arguments(chain);
  return off_ ? Action::kHandOver : Action::kGoOn;
}

// From the store: an entry of this position that fits.
std::shared_ptr<Entry> Session::load(const std::string& key, const std::vector<PyObject*>& args,
                                     const GlobalState& now) {
  SavedError error;
  DisarmedScope disarmed;  // classes may be asked about others
  std::shared_ptr<Entry> entry =
      load_entry_at(*state_, key, {nullptr, args.data(), args.size(), nullptr, now, outer_});
  if (PyErr_Occurred() != nullptr) backend_error_.take();
  return entry;
}

// The slots of the frames are the recording's arguments, in the order of describe().
void Session::attach_arguments(const Chain& chain) {
  Shadow& shadow = recording_->recorder->shadow();
  const bool all_live = sees_locals(chain);
  size_t argument = 0;
  for (size_t i = 0; i < chain.size(); ++i) {
    EvalFrame& frame = *chain[i].frame;
    take_tags(frame, *recording_->recorder);
    argument += receiver_of(frame) != nullptr ? 2 : 1;
    PyObject* generator = py::generator_of(frame.frame);
    const std::vector<PyObject*> values = frame_slots(frame, i + 1 != chain.size());
    for (size_t s = 0; s < values.size(); ++s, ++argument) {
      // A generator's frame loses its tags where it yields.
      if (!all_live && generator == nullptr) shadow.attach(frame, s, argument);
      // Kept alive, so that nothing else gets its address.
      if (values[s] != nullptr && recording_->arg_pointers[argument] == nullptr && holds_visible(values[s]) &&
          recording_->unread.insert(values[s]))
        recording_->kept.push_back(Ref::share(values[s]));
    }
    if (generator == nullptr) continue;
    ++argument;
    recording_->recorder->begin_running(generator);
  }
  shadow.attached();
}

}  // namespace flashpoint
