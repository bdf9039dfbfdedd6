// What generated code and stored records depend on in this machine and this build of Flashpoint.
//
// Threads: constant after the first call.
#pragma once

#include <string>
#include <vector>

namespace flashpoint::store {

// Version of everything the store writes: records, database, portable files. A change of any of them adds
// one.
inline constexpr unsigned kFormatVersion = 1;

// Names of the processor's features that code may be generated for, sorted; only those that the operating
// system lets programs use. Rows of cpu_features.def.
const std::vector<std::string>& cpu_features();

// Identifies this very build of the core: the linker's build id in hex, empty if it wrote none.
const std::string& build_id();

}  // namespace flashpoint::store
