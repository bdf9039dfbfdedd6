// What a compiled function keeps: entries by position, and what was learned about its breaks.
//
// A position is where a recording may start: the function's entry, or a chain of frames (outermost first)
// that stand in the middle of their code. Entries at a position take the slots of all its frames as
// arguments.
//
// Ownership: held by the CompiledFunction; shared entries stay alive while they run. GIL: required.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/flat_map.h"
#include "driver/answer_table.h"
#include "driver/call_signature.h"
#include "driver/entry.h"
#include "driver/entry_list.h"
#include "record/tracer_mode.h"

namespace flashpoint {

struct CodeState;
struct StoredEntries;

// What a break takes, in microseconds: from the last recorded instruction until the frames stand, and from
// the next boundary until it is known how they go on. Negative: not measured.
struct BreakCost {
  double hand_over = -1, resume = -1;
};

struct PositionEntries : EntryList<Entry> {
  int recording_calls = 0;                      // calls that added entries
  uint64_t last_call = 0;                       // the last of them
  TracerLevel level = TracerLevel::kComposite;  // of the next recording
  bool base_refused = false;                    // a recording at base level was of no use
  int drops = 0;                                // recordings dropped in a row, exceptions not counted
  // After some in a row nothing is recorded for a number of calls, twice as many each time. It is never given
  // up: the next call may be one of another kind.
  uint64_t rest = 0, next_rest = 8;
  std::string rest_reason;  // why the last one was dropped
  // With more entries than kFew, which one to try first for a call that looks like an earlier one.
  std::unique_ptr<AnswerTable> answers;
  static constexpr size_t kFew = 4;
  // Places whose numbers have changed (GuardTree::place), and how many recordings found them so.
  std::unordered_map<std::string, int> open_places;

  // The place of the entry that answered the last call like this one, 0 where there was none.
  size_t guess(const CallSignature& signature);
  void note_answer(const CallSignature& signature, const Entry* entry);
  void drop(std::string why);
  void back_off(std::string why);  // the same, at once
  // Whether a recording may begin here; counts the calls it is not to.
  bool may_record();
  // Counts a hit of entries[i] and moves it to the front.
  void used(size_t i, const Entry* entry);
  // call: which call of a compiled function made it.
  void add(std::unique_ptr<Entry> entry, uint64_t call);
  // One that the store had: it counts for no recording.
  void take(std::shared_ptr<Entry> entry);
  // Which of these arguments are known to change from call to call: as many entries have guarded them by
  // other values.
  std::vector<bool> varying(const std::vector<Ref>& args, int others_of_number, int others_of_text) const;
  // Whether a range among the arguments is another one each time: what is recorded of a loop over it fits no
  // other call.
  bool meets_other_ranges(const std::vector<Ref>& args) const;
  // After a miss of entries[i]: when values it expects differ more often than not, the entry goes, and the
  // next recording breaks where it met them. True if it went.
  bool wears_out(size_t i, CodeState& state);
};

// Whether an entry that answers moves to the front; else entries stay in the order of their making.
bool& moves_to_front();

enum class Backend : uint8_t { kEager, kNative };

struct CodeState {
  PositionEntries start;
  std::unordered_map<std::string, PositionEntries> positions;  // by the key of a Position
  FlatMap<std::pair<PyCodeObject*, size_t>, Nothing, InstructionHash> break_before;
  // Calls of cached functions that have filled their caches while a recording watched.
  FlatMap<std::pair<PyCodeObject*, size_t>, Nothing, InstructionHash> filled_caches;
  std::vector<Ref> kept;                // code objects named by positions and break_before
  std::vector<BreakReport> reports;     // breaks of the last call that recorded, in order
  std::vector<BreakCost> costs;         // beside reports
  std::vector<std::string> recompiles;  // why entries did not fit when something was recorded again, the last
  bool has_report = false;
  bool kept_last = false;      // everything the last recording call did is in entries
  bool learned_level = false;  // the last recording ended because the next one is made at another level
  bool fullgraph = false;
  bool waited = false;          // a call ran eagerly, as Stance::kEagerThenCompile wants it
  int recompile_limit = 0;      // of this function; 0: the process's
  bool limit_reported = false;  // that it was reached
  std::string name;             // given by the caller; for logs
  Backend backend = Backend::kEager;
  Ref compiler;  // a Python backend's (driver/fx_backend.h), or null
  bool uses_store = true;
  std::shared_ptr<StoredEntries> stored;  // see driver/recordings.h; null until it was asked for

  void note_recompile(std::string why);
  // Of what the store has, only what was recorded for the same kind of backend can be used.
  int backend_number() const { return compiler ? -1 : static_cast<int>(backend); }
};

}  // namespace flashpoint
