// Recorder::guarded, for the two sources that take calls from the evaluator.
#pragma once

#include "base/check.h"
#include "base/counters.h"
#include "record/recorder.h"

namespace flashpoint {

// Nothing of ours may be thrown across the evaluator and CPython: the recording ends, the program goes on.
template <typename Step>
void Recorder::guarded(Step&& step) {
  try {
    step();
  } catch (const std::exception& e) {
    if (strict_mode()) check_failed("a recorder threw", __FILE__, __LINE__, e.what());
    ++counters().internal_errors;
    end(Break::k_internal, e.what());
  }
}

}  // namespace flashpoint
