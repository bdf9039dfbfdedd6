// The base level: what differs where operators are seen below autograd and functorch.
//
// Autograd and functorch hold on to copies of a tensor that no operator made (saved variables, views, stolen
// gradients, wrappers). Below them only memory matters, so a tensor is known when it reads memory that the
// recording follows in the way that a known tensor does; the storages are held weakly, so that an address
// says which one it is. History (grad_fn, requires_grad) says nothing about values here; what of it leaves
// the region is the concern of record/history.h.
#include <ATen/core/Tensor.h>
#include <ATen/functorch/BatchedTensorImpl.h>

#include "record/graph_recorder.h"

// Its header needs a JSON library that torch's wheel does not bring.
namespace at::functorch {
struct TensorWrapper;
TORCH_API TensorWrapper* maybeGetTensorWrapper(const Tensor& tensor);
}  // namespace at::functorch

namespace flashpoint {
namespace {

constexpr c10::DispatchKeySet kFunctorchKeys({c10::DispatchKey::FuncTorchBatched,
                                              c10::DispatchKey::FuncTorchGradWrapper});

// The first member of at::functorch::TensorWrapper; tests/python/test_base_level.py would notice another one.
struct WrapperLayout : c10::TensorImpl {
  at::Tensor value;
};

// What the wrappers of all levels hold.
at::Tensor unwrapped(at::Tensor tensor) {
  while (tensor.defined() && tensor.unsafeGetTensorImpl()->key_set().has_any(kFunctorchKeys)) {
    if (auto* batched = at::functorch::maybeGetBatchedImpl(tensor)) {
      tensor = at::Tensor(batched->value());
    } else if (auto* wrapper = at::functorch::maybeGetTensorWrapper(tensor)) {
      tensor = at::Tensor(reinterpret_cast<const WrapperLayout*>(wrapper)->value);
    } else {
      break;
    }
  }
  return tensor;
}

}  // namespace

IdentityTable::Index GraphRecorder::lookup(const at::Tensor& tensor) const {
  if (!tensor.defined()) return IdentityTable::kNone;
  const auto index = table_.find(tensor.unsafeGetTensorImpl());
  if (index != IdentityTable::kNone || !is_base()) return index;
  const at::Tensor plain = unwrapped(tensor);
  if (!plain.defined()) return IdentityTable::kNone;
  auto& table = const_cast<IdentityTable&>(table_);
  const auto inner = table.find(plain.unsafeGetTensorImpl());
  return inner != IdentityTable::kNone ? inner : table.find_alias(plain);
}

// Only keys below ours matter to what runs there: what autograd, functorch and lazy conjugation set is their
// business.
void GraphRecorder::check_base_keys(const std::string& name) {
  const auto keys = c10::impl::tls_local_dispatch_key_set();
  const c10::DispatchKeySet below(c10::DispatchKeySet::FULL_AFTER, kBaseTracerKey);
  const bool inference = c10::AutogradState::get_tls_state().get_inference_mode();
  if ((keys.included_ & below) != (c10::default_included_set & below) ||
      (keys.excluded_ & below) != (c10::default_excluded_set & below) ||
      keys.included_.has_any(
          c10::DispatchKeySet({c10::DispatchKey::Python, c10::DispatchKey::Functionalize})) ||
      inference != base_inference_) {
    break_off(GraphBreak::dispatch_keys, name);
  }
}

// The value of a tensor that leaves. One that is known by its memory alone is another tensor than the one it
// was found by, unless that is gone.
ir::ValueId GraphRecorder::name_escape(const at::Tensor& tensor) {
  const auto index = lookup(tensor);
  const auto& entry = table_[index];
  if (table_.find(tensor.unsafeGetTensorImpl()) != IdentityTable::kNone) return entry.value;
  const ir::ValueId value = entry.value;
  const bool taken = entry.alive() || entry.input >= 0 || !names_escapes_.insert(value).second;
  if (!taken) {
    table_.add(tensor, value);
    return value;
  }
  // As a view that has no history, which is how copies come about.
  LoggedCall* call = log_.new_call(1, 1);
  call->op = detach_op();
  call->state = state_;
  call->args[0].kind = LoggedArg::Kind::kValue;
  call->args[0].integer = value;
  const int32_t node = log_.append(call);
  const ir::ValueId id = add_value(tensor, node, has_dynamic_shape(value));
  call->outputs[0].first = id;
  table_.add(tensor, id);
  return id;
}

}  // namespace flashpoint
