// From kernels to callable machine code, in process: emit LLVM IR, run code generation, link in memory.
//
// compile_kernels() compiles everything it is given that is not known yet in one module. Code is kept for the
// life of the process and shared by equal kernels. Between processes an ObjectStore keeps it, if there is
// one; no tool is run.
//
// Threads: any, one compilation at a time; no GIL needed. Throws InternalError when LLVM reports an error.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "backend/native/kernel.h"

namespace flashpoint::native {

// args: the data pointers of Kernel::buffers. begin, end: which units (Kernel::units); of a kernel cut in
// steps, begin must be a multiple of kFlatStep, and so must end unless it is the last unit.
using KernelFunction = void (*)(void* const* args, int64_t begin, int64_t end);
inline constexpr int64_t kFlatStep = 64;

struct CompileStats {
  int compiled = 0;  // kernels that were new
  int reused = 0;
  int loaded = 0;  // of the new ones: from the store
  double emit_ms = 0;
  double codegen_ms = 0;
  double link_ms = 0;
};

// Relocatable objects by the text of the kernels that they have the code of, in order. What find() returns is
// run: it must be what keep() was given, by this user or someone trusted, under an equal
// target_description().
class ObjectStore {
 public:
  virtual ~ObjectStore() = default;
  virtual std::string find(const std::string& kernels) = 0;  // empty: none; may take the GIL
  virtual void keep(const std::string& kernels, std::string_view object) = 0;
};
void set_object_store(ObjectStore* objects);  // null: none

struct StoredObject {
  std::string kernels;  // whose code it is
  std::string object;   // empty: none
};
// The code of all kernels that the process has none of, if the store has it.
StoredObject find_stored(const std::vector<Kernel>& kernels);

// stored: what find_stored gave, which is asked otherwise.
std::vector<KernelFunction> compile_kernels(const std::vector<Kernel>& kernels, CompileStats* stats = nullptr,
                                            const StoredObject* stored = nullptr);

// How long compiling these would take, at a guess; those that the process has the code of are free.
double compile_milliseconds(const std::vector<Kernel>& kernels);

// What the code is for: "avx512", "avx2" or "sse". The best the machine has, unless FLASHPOINT_NATIVE_ISA
// names a lesser one (read once).
const std::string& target_isa();

// All that object code depends on besides the kernels and this build: processor, features, code generator.
std::string target_description();

// Whether code for f16 can be generated: older machines lack the conversions.
bool has_half_conversions();

// The LLVM IR of one kernel, before code generation: for people and tests.
std::string llvm_text(const Kernel& kernel);

}  // namespace flashpoint::native
