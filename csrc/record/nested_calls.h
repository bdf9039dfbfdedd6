// Calls that a recorder makes itself, in place of the instruction that would make them.
//
// Their frames are recorded, and the recording may end in them. The recorder is on the C stack then.
#pragma once

namespace flashpoint {

class Recorder;

// Whether the recorder waits, on this thread, for a call to return. It must outlive that call.
bool waits_for_call(const Recorder* recorder);

}  // namespace flashpoint
