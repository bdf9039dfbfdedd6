// Rules for modules that a program may import only after the first recording.
//
// Called when a recording starts; costs one lookup in sys.modules until all of them are there. GIL: required.
#pragma once

namespace flashpoint {

void look_for_late_modules();

}  // namespace flashpoint
