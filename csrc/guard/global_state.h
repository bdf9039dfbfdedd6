// The global state of torch that decides what a recorded operation means, as one comparable value.
//
// Taken when a recording starts, compared before an entry is used, and compared again when a recording
// ends (a recording must leave it as it found it, but for the grad mode and the switches of
// ir/global_flags.def: what it leaves of those is an effect).
// GIL: required for abc_token only.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace flashpoint {

struct GlobalState {
  bool grad_mode = true;
  bool inference_mode = false;
  bool torch_function_enabled = true;
  bool autocast_cache = true;
  bool anomaly_mode = false;
  int32_t recursion_limit = 0;
  int32_t autocast_nesting = 0;  // what leaving a region does, and says, depends on it
  int16_t default_dtype = 0;
  int16_t autocast_dtype_cpu = 0;
  int16_t autocast_dtype_cuda = 0;
  uint64_t tls_included = 0;  // dispatch keys: autocast, functorch, Python modes
  uint64_t tls_excluded = 0;
  // Torch-function modes, innermost last, by address: whoever keeps the state keeps them alive.
  static constexpr size_t kMaxModes = 4;
  std::array<const void*, kMaxModes> modes{};
  uint64_t flags = 0;  // deterministic algorithms, backends' switches

  static GlobalState now();
  bool operator==(const GlobalState&) const = default;
  // Whether what was recorded in this state is right in that one.
  bool holds(const GlobalState& now, bool any_higher_recursion_limit) const;
  // In the grad mode and the switches.
  bool differs_only_in_settings(const GlobalState& other) const;
  // Also in what autocast regions set: a replay up to a break inside one can do the same.
  bool differs_only_in_regions(const GlobalState& other) const;
  // As it would be if inference mode were as in the other.
  GlobalState with_inference_of(const GlobalState& other) const;
  // Makes the thread's state this one, given that it differs in no more than that.
  void enter_regions() const;
  // What is otherwise now, as "name: was, is", separated by semicolons.
  std::string changes(const GlobalState& now) const;
};

// False while dispatch modes, functorch transforms or many torch-function modes are active: calls run
// eagerly.
bool global_state_supported();

// No hooks on saved tensors and no level of forward AD around the call: nothing that a graph of the base
// level, which runs below autograd, would leave out.
bool autograd_is_plain();

// Counts registrations with abstract base classes; equal tokens mean equal isinstance() results.
uint64_t abc_token();

}  // namespace flashpoint
