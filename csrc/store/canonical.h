// The canonical text that keys are hashed from: JSON in ASCII, keys sorted by the caller, ", " and ": "
// between items, as json.dumps(value, sort_keys=True) writes it. Whoever walks a value (module/store_keys.cpp
// does for Python's) writes the brackets; here is what needs care: strings.
#pragma once

#include <cstdint>
#include <string>

namespace flashpoint::store {

// One code point inside a JSON string: surrogates as they are, larger ones as a pair.
void append_code_point(std::string& out, uint32_t point);

}  // namespace flashpoint::store
