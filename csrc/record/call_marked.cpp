// Functions that say how they want to be compiled.
//
//  - What torch.compile has wrapped is recorded as the function it was made from: a call inside a recording
//  is
//    part of it. torch.compile() itself, called inside, gives back its argument.
//  - substitute_in_graph: another function is called, and recorded, in place of one that cannot be.
//  - assume_constant_result: the function runs unwatched, once for each recording, and its result is a
//  constant.
#include "py/frame.h"
#include "py/torch_bridge.h"
#include "record/graph_recorder.h"
#include "record/recorder.h"
#include "record/substitutes.h"
#include "record/tracer_mode.h"

namespace flashpoint {

namespace {

// Interned for ever, so that names of code objects, which are interned too, compare by address.
PyObject* interned(const char* text) { return PyUnicode_InternFromString(text); }

bool ends_with(PyObject* text, const char* end) {
  const char* s = PyUnicode_AsUTF8(text);
  if (s == nullptr) PyErr_Clear();
  return s != nullptr && std::string_view(s).ends_with(end);
}

bool is_wrapper_of_dynamo(PyCodeObject* code) {
  static PyObject* const name = interned("compile_wrapper");
  return code->co_name == name && ends_with(code->co_filename, "torch/_dynamo/eval_frame.py");
}

bool is_torch_compile(PyCodeObject* code) {
  static PyObject* const name = interned("compile");
  return code->co_name == name && ends_with(code->co_filename, "torch/__init__.py");
}

FlatMap<PyObject*, PyObject*, PointerHash>& substitutes() {
  static auto* map = new FlatMap<PyObject*, PyObject*, PointerHash>();
  return *map;
}

}  // namespace

void substitute(PyObject* original, PyObject* replacement) {
  // The old replacement may be running: nothing is ever let go.
  if (substitutes().try_emplace(Py_NewRef(original), Py_NewRef(replacement)).second) return;
  *substitutes().find(original) = replacement;
}

PyObject* substitute_of(PyObject* callable) {
  if (substitutes().empty()) return nullptr;
  PyObject* const* found = substitutes().find(callable);
  return found == nullptr ? nullptr : *found;
}

bool Recorder::call_marked(EvalFrame& frame, PyObject* function, PyObject* const* args, Py_ssize_t n,
                           PyObject* kwnames, Pending& pending, int depth) {
  static PyObject* const original = interned("_torchdynamo_orig_callable");
  static PyObject* const constant = interned("_dynamo_marked_constant");
  auto* code = reinterpret_cast<PyCodeObject*>(PyFunction_GET_CODE(function));
  PyObject* dict = reinterpret_cast<PyFunctionObject*>(function)->func_dict;
  if (depth == 0 && n == 1 && is_torch_compile(code) && PyCallable_Check(args[0])) {
    pending.answer = Py_NewRef(args[0]);
    return true;
  }
  if (dict == nullptr) return false;
  if (PyDict_GetItemWithError(dict, constant) != nullptr) {
    if (node_of(function) != kNoNode) read_instance_dict(function, constant);
    if (depth > 0) return false;  // of a method the receiver is not known here
    call_assumed_constant(function, args, n, kwnames, pending);
    return true;
  }
  if (!is_wrapper_of_dynamo(code) || depth > 0) return false;
  PyObject* target = PyDict_GetItemWithError(dict, original);
  if (target == nullptr) return false;
  if (node_of(function) != kNoNode) read_instance_dict(function, original);
  pending.instead = target;
  resolve_call(frame, target, args, n, kwnames, pending, depth + 1);
  return true;
}

void Recorder::call_assumed_constant(PyObject* function, PyObject* const* args, Py_ssize_t n,
                                     PyObject* kwnames, Pending& pending) {
  keep_local("a result that is assumed constant");
  bool* observing = graph_.observing();
  const bool saved = observing != nullptr && std::exchange(*observing, false);
  {
    const NoTracerDispatchMode hidden;
    pending.answer = PyObject_Vectorcall(function, args, static_cast<size_t>(n), kwnames);
  }
  if (observing != nullptr) *observing = saved;
  if (pending.answer == nullptr) {
    pending.raise = true;
  } else if (!is_primitive(pending.answer)) {
    observe(tree_.child(kNoNode, Step::kConst, pending.answer), pending.answer);
  }
}

}  // namespace flashpoint
