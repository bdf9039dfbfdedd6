#include "guard/tensor_meta.h"

#include <ATen/core/TensorBase.h>
#include <c10/core/TensorImpl.h>

#include "py/torch_bridge.h"

namespace flashpoint {

TensorMeta TensorMeta::of(PyObject* object) {
  c10::TensorImpl* t = tensor_impl(object);
  TensorMeta m;
  m.key_set = t->key_set().raw_repr();
  m.dtype = static_cast<int16_t>(c10::typeMetaToScalarType(t->dtype()));
  m.device_type = static_cast<int16_t>(t->device().type());
  m.device_index = t->device().index();
  m.layout = static_cast<int16_t>(t->layout());
  m.requires_grad = t->requires_grad();
  m.is_leaf = !m.requires_grad || tensor_is_leaf(object);
  m.is_inference = t->is_inference();
  if (t->layout() == c10::kStrided && !t->has_symbolic_sizes_strides()) {
    m.sizes = t->sizes().vec();
    m.strides = t->strides().vec();
  }
  return m;
}

bool TensorMeta::matches(PyObject* object) const { return is_tensor(object) && matches_tensor(object); }

bool TensorMeta::matches_tensor(PyObject* object) const {
  c10::TensorImpl* t = tensor_impl(object);
  if (t == nullptr || t->key_set().raw_repr() != key_set ||
      static_cast<int16_t>(c10::typeMetaToScalarType(t->dtype())) != dtype ||
      t->has_symbolic_sizes_strides() || static_cast<int16_t>(t->layout()) != layout ||
      t->is_inference() != is_inference) {
    return false;
  }
  if (layout == static_cast<int16_t>(c10::kStrided) &&
      (t->sizes() != c10::IntArrayRef(sizes) || t->strides() != c10::IntArrayRef(strides))) {
    return false;
  }
  const c10::Device device = t->device();
  return static_cast<int16_t>(device.type()) == device_type && device.index() == device_index &&
         autograd_matches(t, requires_grad, is_leaf);
}

std::string TensorMeta::text() const {
  std::string out = c10::toString(static_cast<c10::ScalarType>(dtype));
  out += "[";
  for (size_t i = 0; i < sizes.size(); ++i) out += (i ? "," : "") + std::to_string(sizes[i]);
  out += "] strides (";
  for (size_t i = 0; i < strides.size(); ++i) out += (i ? "," : "") + std::to_string(strides[i]);
  out += ") " +
         c10::Device(static_cast<c10::DeviceType>(device_type), static_cast<c10::DeviceIndex>(device_index))
             .str();
  if (requires_grad) out += is_leaf ? " requires_grad" : " requires_grad non-leaf";
  if (is_inference) out += " inference";
  return out;
}

bool has_storage_offset(PyObject* object, int64_t offset) {
  return is_tensor(object) && tensor_impl(object)->storage_offset() == offset;
}

bool tensors_overlap(PyObject* a, PyObject* b) {
  c10::TensorImpl* x = tensor_impl(a);
  c10::TensorImpl* y = tensor_impl(b);
  if (!x->has_storage() || !y->has_storage()) return false;
  if (x->storage().unsafeGetStorageImpl() != y->storage().unsafeGetStorageImpl()) return false;
  if (x->numel() == 0 || y->numel() == 0) return false;
  auto range = [](c10::TensorImpl* t) {
    int64_t last = t->storage_offset();
    for (int64_t d = 0; d < t->dim(); ++d) last += (t->size(d) - 1) * t->stride(d);
    const int64_t item = static_cast<int64_t>(t->dtype().itemsize());
    return std::pair<int64_t, int64_t>{t->storage_offset() * item, (last + 1) * item};
  };
  const auto [x0, x1] = range(x);
  const auto [y0, y1] = range(y);
  return x0 < y1 && y0 < x1;
}

}  // namespace flashpoint
