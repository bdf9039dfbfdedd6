// Hooks of tensors.
//
// One that the recording's own tensor gets is Python code that the engine calls inside the region: its frames
// come through the hook of the evaluator, and at base level what they do is recorded like anything else. What
// registering leaves behind (a number for the handle) is no matter to a replay. A hook of a tensor that was
// there before would stay, which no effect stands for.
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

}  // namespace

bool Rules::call_hooks(Recorder& r, PyObject* function, PyObject* const* args, Py_ssize_t n,
                       PyObject* kwnames, Pending& pending) const {
  static const HookCode known;
  PyObject* code = PyFunction_GET_CODE(function);
  const bool registers = code == known.register_hook || code == known.register_post;
  if (!registers && code != known.remove) return false;
  if (kwnames != nullptr || n != (registers ? 2 : 1) || function_mode_answers()) return false;
  if (registers) {
    if (!is_tensor(args[0]) || !is_plain_tensor(args[0])) return false;
    if (!r.graph_.is_base()) return r.need_base("a hook of a tensor"), true;
    if (r.node_of(args[0]) != kNoNode)
      return r.end(Break::k_unsupported_mutation, "a hook of a tensor that existed before"), true;
    // C code calls it: what it is made of must be nothing but Python code.
    if (!PyFunction_Check(args[1]))
      return r.end(Break::k_unknown_c_function, "a hook that is no function"), true;
  } else if (r.node_of(args[0]) != kNoNode) {
    return false;
  }
  bool* observing = r.graph_.observing();
  const bool saved = observing != nullptr && std::exchange(*observing, false);
  pending.answer = PyObject_Vectorcall(function, args, static_cast<size_t>(n), nullptr);
  if (observing != nullptr) *observing = saved;
  if (pending.answer == nullptr) {
    PyErr_Clear();  // it raises again, watched
    return false;
  }
  return true;
}

}  // namespace flashpoint
