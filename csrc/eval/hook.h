// The PEP 523 hook: installed while a thread is armed, chained to the hook that was there before.
//
// Invariants
//  - While no thread is armed our hook is not installed (unless another hook was put on top of it; then
//    it stays below and passes everything on).
//  - A frame of an unarmed thread, or one under sys.settrace/setprofile, goes to the previous hook.
//  - Near the end of a thread's C stack the hook is taken out until that depth is left again.
//
// Called by the interpreter for every frame that starts or resumes; GIL held throughout.
#pragma once

#include "py/internal.h"

namespace flashpoint {

// One more armed thread / one less. GIL held.
void hook_acquire();
void hook_release();
// Whether our hook is the one the interpreter calls now.
bool hook_installed();

}  // namespace flashpoint
