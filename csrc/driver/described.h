// What a compiled function has recorded, as Python values (Entry and Report in flashpoint/_C.pyi). GIL:
// required.
#pragma once

#include <Python.h>

#include "driver/positions.h"

namespace flashpoint {

// A list of dicts: entries from the start of the function, oldest first, then those behind breaks.
PyObject* described_entries(const CodeState& state);
// A dict; None before the first recording.
PyObject* described_report(const CodeState& state);

}  // namespace flashpoint
