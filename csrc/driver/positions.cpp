#include "driver/positions.h"

#include <algorithm>
#include <utility>

#include "base/counters.h"
#include "record/rules/rules.h"

namespace flashpoint {

bool& moves_to_front() {
  static bool moves = true;
  return moves;
}

namespace {

constexpr int kMostDrops = 3;
constexpr uint64_t kLongestRest = 1024;
constexpr size_t kMostRecompiles = 64;

}  // namespace

void PositionEntries::drop(std::string why) {
  rest_reason = std::move(why);
  if (++drops < kMostDrops) return;
  drops = kMostDrops - 1;  // one more is enough the next time
  back_off(std::move(rest_reason));
}

void PositionEntries::back_off(std::string why) {
  rest_reason = std::move(why);
  rest = next_rest;
  next_rest = std::min(next_rest * 2, kLongestRest);
}

bool PositionEntries::may_record() {
  if (rest == 0) return true;
  --rest;
  ++counters().recordings_skipped;
  return false;
}

void CodeState::note_recompile(std::string why) {
  if (recompiles.size() >= kMostRecompiles) recompiles.erase(recompiles.begin());
  recompiles.push_back(std::move(why));
}

void PositionEntries::used(size_t i, const Entry* entry) { count_hit(i, entry, moves_to_front()); }

size_t PositionEntries::guess(const CallSignature& signature) {
  if (!answers) answers = std::make_unique<AnswerTable>();
  const void* known = answers->find(signature.exact);
  return find(known != nullptr ? known : answers->find(signature.alike));
}

void PositionEntries::note_answer(const CallSignature& signature, const Entry* entry) {
  if (!answers) return;
  answers->note(signature.exact, entry);
  answers->note(signature.alike, entry);
}

// An argument that was guarded by some other values before will be another one the next time as well.
std::vector<bool> PositionEntries::varying(const std::vector<Ref>& args, int others_of_number,
                                           int others_of_text) const {
  std::vector<int> others(args.size());
  for (const auto& entry : entries) {
    for (const auto& [argument, value] : entry->pinned) {
      PyObject* now = args[static_cast<size_t>(argument)].get();
      if (now != nullptr && is_primitive(now) && !primitives_equal(now, value.get())) ++others[argument];
    }
    for (size_t i = 0; i < args.size(); ++i) {
      if (args[i] && PySlice_Check(args[i].get()) && entry->expects_other_slice(i, args[i].get()))
        ++others[i];
    }
  }
  std::vector<bool> result(args.size());
  for (size_t i = 0; i < others.size(); ++i) {
    const bool text = args[i] && (PyUnicode_Check(args[i].get()) || PyBytes_Check(args[i].get()));
    result[i] = others[i] >= (text ? others_of_text : others_of_number);
  }
  return result;
}

bool PositionEntries::meets_other_ranges(const std::vector<Ref>& args) const {
  constexpr auto kOthers = 2;
  for (size_t i = 0; i < args.size(); ++i) {
    if (!args[i] || !PyRange_Check(args[i].get())) continue;
    const auto others = std::count_if(entries.begin(), entries.end(), [&](const auto& entry) {
      return entry->expects_other_slice(i, args[i].get());
    });
    if (others >= kOthers) return true;
  }
  return false;
}

bool PositionEntries::wears_out(size_t i, CodeState& state) {
  constexpr uint64_t kPatience = 4;
  const Entry& entry = *entries[i];
  const ExpectationSite* site = entry.unexpected_site();
  if (site == nullptr || entry.unexpected_count() < kPatience || entry.unexpected_count() <= 2 * hits[i])
    return false;
  // With fullgraph no break may come of torch.cond and its like.
  if (state.fullgraph && rules().chooses_branch(site->code.get())) return false;
  auto* code = reinterpret_cast<PyCodeObject*>(site->code.get());
  if (state.break_before.size() < 1000 && state.break_before.try_emplace({code, site->instruction}).second)
    state.kept.push_back(site->code);
  remove_at(i);
  return true;
}

void PositionEntries::add(std::unique_ptr<Entry> entry, uint64_t call) {
  drops = 0;
  next_rest = 8;
  if (std::exchange(last_call, call) != call) ++recording_calls;
  insert_first(std::move(entry));
}

void PositionEntries::take(std::shared_ptr<Entry> entry) { insert_first(std::move(entry)); }

}  // namespace flashpoint
