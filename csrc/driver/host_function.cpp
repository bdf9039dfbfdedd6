#include "driver/host_function.h"

#include <ATen/core/Tensor.h>

#include <stdexcept>

#include "py/layout.h"
#include "py/torch_bridge.h"

namespace flashpoint {

namespace {

class WithGil {
 public:
  WithGil() : state_(PyGILState_Ensure()) {}
  ~WithGil() { PyGILState_Release(state_); }
  WithGil(const WithGil&) = delete;
  WithGil& operator=(const WithGil&) = delete;

 private:
  PyGILState_STATE state_;
};

class PythonCall final : public HostFunction {
 public:
  explicit PythonCall(HostedCall call) : call_(std::move(call)) {}
  ~PythonCall() override {
    const WithGil gil;
    call_ = {};
  }

  std::vector<at::Tensor> call(c10::ArrayRef<at::Tensor> inputs) const override {
    const WithGil gil;
    std::vector<Ref> owned;
    std::vector<PyObject*> arguments;
    size_t next = 0;
    for (const Ref& argument : call_.arguments) {
      if (!argument) owned.push_back(Ref::steal(wrap_tensor(inputs[next++])));
      arguments.push_back(argument ? argument.get() : owned.back().get());
    }
    Ref result =
        Ref::steal(PyObject_Vectorcall(call_.callable.get(), arguments.data(), arguments.size(), nullptr));
    if (!result) {
      PyErr_Clear();
      throw std::runtime_error("[flashpoint] a call of the program raised");
    }
    std::vector<at::Tensor> outputs;
    const bool tuple = PyTuple_CheckExact(result.get());
    const size_t count = tuple ? static_cast<size_t>(PyTuple_GET_SIZE(result.get())) : 1;
    bool same = tuple == call_.returns_tuple && count == call_.results.size();
    for (size_t i = 0; same && i < count; ++i) {
      PyObject* part = tuple ? PyTuple_GET_ITEM(result.get(), i) : result.get();
      if (call_.results[i]) {
        same = is_primitive(part) && primitives_equal(part, call_.results[i].get());
      } else {
        same = is_plain_tensor(part);
        if (same) outputs.push_back(unpack_tensor(part));
      }
    }
    if (!same) throw std::runtime_error("[flashpoint] a call of the program returned something else");
    return outputs;
  }

 private:
  HostedCall call_;
};

}  // namespace

std::vector<std::shared_ptr<const HostFunction>> make_host_functions(std::vector<HostedCall> calls) {
  std::vector<std::shared_ptr<const HostFunction>> functions;
  for (HostedCall& call : calls) functions.push_back(std::make_shared<PythonCall>(std::move(call)));
  return functions;
}

}  // namespace flashpoint
