// The ambient state an operator call depends on, beside its arguments.
//
// `StateReader` reads it from thread-local storage for the recorder, once per op, so it is built to be
// cheap while nothing changes. `StateSwitcher` sets it for a replay, touches only what differs, and puts
// everything back in its destructor, exceptions included.
//
// Some state is process-wide instead (default dtype, determinism, SDPA flags). `global_flags()` folds it into
// one word, which whoever keeps the graph guards. Where the program itself switches a setting of
// global_flags.def for a part of what it does, the nodes of that part say so, and a replay switches it as the
// program does; a change of anything else half way ends a recording.
//
// Threads: per thread; no GIL needed.
#pragma once

#include <c10/core/AutogradState.h>
#include <c10/core/DeviceType.h>
#include <c10/core/DispatchKeySet.h>
#include <c10/core/ScalarType.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace flashpoint::ir {

struct Autocast {
  c10::DeviceType device;
  c10::ScalarType dtype;
  bool operator==(const Autocast&) const = default;
};

struct NodeState {
  bool grad = true;
  bool inference = false;
  bool autocast_cache = true;      // meaningful while some autocast is on
  std::vector<Autocast> autocast;  // the device types it is enabled for, in torch's order
  bool base = false;               // below autograd and functorch: their dispatch keys are excluded
  std::optional<uint32_t> flags;   // the rows of global_flags.def, where they differ from those at entry
  bool operator==(const NodeState&) const = default;
};

NodeState current_state();

// Default dtype, precision and, in the lower bits, the rows of global_flags.def, as one comparable word.
uint64_t global_flags();
std::string global_flag_text(uint64_t flags);
// The same with the precision of float32 products, which costs hash lookups, taken from an earlier word.
uint64_t cheap_global_flags(uint64_t precision_of);
inline constexpr uint64_t kSwitchableFlags = 0xffff;
void switch_global_flags(uint32_t flags);
std::string flag_names(uint32_t flags);  // those that are on, joined by '+'; "none"
std::optional<uint32_t> flag_of(std::string_view name);

// A cheap "has anything changed since the last call" in front of current_state().
class StateReader {
 public:
  // True when the state differs, or may differ, from that of the last call; then `state()` is up to date.
  bool changed();
  const NodeState& state() const { return state_; }

 private:
  NodeState state_;
  uint64_t excluded_ = 0;
  uint8_t modes_ = 0xff;
};

class StateSwitcher {
 public:
  StateSwitcher();
  ~StateSwitcher();
  StateSwitcher(const StateSwitcher&) = delete;
  StateSwitcher& operator=(const StateSwitcher&) = delete;

  void apply(const NodeState& state);

 private:
  void apply_autocast(const NodeState& state);

  c10::AutogradState saved_autograd_;
  c10::impl::LocalDispatchKeySet saved_keys_;
  NodeState current_;
  NodeState entry_;
  std::vector<Autocast> saved_dtypes_;
  bool saved_cache_ = true;
  bool cache_touched_ = false;
  std::optional<uint32_t> saved_flags_;
  bool nested_ = false;  // we count as one autocast region, so that its cache lives as long as we do
};

}  // namespace flashpoint::ir
