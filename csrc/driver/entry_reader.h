// Makes an entry of what write_entry() wrote, for a function of this process and one call of it.
//
// The guards are followed through the call's own arguments: what they reach is what the entry refers to from
// then on, if it is what was described. So an entry is only made where its guards hold, and the caller can
// use it at once. Anything else is an outcome, never an error: malformed bytes, an object that is otherwise
// than when the entry was written, guards that do not hold for this call.
//
// GIL: required.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "driver/entry.h"
#include "driver/guard_reader.h"
#include "driver/position_key.h"
#include "driver/positions.h"

namespace flashpoint {

struct ReadOptions {
  Backend backend = Backend::kEager;
  Ref compiler;  // a Python backend's (driver/fx_backend.h), in place of our own; or null
  bool poison_empty = false;
  bool may_break = true;  // an entry may end at a break
  bool trusted = true;    // the bytes are what this user's processes wrote, or what was signed
};

struct ReadResult {
  std::shared_ptr<Entry> entry;  // with kRead
  ReadOutcome outcome = ReadOutcome::kRead;
  std::string why;
  bool below_autograd = false;  // it was recorded there
};

ReadResult read_entry(std::string_view bytes, const StoredCall& call, const ReadOptions& options);

}  // namespace flashpoint
