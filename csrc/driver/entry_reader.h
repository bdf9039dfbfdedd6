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

#include "driver/entry.h"
#include "driver/positions.h"

namespace flashpoint {

enum class ReadOutcome : uint8_t {
  kRead,
  kOtherCall,  // its guards do not hold for this call; they may for another
  kChanged,    // what it was recorded from is otherwise now; `why` says what
  kMalformed,
};

struct StoredCall {
  PyObject* function;
  PyObject* const* args;
  size_t nargs;  // by position
  PyObject* kwnames;
  const GlobalState& now;
  const OuterHandling& outer;
};

struct ReadOptions {
  Backend backend = Backend::kEager;
  bool poison_empty = false;
};

std::shared_ptr<Entry> read_entry(std::string_view bytes, const StoredCall& call, const ReadOptions& options,
                                  ReadOutcome* outcome, std::string* why);

}  // namespace flashpoint
