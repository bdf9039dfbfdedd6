#include "ir/node_state.h"

#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <c10/core/DefaultDtype.h>

namespace flashpoint::ir {
namespace {

uint8_t mode_bits(const c10::AutogradState& state) {
  return static_cast<uint8_t>((state.get_grad_mode() ? 1 : 0) | (state.get_inference_mode() ? 2 : 0));
}

uint64_t excluded_autocast() {
  return (c10::impl::tls_local_dispatch_key_set().excluded_ & c10::autocast_dispatch_keyset).raw_repr();
}

bool any_autocast(uint64_t excluded) { return excluded != c10::autocast_dispatch_keyset.raw_repr(); }

void read_autocast(NodeState& state) {
  state.autocast.clear();
  for (auto device : at::autocast::_AUTOCAST_SUPPORTED_DEVICES) {
    if (at::autocast::is_autocast_enabled(device)) {
      state.autocast.push_back({device, at::autocast::get_autocast_dtype(device)});
    }
  }
  // The flag exists outside autocast regions too, but then decides nothing.
  state.autocast_cache = state.autocast.empty() || at::autocast::is_autocast_cache_enabled();
}

}  // namespace

namespace {
constexpr int kPrecisionShift = 16;
}

NodeState current_state() {
  NodeState state;
  const auto& autograd = c10::AutogradState::get_tls_state();
  state.grad = autograd.get_grad_mode();
  state.inference = autograd.get_inference_mode();
  if (any_autocast(excluded_autocast())) read_autocast(state);
  return state;
}

uint64_t global_flags() {
  return cheap_global_flags(static_cast<uint64_t>(at::globalContext().float32MatmulPrecision())
                            << kPrecisionShift);
}

uint64_t cheap_global_flags(uint64_t precision_of) {
  const auto& context = at::globalContext();
  uint64_t word = static_cast<uint64_t>(c10::get_default_dtype_as_scalartype());
  word = (word << 8) | ((precision_of >> kPrecisionShift) & 0xff);
  uint64_t flags = 0;
  int bit = 0;
#define X(name, read, write) flags |= static_cast<uint64_t>((read) ? 1 : 0) << bit++;
#include "ir/global_flags.def"
#undef X
  return (word << kPrecisionShift) | flags;
}

void switch_global_flags(uint32_t flags) {
  auto& context = at::globalContext();
  int bit = 0;
#define X(name, read, write)                                       \
  if (const bool on = ((flags >> bit++) & 1) != 0; (read) != on) { \
    write;                                                         \
  }
#include "ir/global_flags.def"
#undef X
}

std::string flag_names(uint32_t flags) {
  std::string names;
  int bit = 0;
#define X(name, read, write) \
  if ((flags >> bit++) & 1) names += (names.empty() ? "" : "+") + std::string(#name);
#include "ir/global_flags.def"
#undef X
  return names.empty() ? "none" : names;
}

std::string global_flag_text(uint64_t flags) {
  const auto precision = static_cast<at::Float32MatmulPrecision>((flags >> kPrecisionShift) & 0xff);
  const char* name = precision == at::Float32MatmulPrecision::HIGHEST ? "highest"
                     : precision == at::Float32MatmulPrecision::HIGH  ? "high"
                                                                      : "medium";
  return flag_names(static_cast<uint32_t>(flags & ((uint64_t{1} << kPrecisionShift) - 1))) +
         ", matmul precision " + name;
}

std::optional<uint32_t> flag_of(std::string_view name) {
  int bit = 0;
#define X(row, read, write)           \
  if (name == #row) return 1u << bit; \
  ++bit;
#include "ir/global_flags.def"
#undef X
  return std::nullopt;
}

bool StateReader::changed() {
  const uint8_t modes = mode_bits(c10::AutogradState::get_tls_state());
  const uint64_t excluded = excluded_autocast();
  if (modes == modes_ && excluded == excluded_ && !any_autocast(excluded)) [[likely]]
    return false;
  modes_ = modes;
  excluded_ = excluded;
  // Inside an autocast region dtype and cache flag may change without a key changing: read them each time.
  state_ = current_state();
  return true;
}

StateSwitcher::StateSwitcher()
    : saved_autograd_(c10::AutogradState::get_tls_state()),
      saved_keys_(c10::impl::tls_local_dispatch_key_set()),
      current_(current_state()),
      entry_(current_) {}

void StateSwitcher::apply(const NodeState& state) {
  if (state == current_) return;
  if (state.inference != current_.inference) {
    // The same key moves as entering or leaving inference mode makes.
    auto keys = c10::impl::tls_local_dispatch_key_set();
    if (state.inference) {
      keys.included_ = keys.included_.remove(c10::DispatchKey::ADInplaceOrView);
      keys.excluded_ = keys.excluded_ | c10::autograd_dispatch_keyset;
    } else {
      keys.included_ = keys.included_.add(c10::DispatchKey::ADInplaceOrView);
      keys.excluded_ = keys.excluded_ - c10::autograd_dispatch_keyset;
    }
    c10::impl::_force_tls_local_dispatch_key_set(keys);
    auto& autograd = c10::AutogradState::get_tls_state();
    autograd.set_inference_mode(state.inference);
    autograd.set_fw_grad_mode(!state.inference);
    autograd.set_multithreading_enabled(!state.inference);
  }
  if (state.base != current_.base) {
    // Not ADInplaceOrView: versions are counted and views known as such, as in eager mode.
    auto keys = c10::impl::tls_local_dispatch_key_set();
    keys.excluded_ = state.base ? keys.excluded_ | c10::autograd_dispatch_keyset
                                : (keys.excluded_ - c10::autograd_dispatch_keyset) |
                                      (saved_keys_.excluded_ & c10::autograd_dispatch_keyset);
    c10::impl::_force_tls_local_dispatch_key_set(keys);
  }
  c10::AutogradState::get_tls_state().set_grad_mode(state.grad);
  if (state.autocast != current_.autocast || state.autocast_cache != current_.autocast_cache) {
    apply_autocast(state);
  }
  if (state.flags != current_.flags) {
    if (!saved_flags_) saved_flags_ = static_cast<uint32_t>(global_flags() & kSwitchableFlags);
    switch_global_flags(state.flags.value_or(*saved_flags_));
  }
  current_ = state;
}

void StateSwitcher::apply_autocast(const NodeState& state) {
  if (!nested_ && !state.autocast.empty()) {
    at::autocast::increment_nesting();
    nested_ = true;
  }
  for (const auto& old : current_.autocast) at::autocast::set_autocast_enabled(old.device, false);
  for (const auto& wanted : state.autocast) {
    bool saved = false;
    for (const auto& seen : saved_dtypes_) saved |= seen.device == wanted.device;
    if (!saved) saved_dtypes_.push_back({wanted.device, at::autocast::get_autocast_dtype(wanted.device)});
    at::autocast::set_autocast_enabled(wanted.device, true);
    at::autocast::set_autocast_dtype(wanted.device, wanted.dtype);
  }
  if (!state.autocast.empty()) {
    if (!cache_touched_) saved_cache_ = at::autocast::is_autocast_cache_enabled();
    cache_touched_ = true;
    at::autocast::set_autocast_cache_enabled(state.autocast_cache);
  }
  // Leaving the outermost region drops the casts cached in it, as it does in eager mode.
  if (state.autocast.empty() && nested_) {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    nested_ = false;
  }
}

StateSwitcher::~StateSwitcher() {
  if (saved_flags_) switch_global_flags(*saved_flags_);
  if (current_ == entry_ && !nested_ && !cache_touched_ && saved_dtypes_.empty()) return;
  for (const auto& dtype : saved_dtypes_) at::autocast::set_autocast_dtype(dtype.device, dtype.dtype);
  if (cache_touched_) at::autocast::set_autocast_cache_enabled(saved_cache_);
  if (nested_ && at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  c10::AutogradState::set_tls_state(saved_autograd_);
  c10::impl::_force_tls_local_dispatch_key_set(saved_keys_);
}

}  // namespace flashpoint::ir
