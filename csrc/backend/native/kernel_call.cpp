#include "backend/native/kernel_call.h"

#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty_strided.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>

#include "backend/native/guarded_buffers.h"
#include "backend/native/passes.h"
#include "base/check.h"

namespace flashpoint::native {
namespace {

constexpr double kChunkNanoseconds = 20'000;  // below this a thread costs more than it brings

// The memory of a tensor that nobody else has, as a new tensor; undefined if somebody has.
at::Tensor take_over(const at::Tensor& tensor, const ir::TensorMeta& meta) {
  const c10::TensorImpl& impl = *tensor.unsafeGetTensorImpl();
  if (tensor.use_count() != 1 || !impl.has_storage() || impl.requires_grad()) return {};
  const c10::Storage& storage = tensor.storage();
  const auto bytes = static_cast<size_t>(tensor.numel()) * tensor.element_size();
  if (storage.use_count() != 1 || tensor.storage_offset() != 0 || storage.nbytes() != bytes) return {};
  // Memory that torch's own allocator gave: other memory may be seen from outside.
  if (storage.data_ptr().get_deleter() != c10::GetCPUAllocator()->raw_deleter()) return {};
  at::Tensor result = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(storage), c10::DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
  result.unsafeGetTensorImpl()->set_sizes_and_strides(meta.sizes, meta.strides);
  return result;
}

bool same_layout(const at::Tensor& tensor, const ir::TensorMeta& meta) {
  const auto strides = tensor.strides();
  for (size_t d = 0; d < meta.sizes.size(); ++d) {
    if (meta.sizes[d] != 1 && strides[d] != meta.strides[d]) return false;
  }
  return true;
}

}  // namespace

double kernel_nanoseconds(const Kernel& kernel) {
  double cost = 0;
  for (const KernelOp& op : kernel.ops) cost += prim_cost(op.prim);
  const double point = 0.05 * static_cast<double>(kernel.buffers.size()) + 0.02 * cost;
  return point * static_cast<double>(kernel.rows()) * static_cast<double>(kernel.columns());
}

void require_number_fits(const at::Tensor& number, c10::ScalarType dtype) {
  const bool real = number.scalar_type() == c10::ScalarType::Double;
  const c10::Scalar scalar =
      real ? c10::Scalar(*number.const_data_ptr<double>()) : c10::Scalar(*number.const_data_ptr<int64_t>());
  switch (dtype) {
#define X(type, name)         \
  case c10::ScalarType::name: \
    (void)scalar.to<type>();  \
    return;
    AT_FORALL_SCALAR_TYPES_AND3(Half, BFloat16, Bool, X)
#undef X
    default:
      FP_CHECK(false, "a number for a dtype without code generation");
  }
}

bool number_fits(const at::Tensor& number, c10::ScalarType dtype) {
  try {
    require_number_fits(number, dtype);
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

KernelCall::KernelCall(const KernelSpec& spec, KernelFunction function, const std::vector<bool>& dying)
    : inputs_(spec.inputs),
      outputs_(spec.outputs),
      writes_(spec.writes),
      updates_(spec.updates),
      numbers_(spec.numbers),
      donors_(find_donors(spec, dying)),
      function_(function) {
  units_ = spec.kernel.units();
  block_size_ = spec.kernel.cut_in_steps() ? kFlatStep : 1;
  blocks_ = (units_ + block_size_ - 1) / block_size_;
  const double per_block = std::max(kernel_nanoseconds(spec.kernel) / static_cast<double>(blocks_), 1e-3);
  grain_ = std::max<int64_t>(1, static_cast<int64_t>(kChunkNanoseconds / per_block));
}

std::vector<int32_t> KernelCall::find_donors(const KernelSpec& spec, const std::vector<bool>& dying) const {
  std::vector<int32_t> donors(outputs_.size(), -1);
  const PassPlan plan(spec.kernel);
  std::vector<bool> taken(inputs_.size());
  for (const Store& store : spec.kernel.stores) {
    const size_t output = static_cast<size_t>(store.access.buffer) - inputs_.size();
    if (static_cast<size_t>(store.access.buffer) < inputs_.size()) continue;  // an update
    // Of a row that is read more than once, the last walk may write.
    if (spec.kernel.reduces() &&
        (plan.is_row_store(store) || plan.store_pass(store) != plan.pass_count() - 1)) {
      continue;
    }
    for (size_t i = 0; i < inputs_.size() && donors[output] < 0; ++i) {
      const ir::TensorMeta& from = inputs_[i];
      const ir::TensorMeta& to = outputs_[output];
      if (!dying[i] || taken[i] || is_updated(i) || from.dtype != to.dtype || from.sizes != to.sizes ||
          from.strides != to.strides) {
        continue;
      }
      const bool in_step =
          std::all_of(spec.kernel.ops.begin(), spec.kernel.ops.end(), [&](const KernelOp& op) {
            if (op.prim != Prim::load || static_cast<size_t>(op.access.buffer) != i) return true;
            return op.access.strides == store.access.strides && op.access.offset == store.access.offset;
          });
      if (!in_step) continue;
      donors[output] = static_cast<int32_t>(i);
      taken[i] = true;
    }
  }
  return donors;
}

void KernelCall::run(c10::ArrayRef<const at::Tensor*> inputs, c10::ArrayRef<at::Tensor*> outputs) const {
  c10::SmallVector<void*, 16> args;
  c10::SmallVector<at::Tensor, 1> copies;
  c10::SmallVector<std::pair<const at::Tensor*, at::Tensor>, 1> copied_back;
  for (const NumberUse& use : numbers_) require_number_fits(*inputs[use.input], use.dtype);
  for (size_t i = 0; i < inputs.size(); ++i) {
    const at::Tensor& tensor = *inputs[i];
    const ir::TensorMeta& meta = inputs_[i];
    if (tensor.sizes() != at::IntArrayRef(meta.sizes) || tensor.scalar_type() != meta.dtype) {
      throw InternalError("[flashpoint] a kernel's input is not of the size it was compiled for");
    }
    if (same_layout(tensor, meta)) {
      args.push_back(is_updated(i) ? tensor.mutable_data_ptr() : const_cast<void*>(tensor.const_data_ptr()));
    } else {
      copies.push_back(at::empty_strided(meta.sizes, meta.strides, tensor.options()));
      copies.back().copy_(tensor);
      args.push_back(copies.back().mutable_data_ptr());
      if (is_updated(i)) copied_back.emplace_back(&tensor, copies.back());
    }
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    const ir::TensorMeta& meta = outputs_[i];
    *outputs[i] = at::Tensor();
    if (donors_[i] >= 0) {
      const at::Tensor& donor = *inputs[static_cast<size_t>(donors_[i])];
      if (same_layout(donor, meta)) *outputs[i] = take_over(donor, meta);
    }
    if (!outputs[i]->defined()) {
      *outputs[i] = at::detail::empty_strided_cpu(meta.sizes, meta.strides, meta.dtype);
    }
    if (!outputs[i]->is_inference()) {
      for (int32_t k = 0; k < writes_[i]; ++k) outputs[i]->unsafeGetTensorImpl()->bump_version();
    }
    args.push_back(outputs[i]->mutable_data_ptr());
  }
  run_code(args.data(), inputs.size());
  for (const auto& [tensor, copy] : copied_back) const_cast<at::Tensor&>(*tensor).copy_(copy);
  for (const Update& update : updates_) {
    const at::Tensor& tensor = *inputs[update.input];
    if (tensor.is_inference()) continue;
    for (int32_t k = 0; k < update.versions; ++k) tensor.unsafeGetTensorImpl()->bump_version();
  }
}

bool KernelCall::is_updated(size_t input) const {
  return std::any_of(updates_.begin(), updates_.end(),
                     [&](const Update& update) { return update.input == input; });
}

void KernelCall::run_code(void* const* data, size_t inputs) const {
  if (guard_buffers()) [[unlikely]] {
    run_guarded(data, inputs);
    return;
  }
  if (blocks_ <= grain_) {
    function_(data, 0, units_);
    return;
  }
  at::parallel_for(0, blocks_, grain_, [&](int64_t begin, int64_t end) {
    function_(data, begin * block_size_, std::min(end * block_size_, units_));
  });
}

void KernelCall::run_guarded(void* const* data, size_t inputs) const {
  GuardedBuffers buffers;
  std::vector<void*> copies;
  for (size_t i = 0; i < inputs; ++i) copies.push_back(buffers.add(data[i], inputs_[i]));
  for (size_t i = 0; i < outputs_.size(); ++i) copies.push_back(buffers.add(data[inputs + i], outputs_[i]));
  function_(copies.data(), 0, units_);
  for (size_t i = 0; i < outputs_.size(); ++i) buffers.write_back(inputs + i);
  for (const Update& update : updates_) buffers.write_back(update.input);
}

}  // namespace flashpoint::native
