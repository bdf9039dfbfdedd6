#include "guard/global_state.h"

#include <Python.h>

#include <ATen/Context.h>
#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/SavedTensorHooks.h>
#include <ATen/autocast_mode.h>
#include <c10/core/AutogradState.h>
#include <c10/core/DefaultDtype.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>

#include <torch/csrc/autograd/anomaly_mode.h>
#include <torch/csrc/autograd/forward_grad.h>

#include "guard/forward_ad.h"
#include "ir/node_state.h"
#include "py/ref.h"
#include "py/torch_bridge.h"

namespace flashpoint {

namespace {

// Beside the flags of global_flags.def, which are the low ones.
constexpr uint64_t kNoForwardGrad = uint64_t{1} << 32;
constexpr uint64_t kNoSavedTensorHooks = uint64_t{1} << 33;

uint64_t autograd_flags() {
  // Inference mode switches it off as well.
  return (c10::AutogradState::get_tls_state().get_fw_grad_mode() || c10::InferenceMode::is_enabled()
              ? 0
              : kNoForwardGrad) |
         (at::SavedTensorDefaultHooks::is_enabled() ? 0 : kNoSavedTensorHooks);
}

}  // namespace

GlobalState GlobalState::now() {
  GlobalState s;
  s.grad_mode = c10::GradMode::is_enabled();
  s.inference_mode = c10::InferenceMode::is_enabled();
  s.torch_function_enabled =
      at::impl::PythonTorchFunctionTLS::get_disabled_state() == at::impl::TorchFunctionDisabledState::ENABLED;
  s.autocast_cache = at::autocast::is_autocast_cache_enabled();
  s.default_dtype = static_cast<int16_t>(c10::get_default_dtype_as_scalartype());
  s.autocast_dtype_cpu = static_cast<int16_t>(at::autocast::get_autocast_dtype(at::kCPU));
  s.autocast_dtype_cuda = static_cast<int16_t>(at::autocast::get_autocast_dtype(at::kCUDA));
  const auto tls = c10::impl::tls_local_dispatch_key_set();
  // The two keys of record/tracer_mode.h.
  const c10::DispatchKeySet tracer({c10::DispatchKey::TESTING_ONLY_GenericMode, c10::DispatchKey::Fake});
  s.tls_included = (tls.included_ - tracer).raw_repr();
  s.tls_excluded = (tls.excluded_ - tracer).raw_repr();
  const size_t modes = function_mode_count();
  for (size_t i = 0; i < modes && i < kMaxModes; ++i) s.modes[i] = function_mode_at(i);
  s.flags = ir::global_flags() | autograd_flags();
  at::autocast::increment_nesting();
  s.autocast_nesting = at::autocast::decrement_nesting();
  s.recursion_limit = Py_GetRecursionLimit();
  s.anomaly_mode = torch::autograd::AnomalyMode::is_enabled();
  return s;
}

bool GlobalState::holds(const GlobalState& now, bool any_higher_recursion_limit) const {
  if (*this == now) return true;
  if (!any_higher_recursion_limit || now.recursion_limit <= recursion_limit) return false;
  GlobalState copy = *this;
  copy.recursion_limit = now.recursion_limit;
  return copy == now;
}

bool GlobalState::differs_only_in_settings(const GlobalState& other) const {
  GlobalState copy = *this;
  copy.grad_mode = other.grad_mode;
  copy.flags = (flags & ~ir::kSwitchableFlags) | (other.flags & ir::kSwitchableFlags);
  return copy == other;
}

bool GlobalState::differs_only_in_regions(const GlobalState& other) const {
  const uint64_t autocast = c10::autocast_dispatch_keyset.raw_repr();
  GlobalState copy = *this;
  copy.grad_mode = other.grad_mode;
  copy.autocast_cache = other.autocast_cache;
  copy.autocast_nesting = other.autocast_nesting;
  copy.autocast_dtype_cpu = other.autocast_dtype_cpu;
  copy.autocast_dtype_cuda = other.autocast_dtype_cuda;
  copy.tls_included = (tls_included & ~autocast) | (other.tls_included & autocast);
  copy.tls_excluded = (tls_excluded & ~autocast) | (other.tls_excluded & autocast);
  return copy.differs_only_in_settings(other);
}

GlobalState GlobalState::with_inference_of(const GlobalState& other) const {
  const uint64_t keys =
      (c10::autograd_dispatch_keyset | c10::DispatchKeySet(c10::DispatchKey::ADInplaceOrView)).raw_repr();
  GlobalState copy = *this;
  copy.inference_mode = other.inference_mode;
  copy.tls_included = (tls_included & ~keys) | (other.tls_included & keys);
  copy.tls_excluded = (tls_excluded & ~keys) | (other.tls_excluded & keys);
  return copy;
}

void GlobalState::enter_regions() const {
  c10::GradMode::set_enabled(grad_mode);
  ir::switch_global_flags(static_cast<uint32_t>(flags & ir::kSwitchableFlags));
  at::autocast::set_autocast_cache_enabled(autocast_cache);
  at::autocast::set_autocast_dtype(at::kCPU, static_cast<at::ScalarType>(autocast_dtype_cpu));
  at::autocast::set_autocast_dtype(at::kCUDA, static_cast<at::ScalarType>(autocast_dtype_cuda));
  const c10::DispatchKeySet included(c10::DispatchKeySet::RAW, tls_included);
  const c10::DispatchKeySet excluded(c10::DispatchKeySet::RAW, tls_excluded);
  for (const c10::DispatchKey key : c10::autocast_dispatch_keyset) {
    c10::impl::tls_set_dispatch_key_included(key, included.has(key));
    c10::impl::tls_set_dispatch_key_excluded(key, excluded.has(key));
  }
  int nesting = at::autocast::increment_nesting() - 1;
  at::autocast::decrement_nesting();
  if (nesting > 0 && autocast_nesting == 0) at::autocast::clear_cache();
  for (; nesting > autocast_nesting; --nesting) at::autocast::decrement_nesting();
  for (; nesting < autocast_nesting; ++nesting) at::autocast::increment_nesting();
}

std::string GlobalState::changes(const GlobalState& now) const {
  std::string out;
  const auto add = [&](const char* name, const std::string& was, const std::string& is) {
    if (was != is) out += (out.empty() ? "" : "; ") + std::string(name) + ": was " + was + ", is " + is;
  };
  const auto on_off = [](bool on) { return std::string(on ? "on" : "off"); };
  const auto dtype = [](int16_t t) { return std::string(c10::toString(static_cast<c10::ScalarType>(t))); };
  const auto keys = [](uint64_t raw) {
    std::string names;
    for (const c10::DispatchKey key : c10::DispatchKeySet(c10::DispatchKeySet::RAW, raw))
      names += (names.empty() ? "" : "+") + std::string(c10::toString(key));
    return names.empty() ? "none" : names;
  };
  const auto mode = [](const void* m) {
    return m == nullptr ? std::string("none")
                        : std::string(Py_TYPE(static_cast<const PyObject*>(m))->tp_name);
  };
  add("grad mode", on_off(grad_mode), on_off(now.grad_mode));
  add("inference mode", on_off(inference_mode), on_off(now.inference_mode));
  add("torch functions", on_off(torch_function_enabled), on_off(now.torch_function_enabled));
  add("autocast cache", on_off(autocast_cache), on_off(now.autocast_cache));
  add("autocast nesting", std::to_string(autocast_nesting), std::to_string(now.autocast_nesting));
  add("autocast dtype of CPU", dtype(autocast_dtype_cpu), dtype(now.autocast_dtype_cpu));
  add("autocast dtype of CUDA", dtype(autocast_dtype_cuda), dtype(now.autocast_dtype_cuda));
  add("anomaly mode", on_off(anomaly_mode), on_off(now.anomaly_mode));
  add("recursion limit", std::to_string(recursion_limit), std::to_string(now.recursion_limit));
  add("default dtype", dtype(default_dtype), dtype(now.default_dtype));
  add("included dispatch keys", keys(tls_included), keys(now.tls_included));
  add("excluded dispatch keys", keys(tls_excluded), keys(now.tls_excluded));
  for (size_t i = 0; i < kMaxModes; ++i) {
    if (modes[i] == now.modes[i]) continue;
    add("torch-function mode", mode(modes[i]), mode(now.modes[i]));
    if (modes[i] != nullptr && now.modes[i] != nullptr) add("torch-function mode", "one", "another one");
  }
  add("forward AD", on_off(!(flags & kNoForwardGrad)), on_off(!(now.flags & kNoForwardGrad)));
  add("hooks on saved tensors", on_off(!(flags & kNoSavedTensorHooks)),
      on_off(!(now.flags & kNoSavedTensorHooks)));
  add("flags", ir::global_flag_text(flags), ir::global_flag_text(now.flags));
  return out;
}

bool autograd_is_plain() {
  return at::SavedTensorDefaultHooks::get_tls_state().stack.empty() &&
         torch::autograd::ForwardADLevel::try_get_by_idx(0) == nullptr;
}

bool in_forward_ad() { return torch::autograd::ForwardADLevel::try_get_by_idx(0) != nullptr; }

bool global_state_supported() {
  return function_mode_count() <= GlobalState::kMaxModes &&
         c10::impl::TorchDispatchModeTLS::stack_len() == 0 &&
         !c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerFrontMode);
}

uint64_t abc_token() {
  static PyObject* function = [] {
    Ref module = Ref::steal(PyImport_ImportModule("_abc"));
    return module ? PyObject_GetAttrString(module.get(), "get_cache_token") : nullptr;
  }();
  if (function == nullptr) {
    PyErr_Clear();
    return 0;
  }
  Ref token = Ref::steal(PyObject_CallNoArgs(function));
  const uint64_t value = token ? PyLong_AsUnsignedLongLong(token.get()) : 0;
  PyErr_Clear();
  return value;
}

}  // namespace flashpoint
