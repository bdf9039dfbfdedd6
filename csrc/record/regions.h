// Regions of inference mode that a recording enters: what a break inside one needs to enter it again.
//
// The object that keeps the region open is C code's, and holds what leaving it puts back: the state of the
// thread when it was entered. One recording at a time per thread. GIL: required.
#pragma once

#include <Python.h>

#include <cstdint>

#include "guard/global_state.h"

namespace flashpoint {

struct InferenceRegion {
  PyObject* manager = nullptr;  // borrowed
  GlobalState before;
};

bool is_inference_region(PyObject* object);
// A manager is about to be made in the recording of this number: the region begins with it.
void begin_inference_region(uint64_t recording);
// The __enter__ of the manager that was made last is about to run.
void note_inference_region(uint64_t recording, PyObject* manager);
// Its __exit__ is.
void forget_inference_region(uint64_t recording, PyObject* manager);
// One that this recording has entered and not left will put our own dispatch keys back.
bool keeps_inference_region(uint64_t recording);
// The only region that this recording has entered and not left; null for none and for several.
const InferenceRegion* open_inference_region(uint64_t recording);

}  // namespace flashpoint
