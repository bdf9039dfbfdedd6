// Runs of the autograd engine, and the gradients they leave in leaves.
//
// At base level the engine's operators are nodes like any other; what no operator shows is which `.grad` it
// reads and sets. So before a run the leaves it will reach are enumerated and what their `.grad` held at
// entry is guarded; from then on it is the recording's own, and an effect stores what it ends up as. At
// composite level all of this ends the recording, and the next one is made at base level.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/graph_recorder.h"
#include "record/nested_calls.h"
#include "record/recorder.h"
#include "record/rules/rules.h"

namespace flashpoint {

namespace {

PyObject* grad_name() {
  static PyObject* const name = PyUnicode_InternFromString("grad");
  return name;
}

// The tensors of a tuple; false when something else is in it.
bool tensors_in(PyObject* tuple, std::vector<at::Tensor>& tensors) {
  if (tuple == nullptr) return true;
  if (!PyTuple_Check(tuple)) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); ++i) {
    PyObject* item = PyTuple_GET_ITEM(tuple, i);
    if (item == Py_None) continue;
    if (!is_tensor(item) || !is_plain_tensor(item)) return false;
    tensors.push_back(unpack_tensor(item));
  }
  return true;
}

thread_local std::vector<const Recorder*> waiting;

}  // namespace

bool waits_for_call(const Recorder* recorder) {
  return std::find(waiting.begin(), waiting.end(), recorder) != waiting.end();
}

void Recorder::need_base(std::string what) {
  if (graph_.is_base()) return;
  wants_base_ = true;
  end(Break::k_needs_base, std::move(what));
}

void Recorder::call_instead(PyObject* function, PyObject* const* args, Py_ssize_t n, PyObject* kwnames,
                            Pending& pending) {
  const bool saved = std::exchange(in_before_, false);
  EvalFrame* const frame = frame_;
  bool* const watching = graph_.observing();
  const bool looking = watching != nullptr && !std::exchange(*watching, true);
  waiting.push_back(this);
  pending.answer = PyObject_Vectorcall(function, args, static_cast<size_t>(n), kwnames);
  waiting.pop_back();
  if (looking) *watching = false;
  frame_ = frame;
  in_before_ = saved;
  pending.raise = pending.answer == nullptr;
}

void Recorder::read_grad(PyObject* tensor) {
  const NodeId node = node_of(tensor);
  // Of a tensor made in the call it follows from the graph, and so it does once the recording has set it.
  if (node == kNoNode || overlaid(tensor, grad_name()) || !once(tensor, nullptr, 7)) return;
  Ref grad = Ref::steal(PyObject_GetAttr(tensor, grad_name()));
  if (!grad) return PyErr_Clear();
  if (grad.get() == Py_None) {
    tree_.check(node, CheckKind::kNoGrad);
  } else {
    observe(tree_.child(node, Step::kTensorGrad), grad.get());
  }
}

void Recorder::write_grad(PyObject* tensor) {
  const NodeId node = node_of(tensor);
  if (node == kNoNode || overlaid(tensor, grad_name())) return;
  read_grad(tensor);
  if (ended_) return;
  add_effect(Effect{EffectKind::kTensorGrad, node, Ref::share(tensor), Ref::share(grad_name()), {}},
             grad_name());
}

void Recorder::run_engine(PyObject* const* args, Py_ssize_t n, PyObject* kwnames) {
  if (!graph_.is_base()) return need_base("the autograd engine");
  const auto argument = [&](Py_ssize_t position, const char* name) -> PyObject* {
    if (position < n) return args[position];
    for (Py_ssize_t i = 0; kwnames != nullptr && i < PyTuple_GET_SIZE(kwnames); ++i) {
      if (PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, i), name) == 0) return args[n + i];
    }
    return nullptr;
  };
  PyObject* accumulate = argument(7, "accumulate_grad");
  std::vector<at::Tensor> roots, inputs;
  if (!tensors_in(argument(1, "tensors"), roots) || !tensors_in(argument(5, "inputs"), inputs))
    return end(Break::k_unsupported_argument, "a run of the autograd engine that starts at no tensor");
  const EngineRun run = explore_run(roots, inputs, accumulate == Py_True, region_);
  if (!run.refusal.empty()) return end(Break::k_foreign_history, run.refusal);
  for (const at::Tensor& leaf : run.leaves) {
    if (graph_.source_of(leaf) < 0) continue;  // made in the call
    Ref object = Ref::steal(wrap_tensor(leaf));
    const NodeId node = object ? node_of(object.get()) : kNoNode;
    if (node == kNoNode) return end(Break::k_unknown_tensor, "a leaf of unknown origin");
    if (once(object.get(), nullptr, 2)) {
      if (tensor_has_hooks(object.get())) return end(Break::k_foreign_history, "a hook of a leaf");
      tree_.check(node, CheckKind::kNoHooks);
    }
    write_grad(object.get());
    if (ended_) return;
  }
  for (const at::Tensor& input : inputs) {
    if (graph_.source_of(input) < 0) continue;
    Ref object = Ref::steal(wrap_tensor(input));
    if (object && node_of(object.get()) != kNoNode && once(object.get(), nullptr, 2))
      tree_.check(node_of(object.get()), CheckKind::kNoHooks);
  }
}

}  // namespace flashpoint
