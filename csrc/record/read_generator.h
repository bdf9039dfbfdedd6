// Which generators would be dropped too late, because a recording keeps them alive. GIL: required.
#pragma once

#include "record/observer.h"

namespace flashpoint {

class Recorder;

// Code of contextlib, which runs the generators it owns to their end.
bool runs_to_the_end(const EvalFrame& frame);
// The frame is that of a generator which the recording keeps alive, and it has come to hold something that
// its owner might let go of together with it.
bool yields_late(const Recorder& recorder, const EvalFrame& frame);

}  // namespace flashpoint
