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

void PositionEntries::used(size_t i, const Entry* entry) {
  // The entry may have moved or gone while it ran.
  if (i >= entries.size() || entries[i].get() != entry) return;
  ++hits[i];
  if (i == 0 || !moves_to_front()) return;
  std::rotate(entries.begin(), entries.begin() + i, entries.begin() + i + 1);
  std::rotate(hits.begin(), hits.begin() + i, hits.begin() + i + 1);
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

size_t PositionEntries::find(const Entry* entry) const {
  const auto found =
      std::find_if(entries.begin(), entries.end(), [&](const auto& other) { return other.get() == entry; });
  return found == entries.end() ? 0 : static_cast<size_t>(found - entries.begin());
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
  entries.erase(entries.begin() + static_cast<ptrdiff_t>(i));
  hits.erase(hits.begin() + static_cast<ptrdiff_t>(i));
  return true;
}

void PositionEntries::add(std::unique_ptr<Entry> entry, uint64_t call) {
  drops = 0;
  next_rest = 8;
  if (std::exchange(last_call, call) != call) ++recording_calls;
  entries.insert(entries.begin(), std::shared_ptr<Entry>(std::move(entry)));
  hits.insert(hits.begin(), 0);
}

void PositionEntries::take(std::shared_ptr<Entry> entry) {
  entries.insert(entries.begin(), std::move(entry));
  hits.insert(hits.begin(), 0);
}

}  // namespace flashpoint
