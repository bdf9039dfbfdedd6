// From kernels to callable machine code, in process: emit LLVM IR, run code generation, link in memory.
//
// compile_kernels() compiles everything it is given that is not known yet in one module. Code is kept for the
// life of the process and shared by equal kernels. Nothing is written to disk and no tool is run.
//
// Threads: any, one compilation at a time; no GIL needed. Throws InternalError when LLVM reports an error.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend/native/kernel.h"

namespace flashpoint::native {

// args: the data pointers of Kernel::buffers. begin, end: which units (Kernel::units); of a flat kernel,
// begin must be a multiple of kFlatStep, and so must end unless it is the last unit.
using KernelFunction = void (*)(void* const* args, int64_t begin, int64_t end);
inline constexpr int64_t kFlatStep = 64;

struct CompileStats {
  int compiled = 0;  // kernels that were new
  int reused = 0;
  double emit_ms = 0;
  double codegen_ms = 0;
  double link_ms = 0;
};

std::vector<KernelFunction> compile_kernels(const std::vector<Kernel>& kernels,
                                            CompileStats* stats = nullptr);

// What the code is for: "avx512", "avx2" or "sse". The best the machine has, unless FLASHPOINT_NATIVE_ISA
// names a lesser one (read once).
const std::string& target_isa();

// Whether code for f16 can be generated: older machines lack the conversions.
bool has_half_conversions();

// The LLVM IR of one kernel, before code generation: for people and tests.
std::string llvm_text(const Kernel& kernel);

}  // namespace flashpoint::native
