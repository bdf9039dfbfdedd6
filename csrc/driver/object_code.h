// Code that the native backend generated, in the store: a process that finds it there generates none.
//
// A record's key is what the code depends on: the kernels' text, what it was generated for (processor,
// features, version of the code generator) and the build of this core, whose emitter it was. Only what this
// user's own processes made, or what came in a file with a verified signature, is run.
//
// Threads: any; no GIL needed.
#pragma once

namespace flashpoint {

// Once, when the module is made.
void install_object_store();

}  // namespace flashpoint
