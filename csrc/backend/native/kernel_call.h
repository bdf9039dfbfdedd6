// A kernel's code together with what it needs to run: checks its inputs, makes its outputs, decides on
// threads.
//
// Code is made for exact sizes and strides. Inputs of other sizes are an internal error; of other strides (an
// operator may lay its result out differently from when it was recorded) they are copied first.
//
// Threads: any number at once; no GIL needed.
#pragma once

#include <ATen/core/Tensor.h>

#include "backend/native/jit.h"
#include "backend/native/schedule.h"
#include "backend/program.h"

namespace flashpoint::native {

class KernelCall final : public KernelCode {
 public:
  KernelCall(const KernelSpec& spec, KernelFunction function);
  void run(c10::ArrayRef<const at::Tensor*> inputs, c10::ArrayRef<at::Tensor*> outputs) const override;

 private:
  void run_guarded(void* const* data, size_t inputs) const;

  std::vector<ir::TensorMeta> inputs_;
  std::vector<ir::TensorMeta> outputs_;
  std::vector<int32_t> writes_;
  KernelFunction function_;
  int64_t blocks_;      // units of work that threads divide
  int64_t block_size_;  // in units of the kernel
  int64_t units_;
  int64_t grain_;  // blocks a thread should get at least
};

}  // namespace flashpoint::native
