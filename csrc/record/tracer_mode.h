// The switch between the dispatcher and a recording: one dispatch key per level, three states per thread.
//
// A boxed fallback sits on DispatchKey::TESTING_ONLY_GenericMode, above autocast, functorch and autograd,
// so it sees every outermost operator whole (composite level). Another one sits on DispatchKey::Fake, below
// all of these: it sees what they make of an operator, and what the autograd engine runs (base level). While
// an operator runs the key is excluded, so what the operator calls in turn is not seen.
//
// Recording happens only while all three hold: this thread has a sink, the switch is on
// (`set_dispatch_enabled`), and no NoTracerDispatchMode is alive. Threads start with the switch off. A
// thread that inherits the switch from another one (at::ThreadLocalState copies it, the autograd engine
// uses that) has no sink: what it runs is reported to every live sink as a foreign operator.
//
// Threads and GIL: kernels run with the GIL released; a sink never touches Python. Everything here is
// per thread except the registry of live sinks, which has its own lock.
#pragma once

#include <c10/core/impl/LocalDispatchKeySet.h>

#include <atomic>
#include <vector>

namespace c10 {
class OperatorHandle;
struct IValue;
}  // namespace c10

namespace flashpoint {

inline constexpr c10::DispatchKey kTracerKey = c10::DispatchKey::TESTING_ONLY_GenericMode;
inline constexpr c10::DispatchKey kBaseTracerKey = c10::DispatchKey::Fake;
inline constexpr c10::DispatchKeySet kTracerKeys({kTracerKey, kBaseTracerKey});

enum class TracerLevel : uint8_t { kComposite, kBase };

// The key (of the level that this thread records at) is in its include set and not in its exclude set.
bool is_dispatch_enabled();

// Sets or clears the include bit. While the key is excluded neither is allowed: std::logic_error with the
// message that tracing cannot be enabled within the scope of NoTracerDispatchMode.
void set_dispatch_enabled(bool enabled);

// Whether the key is excluded on this thread: nothing can be recorded here, whatever the switch says.
bool is_dispatch_hidden();

// Hides what runs in its scope from recordings: internal tensor work that must not appear in a graph.
class NoTracerDispatchMode {
 public:
  NoTracerDispatchMode() : guard_(kTracerKeys) {}

 private:
  c10::impl::ExcludeDispatchKeyGuard guard_;
};

// The same for guards that live in Python objects, which need not end in the order in which they began: they
// are counted per thread, and the key stays excluded until the last one ends. A key that was excluded before
// the first of them stays so. Each begin needs its end, on the same thread.
void begin_hidden_dispatch();
void end_hidden_dispatch();

// Takes the base level's key out of the include set, where something has put back what it found.
void clear_base_key();

// What the fallback hands operators to. It runs the operator itself, key excluded, exactly once, and
// lets the operator's exceptions through; its own never leave it.
class TracerSink {
 public:
  virtual ~TracerSink() = default;
  virtual void record(const c10::OperatorHandle& op, c10::DispatchKeySet keys,
                      std::vector<c10::IValue>* stack) = 0;

  // Another thread ran an operator under our switch.
  void report_foreign_op() { foreign_op_.store(true, std::memory_order_relaxed); }
  bool saw_foreign_op() const { return foreign_op_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> foreign_op_{false};
};

// Runs the operator as the dispatcher would have without the key of this level: what a sink calls.
void run_untraced(const c10::OperatorHandle& op, c10::DispatchKeySet keys, std::vector<c10::IValue>* stack,
                  TracerLevel level = TracerLevel::kComposite);

// Makes `sink` this thread's sink and turns the switch of its level on for the lifetime of the scope; nests.
// Installs the fallback on first use in the process.
class TracerScope {
 public:
  explicit TracerScope(TracerSink* sink, TracerLevel level = TracerLevel::kComposite);
  ~TracerScope();
  TracerScope(const TracerScope&) = delete;
  TracerScope& operator=(const TracerScope&) = delete;

  // Puts this thread's switch back to what it was before its innermost scope, when the recording ends before
  // the scope does. From then on the switch is the program's: the scope's end leaves it alone.
  static void restore_switch();

 private:
  TracerScope* outer_;
  TracerSink* saved_sink_;
  c10::DispatchKey saved_key_;
  bool saved_switch_;
  bool restored_ = false;
};

TracerSink* current_sink();

}  // namespace flashpoint
