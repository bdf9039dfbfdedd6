#include "driver/call_signature.h"

#include <ATen/core/Tensor.h>

#include "base/flat_map.h"
#include "guard/guard_tree.h"
#include "py/torch_bridge.h"

namespace flashpoint {

namespace {

size_t join(size_t seed, size_t more) { return mix_bits(seed * 31 + more); }

size_t look_of(PyObject* o, bool* is_instance) {
  if (o == nullptr) return 0;
  PyTypeObject* type = Py_TYPE(o);
  size_t look = reinterpret_cast<size_t>(type);
  if (is_tensor(o)) {
    if (!is_plain_tensor(o)) return look;
    const at::Tensor& tensor = unpack_tensor(o);
    look = join(look, static_cast<size_t>(tensor.key_set().raw_repr()));
    look = join(look, static_cast<size_t>(tensor.scalar_type()) * 2 + (tensor.requires_grad() ? 1 : 0));
    if (tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides()) return look;
    for (const int64_t size : tensor.sizes()) look = join(look, static_cast<size_t>(size));
    return look;
  }
  if (is_primitive(o)) {
    const Py_hash_t value = PyObject_Hash(o);
    if (value == -1) PyErr_Clear();
    return join(look, static_cast<size_t>(value));
  }
  *is_instance = PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE);
  return look;
}

}  // namespace

CallSignature call_signature(PyObject* const* args, size_t nargs, PyObject* kwnames) {
  const size_t named = kwnames == nullptr ? 0 : static_cast<size_t>(PyTuple_GET_SIZE(kwnames));
  CallSignature signature{nargs, ~nargs};
  for (size_t i = 0; i < nargs + named; ++i) {
    bool is_instance = false;
    const size_t look = look_of(args[i], &is_instance);
    signature.alike = join(signature.alike, look);
    // Of an object with attributes an entry may have seen the very one.
    signature.exact =
        join(signature.exact, is_instance ? join(look, reinterpret_cast<size_t>(args[i])) : look);
  }
  return signature;
}

}  // namespace flashpoint
