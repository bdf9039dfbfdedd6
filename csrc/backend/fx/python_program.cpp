#include "backend/fx/python_program.h"

#include <ATen/core/Tensor.h>

#include <string>

#include "eval/thread_context.h"
#include "py/ref.h"
#include "py/torch_bridge.h"

namespace flashpoint::fx {
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

PyObject* later_name() {
  static PyObject* const name = PyUnicode_InternFromString("compiled_later");
  return name;
}

class PythonProgram final : public GraphProgram {
 public:
  PythonProgram(const ir::Graph& graph, PyObject* callable, std::unique_ptr<GraphProgram> meanwhile)
      : callable_(callable),
        meanwhile_(std::move(meanwhile)),
        nodes_(graph.nodes.size()),
        outputs_(graph.outputs.size()) {
    for (ir::ValueId id : graph.outputs) {
      defined_.push_back(graph.values[static_cast<size_t>(id)].meta.defined());
    }
  }

  std::vector<at::Tensor> run(c10::ArrayRef<at::Tensor> inputs, RunStatus* status) const override {
    const WithGil gil;
    Ref callable = Ref::share(callable_);
    if (meanwhile_) {
      callable = Ref::steal(PyObject_GetAttr(callable_, later_name()));
      if (!callable) throw_python_error();
      if (callable.get() == Py_None) return meanwhile_->run(inputs, status);
    }
    if (status != nullptr) status->visible_mutation = true;
    const DisarmedScope disarmed;
    std::vector<Ref> owned;
    std::vector<PyObject*> arguments{nullptr};  // room for PY_VECTORCALL_ARGUMENTS_OFFSET
    for (const at::Tensor& input : inputs) {
      // A number comes as a tensor made for this run, and is a tensor to the backend.
      if (input.unsafeGetTensorImpl()->is_wrapped_number())
        input.unsafeGetTensorImpl()->set_wrapped_number(false);
      owned.push_back(Ref::steal(wrap_tensor(input)));
      if (!owned.back()) throw_python_error();
      arguments.push_back(owned.back().get());
    }
    const Ref result = Ref::steal(PyObject_Vectorcall(
        callable.get(), arguments.data() + 1, inputs.size() | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr));
    if (!result) throw_python_error();
    return unpack(result.get());
  }

  size_t node_count() const override { return nodes_; }

 private:
  std::vector<at::Tensor> unpack(PyObject* result) const {
    if (!PyTuple_Check(result) && !PyList_Check(result)) {
      PyErr_Format(
          PyExc_TypeError,
          "[flashpoint.compile] what the backend compiled returned %.200s; it must return a tuple or "
          "list of the graph's %zu outputs",
          Py_TYPE(result)->tp_name, outputs_);
      throw_python_error();
    }
    const auto count = static_cast<size_t>(PySequence_Fast_GET_SIZE(result));
    if (count != outputs_) {
      PyErr_Format(
          PyExc_ValueError,
          "[flashpoint.compile] what the backend compiled returned %zu values; the graph has %zu outputs",
          count, outputs_);
      throw_python_error();
    }
    std::vector<at::Tensor> tensors;
    tensors.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      PyObject* item = PySequence_Fast_GET_ITEM(result, static_cast<Py_ssize_t>(i));
      if (is_tensor(item)) {
        tensors.push_back(unpack_tensor(item));
      } else if (item == Py_None && !defined_[i]) {
        tensors.emplace_back();
      } else {
        PyErr_Format(PyExc_TypeError,
                     "[flashpoint.compile] output %zu of what the backend compiled is %.200s, not a tensor",
                     i, Py_TYPE(item)->tp_name);
        throw_python_error();
      }
    }
    return tensors;
  }

  PyObject* callable_;  // borrowed from the entry
  std::unique_ptr<GraphProgram> meanwhile_;
  size_t nodes_;
  size_t outputs_;
  std::vector<bool> defined_;
};

}  // namespace

bool compiles_later(PyObject* callable) { return PyObject_HasAttr(callable, later_name()) == 1; }

std::unique_ptr<GraphProgram> make_program(const ir::Graph& graph, PyObject* callable,
                                           std::unique_ptr<GraphProgram> meanwhile) {
  return std::make_unique<PythonProgram>(graph, callable, std::move(meanwhile));
}

}  // namespace flashpoint::fx
