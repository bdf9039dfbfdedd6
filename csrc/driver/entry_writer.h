// Writes an entry as data for other processes (driver/entry_format.h).
//
// What may be written is an allow-list: kinds of guards, of objects, recipes and effects that say the same in
// another process. An entry that holds anything else (an address, a hash, an id, state that only this process
// has) stays in this process, and the writer says why.
//
// GIL: required.
#pragma once

#include <string>
#include <string_view>

#include "driver/entry.h"

namespace flashpoint {

// position: the key of the one where it starts (driver/position_key.h), empty for the start of its function.
// Empty, with the reason, for an entry that is of no use elsewhere.
std::string write_entry(Entry& entry, std::string_view position, std::string* reason);

}  // namespace flashpoint
