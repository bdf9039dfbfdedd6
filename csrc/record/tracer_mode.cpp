#include "record/tracer_mode.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <algorithm>
#include <mutex>
#include <stdexcept>

namespace flashpoint {
namespace {

thread_local TracerSink* thread_sink = nullptr;
thread_local TracerScope* thread_scope = nullptr;       // the innermost; scopes are on the stack
thread_local c10::DispatchKey active_key = kTracerKey;  // that of the innermost scope's level
thread_local int hidden_depth = 0;                      // begin_hidden_dispatch without its end
thread_local bool hidden_by_us = false;                 // the key was not excluded when one of them began

constexpr c10::DispatchKey key_of(TracerLevel level) {
  return level == TracerLevel::kBase ? kBaseTracerKey : kTracerKey;
}

struct LiveSinks {
  std::mutex mutex;
  std::vector<TracerSink*> sinks;
};

LiveSinks& live_sinks() {
  static auto* instance = new LiveSinks;  // outlives worker threads that run on past main
  return *instance;
}

template <TracerLevel level>
void fallback(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  if (thread_sink != nullptr && active_key == key_of(level)) {
    thread_sink->record(op, keys, stack);
    return;
  }
  if (thread_sink == nullptr) {
    auto& live = live_sinks();
    const std::lock_guard<std::mutex> lock(live.mutex);
    for (TracerSink* sink : live.sinks) sink->report_foreign_op();
  }
  run_untraced(op, keys, stack, level);
}

template <TracerLevel level>
void install_fallback() {
  // Registered for good: the handle is leaked, so that unloading order at exit does not matter.
  static auto* handle = new c10::RegistrationHandleRAII(c10::Dispatcher::singleton().registerFallback(
      key_of(level), c10::KernelFunction::makeFromBoxedFunction<&fallback<level>>(), "flashpoint tracer"));
  (void)handle;
}

bool is_included(c10::DispatchKey key) {
  return c10::impl::tls_is_dispatch_key_included(key) && !c10::impl::tls_is_dispatch_key_excluded(key);
}

}  // namespace

bool is_dispatch_enabled() { return is_included(active_key); }

bool is_dispatch_hidden() { return c10::impl::tls_is_dispatch_key_excluded(kTracerKey); }

void set_dispatch_enabled(bool enabled) {
  if (is_dispatch_hidden()) {
    throw std::logic_error(
        "[flashpoint.tracer.set_dispatch_enabled] Cannot enable tracing within the scope of "
        "NoTracerDispatchMode!");
  }
  if (enabled) install_fallback<TracerLevel::kComposite>();
  c10::impl::tls_set_dispatch_key_included(active_key, enabled);
}

void begin_hidden_dispatch() {
  ++hidden_depth;
  if (is_dispatch_hidden()) return;
  hidden_by_us = true;
  for (const c10::DispatchKey key : kTracerKeys) c10::impl::tls_set_dispatch_key_excluded(key, true);
}

void end_hidden_dispatch() {
  if (--hidden_depth > 0 || !hidden_by_us) return;
  hidden_by_us = false;
  for (const c10::DispatchKey key : kTracerKeys) c10::impl::tls_set_dispatch_key_excluded(key, false);
}

void run_untraced(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack,
                  TracerLevel level) {
  const NoTracerDispatchMode hidden;
  const c10::DispatchKeySet below(c10::DispatchKeySet::FULL_AFTER, key_of(level));
  op.redispatchBoxed((keys & below) - kTracerKeys, stack);
}

void clear_base_key() {
  if (c10::impl::tls_is_dispatch_key_included(kBaseTracerKey))
    c10::impl::tls_set_dispatch_key_included(kBaseTracerKey, false);
}

TracerSink* current_sink() { return thread_sink; }

TracerScope::TracerScope(TracerSink* sink, TracerLevel level)
    : outer_(thread_scope),
      saved_sink_(thread_sink),
      saved_key_(active_key),
      saved_switch_(is_included(key_of(level))) {
  active_key = key_of(level);
  if (level == TracerLevel::kBase) install_fallback<TracerLevel::kBase>();
  set_dispatch_enabled(true);
  thread_scope = this;
  thread_sink = sink;
  auto& live = live_sinks();
  const std::lock_guard<std::mutex> lock(live.mutex);
  live.sinks.push_back(sink);
}

TracerScope::~TracerScope() {
  {
    auto& live = live_sinks();
    const std::lock_guard<std::mutex> lock(live.mutex);
    live.sinks.erase(std::find(live.sinks.begin(), live.sinks.end(), thread_sink));
  }
  thread_sink = saved_sink_;
  restore_switch();
  active_key = saved_key_;
  thread_scope = outer_;
}

void TracerScope::restore_switch() {
  if (thread_scope == nullptr || thread_scope->restored_) return;
  thread_scope->restored_ = true;
  c10::impl::tls_set_dispatch_key_included(active_key, thread_scope->saved_switch_);
}

}  // namespace flashpoint
