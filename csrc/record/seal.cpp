#include "record/seal.h"

#include <torch/csrc/autograd/variable.h>

namespace flashpoint {
namespace {

using torch::autograd::AutogradMeta;
using torch::autograd::DifferentiableViewMeta;

const AutogradMeta* meta_of(const c10::TensorImpl& impl) {
  return static_cast<const AutogradMeta*>(const_cast<c10::TensorImpl&>(impl).autograd_meta());
}

uint64_t mix(uint64_t hash, uint64_t value) {
  hash ^= value + 0x9e3779b97f4a7c15ULL + (hash << 6) + (hash >> 2);
  return hash;
}

}  // namespace

int64_t version_of(const c10::TensorImpl& impl) {
  const auto& counter = impl.version_counter();
  return counter.enabled() ? static_cast<int64_t>(counter.current_version()) : -1;
}

const void* storage_of(const c10::TensorImpl& impl) {
  return impl.has_storage() ? impl.unsafe_storage().unsafeGetStorageImpl() : nullptr;
}

bool has_forward_grad(const c10::TensorImpl& impl) {
  const AutogradMeta* meta = meta_of(impl);
  return meta != nullptr && meta->fw_grad_ != nullptr && !meta->fw_grad_->empty();
}

Seal take_seal(const c10::TensorImpl& impl) {
  Seal seal;
  seal.storage = storage_of(impl);
  seal.version = version_of(impl);
  seal.dtype = static_cast<uint16_t>(c10::typeMetaToScalarType(impl.dtype()));
  if (!impl.has_symbolic_sizes_strides() && impl.layout() == c10::kStrided) {
    const uint64_t lazy = (impl.is_conj() ? 1u << 30 : 0) | (impl.is_neg() ? 1u << 31 : 0);
    uint64_t hash =
        mix(static_cast<uint64_t>(impl.dim()) | lazy, static_cast<uint64_t>(impl.storage_offset()));
    for (int64_t size : impl.sizes()) hash = mix(hash, static_cast<uint64_t>(size));
    for (int64_t stride : impl.strides()) hash = mix(hash, static_cast<uint64_t>(stride));
    seal.shape = hash;
  }
  if (const AutogradMeta* meta = meta_of(impl)) {
    seal.grad_fn = meta->grad_fn_.get();
    const size_t hooks = meta->hooks_.size() + (meta->cpp_hooks_list_ ? meta->cpp_hooks_list_->size() : 0) +
                         (meta->post_acc_grad_hooks_ ? 1 : 0);
    seal.autograd = static_cast<uint8_t>((meta->requires_grad() ? 1 : 0) | (meta->retains_grad_ ? 2 : 0) |
                                         (std::min<size_t>(hooks, 31) << 2));
    if (meta->is_view_) {
      const auto* view = static_cast<const DifferentiableViewMeta*>(meta);
      seal.lazy_grad_fn = view->has_bw_view() && seal.version >= 0 &&
                          static_cast<int64_t>(view->get_attr_version()) != seal.version;
    }
  }
  return seal;
}

const char* compare_memory(const Seal& seal, const Seal& now) {
  if (seal.storage != now.storage) return "storage";
  if (seal.shape != now.shape) return "sizes, strides or offset";
  return seal.dtype == now.dtype ? nullptr : "dtype";
}

const char* compare_seals(const Seal& seal, const Seal& now) {
  if (seal.storage != now.storage) return "storage";
  if (seal.shape != now.shape) return "sizes, strides or offset";
  if (seal.dtype != now.dtype) return "dtype";
  if (seal.version != now.version) return "version";
  if (seal.autograd != now.autograd) return "requires_grad or hooks";
  if (seal.grad_fn != now.grad_fn && !seal.lazy_grad_fn && !now.lazy_grad_fn) return "grad_fn";
  return nullptr;
}

}  // namespace flashpoint
