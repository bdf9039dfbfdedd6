// The border between Python objects and torch's C++ values: the only place that includes torch's Python
// headers, which cost half a minute of compile time each. This header is light on purpose.
//
// Ownership: unpack_tensor borrows from the Python object; wrap_tensor and to_python return new
// references, null with a Python error set. No C++ exception leaves these functions except where noted.
//
// GIL: required for everything here.
#pragma once

#include <Python.h>
#include <c10/core/Layout.h>
#include <c10/core/MemoryFormat.h>
#include <c10/core/ScalarType.h>

#include <cstddef>
#include <exception>

namespace at {
class Tensor;
}
namespace c10 {
struct IValue;
struct TensorImpl;
}  // namespace c10

namespace flashpoint {

// A torch.Tensor, subclasses included.
bool is_instance_of_tensor(PyObject* object);
inline bool is_tensor(PyObject* object) {
  // Classes of tensors have a metaclass of their own, so most objects are told apart without a search.
  return !Py_IS_TYPE(Py_TYPE(object), &PyType_Type) && is_instance_of_tensor(object);
}
PyTypeObject* tensor_type();  // torch.Tensor
// A tensor with sizes, strides and a storage of its own: not sparse, nested or quantized.
bool has_plain_layout(PyObject* tensor);
// Exactly torch.Tensor or torch.nn.Parameter: no subclass that could answer for itself.
bool is_plain_tensor(PyObject* object);

bool is_parameter(PyObject* object);

// The tensor inside; alive as long as `object` is. Only after is_tensor.
const at::Tensor& unpack_tensor(PyObject* object);
inline c10::TensorImpl* tensor_impl(PyObject* tensor) {  // borrowed likewise
  return *reinterpret_cast<c10::TensorImpl**>(tensor + 1);
}
// Whether requires_grad, and for a tensor that does is_leaf, are these.
bool autograd_matches(const c10::TensorImpl* tensor, bool requires_grad, bool is_leaf);
bool tensor_is_leaf(PyObject* tensor);
bool tensor_has_hooks(PyObject* tensor);
// What a dict holds under a tensor: found by its address, as torch hashes it, without running torch's code.
PyObject* dict_get_tensor(PyObject* dict, PyObject* tensor);
// As `tensor.grad = grad`, null for None; without the checks of Python's setter.
void set_tensor_grad(PyObject* tensor, PyObject* grad);

// The Python object of a tensor: the one it already has, or a new one. None for an undefined tensor.
PyObject* wrap_tensor(at::Tensor tensor);

PyObject* to_python(c10::IValue value);

// torch's own objects for these.
PyObject* wrap_dtype(c10::ScalarType dtype);
PyObject* wrap_layout(c10::Layout layout);
PyObject* wrap_memory_format(c10::MemoryFormat format);

// The torch-function modes of this thread, innermost last. Borrowed.
size_t function_mode_count();
PyObject* function_mode_at(size_t index);

// Turns a caught exception into the Python error torch itself would raise.
void set_python_error(std::exception_ptr error);
// The Python error that is set, as a C++ exception that set_python_error turns back.
[[noreturn]] void throw_python_error();

}  // namespace flashpoint
