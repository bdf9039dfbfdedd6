// A Python function that is told of each call that recorded (flashpoint/dynamo_counters.py).
#pragma once

#include <Python.h>

#include <cstddef>

#include "driver/positions.h"

namespace flashpoint {

// Of a compiled function: entries, those that run operators, and how many these run.
struct EntryTally {
  size_t entries = 0, graphs = 0, operators = 0;
};
EntryTally tally_entries(const CodeState& state);

// Null for none. Borrowed by the caller, kept here. GIL: required.
void set_recording_hook(PyObject* function);
bool has_recording_hook();
// function(entries, graphs, operators, messages of breaks) that the call added. Keeps an error that is set;
// what the function itself raises is written as unraisable.
void tell_recording(const CodeState& state, const EntryTally& before);

}  // namespace flashpoint
