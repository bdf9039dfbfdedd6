// Names of positions: where the frames of a chain stand, and which of their slots are empty.
//
// Within a process a position's key has the addresses of code objects, which its CodeState keeps alive. For
// the store it has their fingerprints instead, so a code that was changed has no positions there.
// Instructions are numbered alike in both: bytecode is part of a fingerprint, and the version of Python of
// every key.
//
// GIL: required.
#pragma once

#include <Python.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace flashpoint {

struct PositionFrame {
  PyCodeObject* code;
  int32_t at;     // the instruction: that of the call in progress, but for the innermost frame
  int16_t slots;  // of locals and value stack, without the operands of that call
  int16_t link;   // FrameLink
};

// args: those of the position's entries, in the order of Session::describe().
std::string position_key(const std::vector<PositionFrame>& frames, const std::vector<PyObject*>& args);
// Outermost first; of a key that position_key() made.
std::vector<PositionFrame> frames_of_position(std::string_view key);
// Names of functions for people, and a digest. Empty where a code has no portable form.
std::string portable_position(std::string_view key);

}  // namespace flashpoint
