// Modules that rules name and that a program may import only after the first recording.
//
// GIL: required.
#pragma once

#include "py/ref.h"

namespace flashpoint {

// A module that has been imported to its end; else null, and its name is remembered.
Ref imported_module(const char* name);

// Has the rules resolved again if one of the missing modules is there by now. Called when a recording starts
// and when it imports something; costs a comparison while nothing is imported.
void look_for_late_modules();

// Whether the rules are to be resolved: they never were, or a module has come.
bool take_late_modules();

}  // namespace flashpoint
