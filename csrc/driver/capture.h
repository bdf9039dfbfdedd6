// Runs a call for real while recording it, and turns the recording into an entry.
//
// Whatever happens to the recording, the call itself has run once and its result (or exception) is the
// call's. GIL: required.
#pragma once

#include <memory>
#include <string>

#include "driver/entry.h"

namespace flashpoint {

enum class Backend : uint8_t { kEager, kNative };

struct CaptureOptions {
  bool tracing_state_queries = true;
  bool verify = false;
  bool poison_empty = false;
  Backend backend = Backend::kEager;
  int64_t fail_at_event = 0;  // tests: inject a failed check at this event
};

struct Capture {
  PyObject* result = nullptr;    // new reference; null when the call raised
  std::unique_ptr<Entry> entry;  // null when the recording was dropped
  BreakReport report;            // why, when it was
};

// args as in vectorcall, the receiver of a method included.
Capture capture(PyObject* function, PyObject* const* args, size_t nargs, PyObject* kwnames,
                const CaptureOptions& options);

// True while this thread is recording (a compiled function called inside is then inlined).
bool capturing();

}  // namespace flashpoint
