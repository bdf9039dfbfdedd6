// Python functions that run unwatched: what they do is no matter to a replay (pure_python.def), or belongs to
// a kernel.
#include <optional>
#include <utility>

#include "py/frame.h"
#include "py/torch_bridge.h"
#include "record/graph_recorder.h"
#include "record/recorder.h"
#include "record/rules/rules.h"
#include "record/tracer_mode.h"

namespace flashpoint {

namespace {

// All tensors of a reference's arguments are meta tensors, as where autograd asks for shapes alone.
bool is_meta_call(PyObject* positional, PyObject* keywords) {
  bool any = false;
  const auto fits = [&](PyObject* o) {
    if (!is_tensor(o)) return !PyList_Check(o) && !PyTuple_Check(o);
    any = true;
    return unpack_tensor(o).is_meta();
  };
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(positional); ++i) {
    if (!fits(PyTuple_GET_ITEM(positional, i))) return false;
  }
  PyObject *key, *value;
  Py_ssize_t pos = 0;
  while (PyDict_Next(keywords, &pos, &key, &value)) {
    if (!fits(value)) return false;
  }
  return any;
}

}  // namespace

// Runs a function of torch's whose effects nobody needs at a replay, and hands out its result.
PyObject* Rules::run_unwatched(Recorder& r, EvalFrame& frame) const {
  PyCodeObject* code = py::frame_code(frame.frame);
  PyObject* function = py::frame_function(frame.frame);
  Ref args = Ref::steal(PyTuple_New(code->co_argcount)), keywords = Ref::steal(PyDict_New());
  if (!args || !keywords) return PyErr_Clear(), nullptr;
  for (int i = 0; i < code->co_argcount; ++i)
    PyTuple_SET_ITEM(args.get(), i, Py_NewRef(py::frame_local(frame.frame, i)));
  // A wrapper around a reference: other arguments come as a tuple and a dict.
  const bool reference = (code->co_flags & CO_VARARGS) != 0;
  std::optional<NoTracerDispatchMode> hidden;
  if (reference) {
    const int end = code->co_argcount + code->co_kwonlyargcount;
    for (int i = code->co_argcount; i < end; ++i) {
      PyObject* value = py::frame_local(frame.frame, i);
      PyDict_SetItem(keywords.get(), PyTuple_GET_ITEM(code->co_localsplusnames, i), value);
    }
    args = Ref::steal(PySequence_Concat(args.get(), py::frame_local(frame.frame, end)));
    if (!args || ((code->co_flags & CO_VARKEYWORDS) != 0 &&
                  PyDict_Update(keywords.get(), py::frame_local(frame.frame, end + 1)) < 0))
      return PyErr_Clear(), nullptr;
    if (!is_meta_call(args.get(), keywords.get())) return nullptr;
    hidden.emplace();
  }
  bool* observing = r.graph_.observing();
  const bool saved = observing != nullptr && std::exchange(*observing, false);
  PyObject* result = PyObject_Call(function, args.get(), keywords.get());
  if (observing != nullptr) *observing = saved;
  if (result == nullptr) {
    PyErr_Clear();  // it raises again, watched
  }
  return result;
}

}  // namespace flashpoint
