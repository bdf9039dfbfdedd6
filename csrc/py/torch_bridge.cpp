#include "py/torch_bridge.h"

#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/autograd/variable.h>

namespace flashpoint::py {

bool is_tensor(PyObject* o) { return THPVariable_Check(o); }
bool is_plain_tensor(PyObject* o) { return THPVariable_CheckTypeExact(Py_TYPE(o)); }
bool is_parameter(PyObject* o) { return Py_TYPE(o) == reinterpret_cast<PyTypeObject*>(ParameterClass); }
const at::Tensor& unpack_tensor(PyObject* o) { return THPVariable_Unpack(o); }
c10::TensorImpl* tensor_impl(PyObject* o) { return THPVariable_Unpack(o).unsafeGetTensorImpl(); }
PyObject* wrap_tensor(const at::Tensor& tensor) { return THPVariable_Wrap(tensor); }
bool tensor_is_leaf(PyObject* o) { return THPVariable_Unpack(o).is_leaf(); }

bool tensor_has_hooks(PyObject* o) {
  const auto* v = reinterpret_cast<THPVariable*>(o);
  return v->backward_hooks != nullptr || v->post_accumulate_grad_hooks != nullptr ||
         !torch::autograd::impl::hooks(v->cdata).empty();
}

void translate_exception() {
  try {
    throw;
  } catch (...) {
    torch::translate_exception_to_python(std::current_exception());
  }
}

}  // namespace flashpoint::py
