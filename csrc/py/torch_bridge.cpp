#include "py/torch_bridge.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <torch/csrc/DynamicTypes.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/PyInterpreter.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/csrc/jit/python/pybind_utils.h>
#include <torch/csrc/utils/tensor_memoryformats.h>

namespace flashpoint {

// Not THPVariable_Check: isinstance() asks the object for __class__, which may be Python code.
bool is_instance_of_tensor(PyObject* object) {
  return PyObject_TypeCheck(object, reinterpret_cast<PyTypeObject*>(THPVariableClass));
}

PyTypeObject* tensor_type() { return reinterpret_cast<PyTypeObject*>(THPVariableClass); }

bool is_plain_tensor(PyObject* object) { return THPVariable_CheckExact(object); }

bool has_plain_layout(PyObject* object) {
  const at::Tensor& t = THPVariable_Unpack(object);
  return t.layout() == at::kStrided && !t.is_quantized() && !t.is_nested() &&
         t.unsafeGetTensorImpl()->has_storage();
}

const at::Tensor& unpack_tensor(PyObject* object) { return THPVariable_Unpack(object); }

bool is_parameter(PyObject* object) {
  return Py_TYPE(object) == reinterpret_cast<PyTypeObject*>(ParameterClass);
}

static_assert(offsetof(THPVariable, cdata) == sizeof(PyObject) && sizeof(at::Tensor) == sizeof(void*),
              "tensor_impl() reads the tensor right behind the object's head");

bool autograd_matches(const c10::TensorImpl* tensor, bool requires_grad, bool is_leaf) {
  const auto* meta = static_cast<const torch::autograd::AutogradMeta*>(tensor->autograd_meta());
  if (meta == nullptr) return !requires_grad;
  const bool has_function = meta->grad_fn_ != nullptr;
  // A view asks its base as well.
  const bool requires_it = meta->is_view_ ? meta->requires_grad() : meta->requires_grad_ || has_function;
  return requires_it == requires_grad && (!requires_grad || !has_function == is_leaf);
}

bool tensor_is_leaf(PyObject* tensor) { return THPVariable_Unpack(tensor).is_leaf(); }

namespace {

bool has_cpp_hooks(const at::Tensor& tensor) {
  if (!torch::autograd::impl::hooks(tensor).empty()) return true;
  const auto accumulator = torch::autograd::impl::try_get_grad_accumulator(tensor);
  return accumulator && (!accumulator->pre_hooks().empty() || !accumulator->post_hooks().empty());
}

}  // namespace

bool tensor_has_hooks(PyObject* tensor) {
  const auto* variable = reinterpret_cast<THPVariable*>(tensor);
  return variable->backward_hooks != nullptr || variable->post_accumulate_grad_hooks != nullptr ||
         (variable->cdata.unsafeGetTensorImpl()->autograd_meta() != nullptr &&
          has_cpp_hooks(variable->cdata));
}

PyObject* dict_get_tensor(PyObject* dict, PyObject* tensor) {
  PyObject* found =
      _PyDict_GetItem_KnownHash(dict, tensor, static_cast<Py_hash_t>(reinterpret_cast<size_t>(tensor)));
  if (found == nullptr) PyErr_Clear();
  return found;
}

void set_tensor_grad(PyObject* tensor, PyObject* grad) {
  THPVariable_Unpack(tensor).mutable_grad() = grad == nullptr ? at::Tensor() : THPVariable_Unpack(grad);
}

PyObject* wrap_tensor(at::Tensor tensor) {
  try {
    return THPVariable_Wrap(std::move(tensor));
  } catch (...) {
    set_python_error(std::current_exception());
    return nullptr;
  }
}

PyObject* to_python(c10::IValue value) {
  try {
    return torch::jit::toPyObject(std::move(value)).release().ptr();
  } catch (...) {
    set_python_error(std::current_exception());
    return nullptr;
  }
}

PyObject* wrap_dtype(c10::ScalarType dtype) {
  return Py_NewRef(reinterpret_cast<PyObject*>(torch::getTHPDtype(dtype)));
}

PyObject* wrap_layout(c10::Layout layout) {
  return Py_NewRef(reinterpret_cast<PyObject*>(torch::getTHPLayout(layout)));
}

PyObject* wrap_memory_format(c10::MemoryFormat format) {
  return Py_NewRef(torch::utils::getTHPMemoryFormat(format));
}

size_t function_mode_count() { return static_cast<size_t>(at::impl::PythonTorchFunctionTLS::stack_len()); }

PyObject* function_mode_at(size_t index) {
  return at::impl::PythonTorchFunctionTLS::get_stack_at(static_cast<int64_t>(index))->ptr(getPyInterpreter());
}

void set_python_error(std::exception_ptr error) {
  try {
    std::rethrow_exception(std::move(error));
  } catch (pybind11::error_already_set& raised) {
    raised.restore();
  } catch (...) {
    torch::translate_exception_to_python(std::current_exception());
  }
}

void throw_python_error() { throw pybind11::error_already_set(); }

}  // namespace flashpoint
