// autograd.Function.
//
// Where no gradient can flow the call is nothing but its forward, whose frame comes through the hook. So it
// is at base level, where the engine's run is recorded, and with it the backward. Where a gradient can flow
// at composite level, the history of the results is the program's own code, so replay makes the call again,
// with the tensors of that run: a `flashpoint.host_call`. Its frames are watched all the same, so that what
// they read is guarded; they must not write to anything older, nor read what this recording has written,
// since replay commits effects last.
//
// Parameters are made by such a call as well: the leaf, which later operators have in their history, is an
// object of its class from the start. At base level there is no history, so its class is part of the recipe.
#include <c10/core/GradMode.h>

#include <string_view>

#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/graph_recorder.h"
#include "record/recorder.h"
#include "record/rules/rules.h"

#include <ATen/core/Tensor.h>

namespace flashpoint {

namespace {

// Means the same at each call, and no one can change it.
bool is_constant(PyObject* o) {
  if (is_primitive(o) || rules().is_value_type(Py_TYPE(o)) || PyType_Check(o)) return true;
  if (!PyTuple_CheckExact(o)) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(o); ++i) {
    if (!is_constant(PyTuple_GET_ITEM(o, i))) return false;
  }
  return true;
}

// torch.Tensor or torch.nn.Parameter: their objects cannot answer for themselves.
bool is_plain_class(PyObject* cls) {
  static PyObject* const classes = [] {
    Ref nn = Ref::steal(PyImport_ImportModule("torch.nn.parameter"));
    Ref parameter = Ref::steal(nn ? PyObject_GetAttrString(nn.get(), "Parameter") : nullptr);
    Ref torch = Ref::steal(PyImport_ImportModule("torch"));
    Ref tensor = Ref::steal(torch ? PyObject_GetAttrString(torch.get(), "Tensor") : nullptr);
    PyErr_Clear();
    return parameter && tensor ? PyTuple_Pack(2, parameter.get(), tensor.get()) : PyTuple_New(0);
  }();
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(classes); ++i) {
    if (PyTuple_GET_ITEM(classes, i) == cls) return true;
  }
  return false;
}

}  // namespace

void Recorder::apply_function(EvalFrame&, PyObject* apply, PyObject* const* args, Py_ssize_t n,
                              PyObject* kwnames, Pending& pending) {
  PyObject* cls = PyCFunction_GET_SELF(apply);
  const bool makes_leaf =
      std::string_view(reinterpret_cast<PyCFunctionObject*>(apply)->m_ml->ml_name) == "_make_subclass";
  if (makes_leaf) {
    // Tensor._make_subclass(cls, data, requires_grad)
    const bool known = kwnames == nullptr && (n == 2 || (n == 3 && PyBool_Check(args[2]))) &&
                       is_plain_class(args[0]) && is_tensor(args[1]) && is_plain_tensor(args[1]) &&
                       !function_mode_answers() && !hosted_call_runs_;
    // What may raise must not follow a write that is visible.
    if (!known || (!graph_.is_base() && graph_.wrote_input()))
      return end(Break::k_denied_function, "TensorBase._make_subclass");
    if (!graph_.check_operand(unpack_tensor(args[1]), "the data of a parameter") || graph_.is_base()) return;
    writes_before_call_ = writes_;
    hosted_call_runs_ = true;
    graph_.begin_hosted();
    pending.word = kPendingFunction;
    return;
  }
  const auto unsupported = [&](const char* what) {
    end(Break::k_unknown_c_function, std::string("autograd.Function: ") + what);
  };
  if (cls == nullptr || !PyType_Check(cls) || is_fresh_class(cls)) return unsupported("class");
  if (kwnames != nullptr) return unsupported("arguments by keyword");
  if (function_mode_answers()) return unsupported("under a torch-function mode");
  auto* type = reinterpret_cast<PyTypeObject*>(cls);
  if (node_of(cls) == kNoNode) watch(cls, tree_.child(kNoNode, Step::kTypeRoot, cls));
  for (const char* name : {"forward", "setup_context", "_backward_cls"}) {
    PyObject* found = type_lookup(type, name);
    if (found != nullptr) read_descriptor(found);
  }
  bool differentiable = false;
  for (Py_ssize_t i = 0; i < n; ++i) {
    if (!is_tensor(args[i])) continue;
    if (!is_plain_tensor(args[i])) return unsupported("a tensor subclass");
    differentiable |= unpack_tensor(args[i]).requires_grad();
  }
  if (!differentiable || !c10::GradMode::is_enabled()) return;
  // Its forward and, once the engine gets there, its backward are frames like any other.
  if (graph_.is_base()) return;
  if (hosted_call_runs_) return unsupported("one in another");
  if (!touched_.empty() || graph_.wrote_input()) return unsupported("after a write");
  for (Py_ssize_t i = 0; i < n; ++i) {
    if (is_tensor(args[i]) ? !graph_.check_operand(unpack_tensor(args[i]), "an argument")
                           : !is_constant(args[i]))
      return unsupported("an argument that is neither tensor nor constant");
    if (!is_tensor(args[i])) read_deep(args[i]);
  }
  writes_before_call_ = writes_;
  hosted_call_runs_ = true;
  graph_.begin_hosted();
  pending.word = kPendingFunction;
}

void Recorder::after_function(const Operands& o, PyObject* result) {
  hosted_call_runs_ = false;
  if (result == nullptr) return end(Break::k_exception, "in an autograd.Function");
  if (writes_ != writes_before_call_) return end(Break::k_unsupported_mutation, "by an autograd.Function");
  HostedCall call;
  call.callable = Ref::share(o.a);
  std::vector<at::Tensor> inputs, outputs;
  for (Py_ssize_t i = 0; i < o.nargs; ++i) {
    const bool tensor = is_tensor(o.args[i]);
    if (tensor) inputs.push_back(unpack_tensor(o.args[i]));
    call.arguments.push_back(tensor ? Ref() : Ref::share(o.args[i]));
  }
  call.returns_tuple = PyTuple_CheckExact(result);
  const auto add = [&](PyObject* part) {
    if (is_plain_tensor(part)) {
      outputs.push_back(unpack_tensor(part));
      call.results.emplace_back();
    } else if (is_primitive(part)) {
      call.results.push_back(Ref::share(part));
    } else {
      end(Break::k_unsupported_escape, std::string("from an autograd.Function: ") + Py_TYPE(part)->tp_name);
    }
  };
  if (call.returns_tuple) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(result) && !ended_; ++i) add(PyTuple_GET_ITEM(result, i));
  } else {
    add(result);
  }
  if (ended_) return;
  graph_.end_hosted(static_cast<int64_t>(hosted_calls_.size()), inputs, outputs);
  hosted_calls_.push_back(std::move(call));
  if (graph_.broken()) end(Break::k_graph, graph_break_text(graph_));
}

}  // namespace flashpoint
