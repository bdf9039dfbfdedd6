// A seal: what a tensor looked like when the recording last had it in hand.
//
// Tensors can change without an operator: `.data =`, hooks, requires_grad_, autograd.Function, a C
// extension. A graph value whose tensor differs from its seal at a later use is no longer what the graph
// would compute. Mutation by a recorded operator renews the seals of everything that shares the storage.
//
// What is sealed: storage, sizes, strides, offset, dtype, version, autograd node, requires_grad and hooks.
// A view's autograd node is rebuilt lazily after its base was mutated; until then it is not compared.
// Inference tensors have no version.
//
// Threads: the recording's; no GIL needed.
#pragma once

#include <ATen/core/TensorBase.h>

#include <cstdint>

namespace flashpoint {

struct Seal {
  const void* storage = nullptr;
  const void* grad_fn = nullptr;
  uint64_t shape = 0;    // hash of sizes, strides, offset, and of whether it is read conjugated or negated
  int64_t version = -1;  // -1 without a version counter
  uint16_t dtype = 0;
  uint8_t autograd = 0;  // requires_grad, retains_grad, number of hooks
  bool lazy_grad_fn = false;
};

Seal take_seal(const c10::TensorImpl& impl);

// Null when `now` is what the seal says; otherwise what differs.
const char* compare_seals(const Seal& seal, const Seal& now);
// The same for what tells which memory is read, and how.
const char* compare_memory(const Seal& seal, const Seal& now);

int64_t version_of(const c10::TensorImpl& impl);
const void* storage_of(const c10::TensorImpl& impl);  // the StorageImpl, null without storage
bool has_forward_grad(const c10::TensorImpl& impl);

}  // namespace flashpoint
