// Between Python's torch.Tensor objects and at::Tensor. The one place that includes torch's Python headers.
// GIL: required, except for reads of a TensorImpl.
#pragma once

#include <Python.h>

namespace at {
class Tensor;
}
namespace c10 {
struct TensorImpl;
}

namespace flashpoint::py {

bool is_tensor(PyObject* object);        // torch.Tensor or a subclass
bool is_plain_tensor(PyObject* object);  // exactly torch.Tensor, Parameter or Buffer
bool is_parameter(PyObject* object);
const at::Tensor& unpack_tensor(PyObject* tensor);  // borrowed from the object
c10::TensorImpl* tensor_impl(PyObject* tensor);     // borrowed
PyObject* wrap_tensor(const at::Tensor& tensor);    // new reference
bool tensor_is_leaf(PyObject* tensor);
bool tensor_has_hooks(PyObject* tensor);
// Sets the Python error that torch's own bindings would set for the C++ exception in flight.
void translate_exception();

}  // namespace flashpoint::py
