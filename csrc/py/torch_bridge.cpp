#include "py/torch_bridge.h"

#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/jit/python/pybind_utils.h>

namespace flashpoint {

bool is_tensor(PyObject* object) { return THPVariable_Check(object); }

bool is_plain_tensor(PyObject* object) { return THPVariable_CheckExact(object); }

const at::Tensor& unpack_tensor(PyObject* object) { return THPVariable_Unpack(object); }

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

void set_python_error(std::exception_ptr error) {
  try {
    std::rethrow_exception(std::move(error));
  } catch (pybind11::error_already_set& raised) {
    raised.restore();
  } catch (...) {
    torch::translate_exception_to_python(std::current_exception());
  }
}

}  // namespace flashpoint
