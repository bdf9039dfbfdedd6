// What a guard pins of a tensor: everything but its data, its address and its storage offset.
//
// Taken at first sight of a tensor in a recording, compared at each call. Reads of what is left out
// (storage_offset, data_ptr, _version) are breaks, so that nothing else can be learned unguarded.
// GIL: not needed; the tensor must not change concurrently.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "py/ref.h"

namespace flashpoint {

struct TensorMeta {
  uint64_t key_set = 0;  // dispatch key set: backend, autograd, conj, neg, inference, subclass keys
  int16_t dtype = 0;
  int16_t device_type = 0;
  int16_t device_index = 0;
  int16_t layout = 0;
  bool requires_grad = false;
  bool is_leaf = true;
  bool is_inference = false;
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;

  static TensorMeta of(PyObject* tensor);
  bool matches(PyObject* object) const;
  bool matches_tensor(PyObject* tensor) const;  // the same, of what is known to be one
  bool operator==(const TensorMeta&) const = default;
  std::string text() const;
};

bool has_storage_offset(PyObject* object, int64_t offset);
// True when the memory ranges of two tensors may overlap (same storage, ranges touch).
bool tensors_overlap(PyObject* a, PyObject* b);

}  // namespace flashpoint
