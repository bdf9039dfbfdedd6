// Reads the snapshot of frames that a stored entry ends in at a break (driver/entry_format.h).
//
// What lies on a value stack is taken for granted by the interpreter, and only bytes that were written by
// this user's processes, or signed, come here. Beyond that each frame has to be one that can be made: a
// function whose code the guards know, an instruction of it, as many slots as there are, cells where it has
// cells.
//
// Callers: entry_reader.cpp, after the recipes were read. GIL: required.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "driver/position_key.h"
#include "driver/recipe_reader.h"
#include "replay/recipe.h"
#include "store/bytes.h"

namespace flashpoint {

struct FrameSources {
  RecipeReader& recipes;
  const std::vector<PyObject*>& nodes;        // what the guards reached
  std::function<bool(NodeId)> knows_code;     // of the function there
  std::function<bool(NodeId)> is_fixed;       // the type of what is there
  const std::vector<PositionFrame>* running;  // frames of the position; null at a function's start
};

// Null where it is malformed.
std::unique_ptr<Suspension> read_frames(store::Reader& in, const FrameSources& sources);

}  // namespace flashpoint
