// Where the store lives, and whether it may be trusted: the directory and the files in it must belong to this
// user, and nobody else may be able to write to them.
#pragma once

#include <string>

#include "store/outcome.h"

namespace flashpoint::store {

// FLASHPOINT_CACHE_DIR, else $XDG_CACHE_HOME/flashpoint, else ~/.cache/flashpoint; empty if there is none.
std::string default_directory();

// k_hit if the directory is fit, else why not. Makes it (mode 0700), and what leads to it, if it is not
// there.
Outcome prepare_directory(const std::string& path);

// k_hit for a file that is fit, k_absent if there is none. `or_root`: a file of root's is fit as well.
Outcome check_file(const std::string& path, bool or_root = false);

}  // namespace flashpoint::store
