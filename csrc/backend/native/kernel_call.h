// A kernel's code together with what it needs to run: checks its inputs, makes its outputs, decides on
// threads.
//
// An input that the kernel writes to is written last, after everything that may throw.
//
// Code is made for exact sizes and strides. Inputs of other sizes are an internal error; of other strides (an
// operator may lay its result out differently from when it was recorded) they are copied first.
//
// A result takes the memory over of an input that nobody else has, if each point reads nothing of it but the
// element it writes, and writes in the last walk over a row: the memory is in the caches, and one tensor less
// is alive.
//
// Threads: any number at once; no GIL needed.
#pragma once

#include <ATen/core/Tensor.h>

#include "backend/native/jit.h"
#include "backend/native/schedule.h"
#include "backend/program.h"

namespace flashpoint::native {

// Whether a number input (0-dim, f64 or i64) fits the dtype, as an operator that takes it as a Scalar asks.
// The other form throws what the operator throws.
bool number_fits(const at::Tensor& number, c10::ScalarType dtype);
void require_number_fits(const at::Tensor& number, c10::ScalarType dtype);

// A rough guess of the time one thread takes.
double kernel_nanoseconds(const Kernel& kernel);

class KernelCall final : public KernelCode {
 public:
  // dying: the inputs that nobody uses afterwards.
  KernelCall(const KernelSpec& spec, KernelFunction function, const std::vector<bool>& dying);
  void run(c10::ArrayRef<const at::Tensor*> inputs, c10::ArrayRef<at::Tensor*> outputs) const override;

 private:
  void run_code(void* const* data, size_t inputs) const;
  void run_guarded(void* const* data, size_t inputs) const;
  bool is_updated(size_t input) const;
  std::vector<int32_t> find_donors(const KernelSpec& spec, const std::vector<bool>& dying) const;

  std::vector<ir::TensorMeta> inputs_;
  std::vector<ir::TensorMeta> outputs_;
  std::vector<int32_t> writes_;
  std::vector<Update> updates_;
  std::vector<NumberUse> numbers_;
  std::vector<int32_t> donors_;  // per output: the input whose memory it may take over, or -1
  KernelFunction function_;
  int64_t blocks_;      // units of work that threads divide
  int64_t block_size_;  // in units of the kernel
  int64_t units_;
  int64_t grain_;  // blocks a thread should get at least
};

}  // namespace flashpoint::native
