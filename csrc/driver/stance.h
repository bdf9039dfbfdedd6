// What compiled functions may do at the moment: flashpoint.set_stance, and torch.compiler.set_stance.
//
// TorchDynamo keeps its stance and its error_on_graph_break in variables of its modules; they are read from
// there once the modules are imported, so torch's own functions work for ours as well. GIL: required.
#pragma once

#include <Python.h>

#include <cstdint>

namespace flashpoint {

enum class Stance : uint8_t {
  kDefault,
  kEagerThenCompile,  // the first call of each function runs eagerly
  kForceEager,        // run eagerly
  kEagerOnRecompile,  // use the entries there are, and run eagerly where none fits
  kFailOnRecompile,   // the same, and raise where none fits
};

// The stricter of ours and torch's.
Stance current_stance();
Stance own_stance();
void set_own_stance(Stance stance);

// Inside torch._dynamo.run(): nothing is recorded.
bool is_run_only();

// torch._dynamo.error_on_graph_break is on.
bool errors_on_graph_break();

}  // namespace flashpoint
