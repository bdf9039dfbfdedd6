// Hooks of tensors.
//
// One that the recording's own tensor gets is Python code that the engine calls inside the region: its frames
// come through the hook of the evaluator, and at base level what they do is recorded like anything else. What
// registering leaves behind (a number for the handle) is no matter to a replay. A hook of a tensor that was
// there before would stay, which no effect stands for.
//
// At composite level the tensor leaves with its history, and the hook with it: replay registers it again
// (`flashpoint.host_call`). It is the recording's own function object, so what that holds must be the same at
// each call: nothing, or cells that are older than the recording.
#include <ATen/core/Tensor.h>

#include "py/torch_bridge.h"
#include "record/graph_recorder.h"
#include "record/recorder.h"
#include "record/rules/rules.h"

namespace flashpoint {

namespace {

// Code objects of torch, kept for ever.
struct HookCode {
  PyObject* register_hook = code_of("torch", {"Tensor", "register_hook"});
  PyObject* register_post = code_of("torch", {"Tensor", "register_post_accumulate_grad_hook"});
  PyObject* remove = code_of("torch.utils.hooks", {"RemovableHandle", "remove"});

  static PyObject* code_of(const char* module, std::initializer_list<const char*> path) {
    Ref object = Ref::steal(PyImport_ImportModule(module));
    for (const char* name : path) {
      if (object) object = Ref::steal(PyObject_GetAttrString(object.get(), name));
    }
    if (!object) PyErr_Clear();
    return object && PyFunction_Check(object.get()) ? Py_NewRef(PyFunction_GET_CODE(object.get())) : nullptr;
  }
};

PyObject* register_on(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (n != 2) return PyErr_Format(PyExc_TypeError, "[flashpoint] a tensor and its hook");
  Ref handle = Ref::steal(PyObject_CallMethod(args[0], "register_hook", "O", args[1]));
  return handle ? Py_NewRef(Py_None) : nullptr;
}

// A function that was made in the call, and would be made alike at the next one.
template <typename IsOlder>
bool is_same_at_each_call(PyObject* function, IsOlder&& is_older) {
  auto* f = reinterpret_cast<PyFunctionObject*>(function);
  if (f->func_kwdefaults != nullptr || (f->func_dict != nullptr && PyDict_GET_SIZE(f->func_dict) > 0))
    return false;
  for (Py_ssize_t i = 0; f->func_defaults != nullptr && i < PyTuple_GET_SIZE(f->func_defaults); ++i) {
    if (!is_primitive(PyTuple_GET_ITEM(f->func_defaults, i))) return false;
  }
  for (Py_ssize_t i = 0; f->func_closure != nullptr && i < PyTuple_GET_SIZE(f->func_closure); ++i) {
    if (!is_older(PyTuple_GET_ITEM(f->func_closure, i))) return false;
  }
  return true;
}

}  // namespace

bool Rules::call_hooks(Recorder& r, PyObject* function, PyObject* const* args, Py_ssize_t n,
                       PyObject* kwnames, Pending& pending) const {
  static const HookCode known;
  PyObject* code = PyFunction_GET_CODE(function);
  const bool registers = code == known.register_hook || code == known.register_post;
  if (!registers && code != known.remove) return false;
  if (kwnames != nullptr || n != (registers ? 2 : 1) || function_mode_answers()) return false;
  bool stays = false;
  if (registers) {
    if (!is_tensor(args[0]) || !is_plain_tensor(args[0])) return false;
    // C code calls it: what it is made of must be nothing but Python code.
    const bool made = r.node_of(args[0]) == kNoNode, plain = PyFunction_Check(args[1]);
    if (!r.graph_.is_base()) {
      const auto is_older = [&](PyObject* cell) { return r.node_of(cell) != kNoNode; };
      stays = made && plain && code == known.register_hook && unpack_tensor(args[0]).requires_grad() &&
              !r.hosted_call_runs_ && !r.graph_.wrote_input() &&
              (is_older(args[1]) || is_same_at_each_call(args[1], is_older)) &&
              r.graph_.check_operand(unpack_tensor(args[0]), "a tensor with a hook");
      if (!stays) return r.need_base("a hook of a tensor"), true;
    }
    if (!made) return r.end(Break::k_unsupported_mutation, "a hook of a tensor that existed before"), true;
    if (!plain) return r.end(Break::k_unknown_c_function, "a hook that is no function"), true;
  } else if (r.node_of(args[0]) != kNoNode) {
    return false;
  } else if (!r.graph_.is_base()) {
    return r.need_base("a hook of a tensor"), true;
  }
  bool* observing = r.graph_.observing();
  const bool saved = observing != nullptr && std::exchange(*observing, false);
  pending.answer = PyObject_Vectorcall(function, args, static_cast<size_t>(n), nullptr);
  if (observing != nullptr) *observing = saved;
  if (pending.answer == nullptr) {
    PyErr_Clear();  // it raises again, watched
    return false;
  }
  if (!stays) return true;
  static PyMethodDef def{"register_hook",
                         reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(register_on)),
                         METH_FASTCALL, nullptr};
  HostedCall call;
  call.callable = Ref::steal(PyCFunction_New(&def, nullptr));
  call.arguments.emplace_back();
  call.arguments.push_back(Ref::share(args[1]));
  call.results.push_back(Ref::share(Py_None));
  r.pin(args[1]);
  PyObject* closure = PyFunction_GET_CLOSURE(args[1]);
  for (Py_ssize_t i = 0; closure != nullptr && i < PyTuple_GET_SIZE(closure); ++i)
    r.pin(PyTuple_GET_ITEM(closure, i));
  r.graph_.begin_hosted();
  r.graph_.end_hosted(static_cast<int64_t>(r.hosted_calls_.size()), {unpack_tensor(args[0])}, {});
  r.hosted_calls_.push_back(std::move(call));
  return true;
}

}  // namespace flashpoint
