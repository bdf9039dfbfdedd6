// Private bindings to record, print, parse and replay graphs without the evaluator: for tests and tools.
//
//   _graph_record(fn, *tensors, max_nodes=200000)
//                                 -> (Graph, result of fn); the tensors are inputs 0..n-1
//   _graph_parse(text)            -> Graph; ValueError when the text is malformed or fails the verifier
//   _graph_constant(fn)           -> fn() run unseen, its tensor registered as a literal
//   _graph_location(text)         sets the source location of the nodes that follow on this thread
//   _graph_number_store(bool)     GraphRecorder::set_number_store of the active recording
//   _graph_hidden(fn)             -> fn() under NoTracerDispatchMode
//   _graph_enable(bool), _graph_enabled()   the switch itself
//
// A Graph that broke has `break_reason`, `break_detail` and nothing to run.
// GIL: required; run() releases it around the replay of large graphs.
#include <Python.h>

#include <ATen/core/Tensor.h>

#include <deque>
#include <optional>
#include <string>

#include "backend/eager/program.h"
#include "backend/fx/export.h"
#include "backend/native/program.h"
#include "base/counters.h"
#include "ir/parser.h"
#include "ir/printer.h"
#include "ir/verifier.h"
#include "module/bindings.h"
#include "py/ref.h"
#include "py/torch_bridge.h"
#include "record/graph_recorder.h"

namespace flashpoint {
namespace {

constexpr size_t kReleaseGilFrom = 64;  // nodes: below, handing the GIL over costs more than it gives

// Source locations for tests: whatever _graph_location was told last.
class TestPositions final : public PositionSource {
 public:
  void set(std::string text) {
    texts_.push_back(std::move(text));
    current_ = &texts_.back();
  }
  ProgramPosition current() noexcept override { return {current_, 0}; }
  std::string describe(const ProgramPosition& position) override {
    return position.code == nullptr ? std::string() : *static_cast<const std::string*>(position.code);
  }

 private:
  std::deque<std::string> texts_;
  const std::string* current_ = nullptr;
};

struct ActiveRecording {
  GraphRecorder* recorder = nullptr;
  TestPositions* positions = nullptr;
};
thread_local ActiveRecording active;

struct GraphObject {
  PyObject_HEAD std::optional<ir::Graph> graph;
  std::optional<eager::Program> program;
  std::optional<eager::Program> poisoned;
  std::unique_ptr<GraphProgram> native;     // single operators generated
  std::unique_ptr<GraphProgram> generated;  // as the native backend has it
  GraphBreak reason;
  std::string detail;
  RunStatus status;
};

GraphObject* self_of(PyObject* self) { return reinterpret_cast<GraphObject*>(self); }

void graph_dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  self_of(self)->~GraphObject();
  type->tp_free(self);
  Py_DECREF(type);
}

bool require_graph(PyObject* self) {
  if (self_of(self)->graph) return true;
  PyErr_Format(PyExc_RuntimeError, "[flashpoint._C] the recording broke: %s (%s)",
               break_name(self_of(self)->reason), self_of(self)->detail.c_str());
  return false;
}

// Runs `body`, turning what it throws into a Python error.
template <typename Body>
PyObject* guarded(Body&& body) {
  try {
    return body();
  } catch (...) {
    set_python_error(std::current_exception());
    return nullptr;
  }
}

PyObject* graph_text(PyObject* self, PyObject*) {
  if (!require_graph(self)) return nullptr;
  return guarded([&] {
    const std::string text = ir::print(*self_of(self)->graph);
    return PyUnicode_FromStringAndSize(text.data(), static_cast<Py_ssize_t>(text.size()));
  });
}

PyObject* graph_verify(PyObject* self, PyObject*) {
  if (!require_graph(self)) return nullptr;
  return guarded([&] { return PyUnicode_FromString(ir::verify(*self_of(self)->graph).c_str()); });
}

PyObject* graph_export(PyObject* self, PyObject*) {
  if (!require_graph(self)) return nullptr;
  return guarded([&] { return fx::export_graph(*self_of(self)->graph); });
}

bool take_tensors(PyObject* const* args, Py_ssize_t count, std::vector<at::Tensor>& tensors) {
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (!is_tensor(args[i])) {
      PyErr_SetString(PyExc_TypeError, "[flashpoint._C] expected tensors");
      return false;
    }
    tensors.push_back(unpack_tensor(args[i]));
  }
  return true;
}

// Runs on the tensors of the graph's own inputs, picked by source from all that were registered.
template <typename Program, typename Compile>
PyObject* run_with(PyObject* self, Program& program, Compile&& compile, PyObject* const* args,
                   Py_ssize_t count) {
  if (!require_graph(self)) return nullptr;
  return guarded([&]() -> PyObject* {
    const ir::Graph& graph = *self_of(self)->graph;
    if (!program) program = compile(graph);
    std::vector<at::Tensor> given;
    if (!take_tensors(args, count, given)) return nullptr;
    std::vector<at::Tensor> inputs;
    for (const auto& input : graph.inputs) {
      if (input.source < 0 || input.source >= static_cast<int32_t>(given.size())) {
        PyErr_Format(PyExc_TypeError, "[flashpoint._C] the graph needs input %d", input.source);
        return nullptr;
      }
      const at::Tensor& tensor = given[static_cast<size_t>(input.source)];
      switch (graph.values[static_cast<size_t>(input.value)].kind) {  // a number comes as a tensor of one
        case ir::ValueKind::kFloat:
          inputs.push_back(eager::make_wrapped(tensor.item().toDouble()));
          break;
        case ir::ValueKind::kInt:
          inputs.push_back(eager::make_wrapped(tensor.item().toLong()));
          break;
        case ir::ValueKind::kTensor:
        case ir::ValueKind::kBool:
          inputs.push_back(tensor);
          break;
      }
    }
    given.clear();
    std::vector<at::Tensor> outputs;
    std::exception_ptr error;
    PyThreadState* released = program->node_count() >= kReleaseGilFrom ? PyEval_SaveThread() : nullptr;
    try {
      outputs = program->run(inputs, &self_of(self)->status);
    } catch (...) {
      error = std::current_exception();
    }
    if (released != nullptr) PyEval_RestoreThread(released);
    if (error) std::rethrow_exception(error);
    counters().ops_replayed += program->node_count();
    counters().kernels_run += self_of(self)->status.kernels;
    Ref result = Ref::steal(PyTuple_New(static_cast<Py_ssize_t>(outputs.size())));
    for (size_t i = 0; result && i < outputs.size(); ++i) {
      PyObject* item = wrap_tensor(std::move(outputs[i]));
      if (item == nullptr) return nullptr;
      PyTuple_SET_ITEM(result.get(), static_cast<Py_ssize_t>(i), item);
    }
    return result.release();
  });
}

PyObject* graph_run(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  const auto compile = [](const ir::Graph& graph) { return eager::compile(graph); };
  return run_with(self, self_of(self)->program, compile, args, count);
}

PyObject* graph_run_poisoned(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  const auto compile = [](const ir::Graph& graph) {
    eager::Options options;
    options.poison_empty = true;
    return eager::compile(graph, options);
  };
  return run_with(self, self_of(self)->poisoned, compile, args, count);
}

// Code is generated even where calling one operator would do.
native::ScheduleOptions generate_all() {
  native::ScheduleOptions options;
  options.single_operators = true;
  return options;
}

PyObject* graph_run_native(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  const auto compile = [](const ir::Graph& graph) { return native::compile(graph, generate_all()); };
  return run_with(self, self_of(self)->native, compile, args, count);
}

PyObject* graph_run_generated(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  const auto compile = [](const ir::Graph& graph) { return native::compile(graph); };
  return run_with(self, self_of(self)->generated, compile, args, count);
}

PyObject* graph_native_stages(PyObject* self, PyObject*) {
  if (!require_graph(self)) return nullptr;
  return guarded([&] {
    const native::Stages s = native::stages(*self_of(self)->graph, generate_all());
    return Py_BuildValue("{s:s,s:s,s:s,s:s}", "lowered", s.lowered.c_str(), "scheduled", s.scheduled.c_str(),
                         "kernels", s.kernels.c_str(), "llvm", s.llvm.c_str());
  });
}

PyObject* graph_compare(PyObject* self, PyObject* other, int op) {
  if ((op != Py_EQ && op != Py_NE) || Py_TYPE(other) != Py_TYPE(self)) Py_RETURN_NOTIMPLEMENTED;
  if (!require_graph(self) || !require_graph(other)) return nullptr;
  return guarded([&] {
    const bool equal = *self_of(self)->graph == *self_of(other)->graph;
    return PyBool_FromLong(equal == (op == Py_EQ));
  });
}

template <typename Items, typename Item>
PyObject* int_list(const Items& items, Item&& item) {
  Ref list = Ref::steal(PyList_New(0));
  for (const auto& entry : items) {
    if (!list) return nullptr;
    const Ref number = Ref::steal(PyLong_FromLong(item(entry)));
    if (!number || PyList_Append(list.get(), number.get()) < 0) return nullptr;
  }
  return list.release();
}

PyObject* get_sources(PyObject* self, void*) {
  if (!require_graph(self)) return nullptr;
  return int_list(self_of(self)->graph->inputs, [](const ir::Input& input) { return input.source; });
}

// The sources of the inputs that the graph writes to.
PyObject* get_mutated(PyObject* self, void*) {
  if (!require_graph(self)) return nullptr;
  const ir::Graph& graph = *self_of(self)->graph;
  return int_list(graph.mutated_inputs(),
                  [&](ir::ValueId id) { return graph.inputs[static_cast<size_t>(id)].source; });
}

PyObject* get_nodes(PyObject* self, void*) {
  if (!require_graph(self)) return nullptr;
  return PyLong_FromSize_t(self_of(self)->graph->nodes.size());
}

PyObject* get_reason(PyObject* self, void*) {
  if (self_of(self)->reason == GraphBreak::none) Py_RETURN_NONE;
  return PyUnicode_FromString(break_name(self_of(self)->reason));
}

PyObject* get_detail(PyObject* self, void*) { return PyUnicode_FromString(self_of(self)->detail.c_str()); }

// (node, whether a visible mutation had begun) of the last run.
PyObject* get_status(PyObject* self, void*) {
  return Py_BuildValue("(iO)", self_of(self)->status.node,
                       self_of(self)->status.visible_mutation ? Py_True : Py_False);
}

template <auto Function>
PyCFunction fastcall() {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(Function));
}

PyMethodDef graph_methods[] = {
    {"text", graph_text, METH_NOARGS, "The graph as text."},
    {"export", graph_export, METH_NOARGS, "The graph as plain Python values (csrc/backend/fx/export.h)."},
    {"verify", graph_verify, METH_NOARGS, "The first violated invariant, or an empty string."},
    {"run", fastcall<graph_run>(), METH_FASTCALL, "Replays the graph; takes every registered input."},
    {"run_poisoned", fastcall<graph_run_poisoned>(), METH_FASTCALL,
     "The same with `empty` results filled with junk."},
    {"run_native", fastcall<graph_run_native>(), METH_FASTCALL,
     "The same by the native backend, single operators generated as well."},
    {"run_generated", fastcall<graph_run_generated>(), METH_FASTCALL, "The same by the native backend."},
    {"native_stages", graph_native_stages, METH_NOARGS,
     "Texts of the native backend's stages: lowered, scheduled, kernels, llvm."},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef graph_getset[] = {
    {"sources", get_sources, nullptr, "Source ids of the graph's inputs.", nullptr},
    {"mutated", get_mutated, nullptr, "Source ids of the inputs the graph writes to.", nullptr},
    {"node_count", get_nodes, nullptr, "Number of nodes.", nullptr},
    {"break_reason", get_reason, nullptr, "Name of the break, or None.", nullptr},
    {"break_detail", get_detail, nullptr, "What broke.", nullptr},
    {"status", get_status, nullptr, "(last node run, visible mutation begun) of the last run.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyType_Slot graph_slots[] = {
    {Py_tp_dealloc, reinterpret_cast<void*>(graph_dealloc)},
    {Py_tp_methods, graph_methods},
    {Py_tp_getset, graph_getset},
    {Py_tp_richcompare, reinterpret_cast<void*>(graph_compare)},
    {0, nullptr},
};

PyType_Spec graph_spec = {"flashpoint._C.Graph", sizeof(GraphObject), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, graph_slots};

PyTypeObject* graph_type = nullptr;  // owned by the module, which is never unloaded

PyObject* new_graph(std::optional<ir::Graph> graph, GraphBreak reason, std::string detail) {
  PyObject* object = graph_type->tp_alloc(graph_type, 0);
  if (object == nullptr) return nullptr;
  auto* self = self_of(object);
  new (&self->graph) std::optional<ir::Graph>(std::move(graph));
  new (&self->program) std::optional<eager::Program>();
  new (&self->poisoned) std::optional<eager::Program>();
  new (&self->native) std::unique_ptr<GraphProgram>();
  new (&self->generated) std::unique_ptr<GraphProgram>();
  self->reason = reason;
  new (&self->detail) std::string(std::move(detail));
  self->status = {};
  return object;
}

bool collect_tensors(PyObject* object, std::vector<at::Tensor>& tensors) {
  if (object == Py_None) return true;
  if (is_tensor(object)) {
    tensors.push_back(unpack_tensor(object));
    return true;
  }
  if (PyTuple_Check(object) || PyList_Check(object)) {
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(object); ++i) {
      if (!collect_tensors(PySequence_Fast_GET_ITEM(object, i), tensors)) return false;
    }
  }
  return true;  // other results are not the graph's business
}

PyObject* graph_record(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* kwnames) {
  GraphRecorder::Options options;
  options.expect_values = false;
  if (kwnames != nullptr && PyTuple_GET_SIZE(kwnames) == 1) options.max_nodes = PyLong_AsLong(args[count]);
  if (PyErr_Occurred()) return nullptr;
  if (count < 1) {
    PyErr_SetString(PyExc_TypeError, "[flashpoint._C] _graph_record(fn, *tensors)");
    return nullptr;
  }
  return guarded([&]() -> PyObject* {
    std::vector<at::Tensor> inputs;
    if (!take_tensors(args + 1, count - 1, inputs)) return nullptr;
    TestPositions positions;
    options.positions = &positions;
    GraphRecorder recorder(options);
    for (size_t i = 0; i < inputs.size(); ++i) recorder.register_input(inputs[i], static_cast<int>(i));
    inputs.clear();
    const ActiveRecording outer = std::exchange(active, {&recorder, &positions});
    Ref result;
    try {
      const TracerScope scope(&recorder);
      result = Ref::steal(PyObject_Vectorcall(args[0], args + 1, static_cast<size_t>(count - 1), nullptr));
    } catch (...) {
      active = outer;
      throw;
    }
    active = outer;
    if (!result) return nullptr;
    std::vector<at::Tensor> outputs;
    collect_tensors(result.get(), outputs);
    std::unique_ptr<ir::Graph> graph = recorder.finish(outputs);
    outputs.clear();
    std::optional<ir::Graph> owned;
    if (graph) owned = std::move(*graph);
    Ref object = Ref::steal(new_graph(std::move(owned), recorder.break_reason(), recorder.break_detail()));
    if (!object) return nullptr;
    return PyTuple_Pack(2, object.get(), result.get());
  });
}

PyObject* graph_parse(PyObject*, PyObject* text) {
  Py_ssize_t size = 0;
  const char* data = PyUnicode_AsUTF8AndSize(text, &size);
  if (data == nullptr) return nullptr;
  return guarded([&]() -> PyObject* {
    ir::ParseResult result = ir::parse({data, static_cast<size_t>(size)});
    std::string error = result.error;
    if (result.graph) error = ir::verify(*result.graph);
    if (!error.empty()) {
      PyErr_Format(PyExc_ValueError, "[flashpoint._C] %s", error.c_str());
      return nullptr;
    }
    return new_graph(std::move(*result.graph), GraphBreak::none, "");
  });
}

PyObject* graph_hidden(PyObject*, PyObject* fn) {
  const NoTracerDispatchMode hidden;
  return PyObject_CallNoArgs(fn);
}

PyObject* graph_constant(PyObject* module, PyObject* fn) {
  Ref tensor = Ref::steal(graph_hidden(module, fn));
  if (!tensor) return nullptr;
  if (active.recorder == nullptr || !is_tensor(tensor.get())) {
    PyErr_SetString(PyExc_RuntimeError, "[flashpoint._C] _graph_constant needs a recording and a tensor");
    return nullptr;
  }
  return guarded([&] {
    active.recorder->register_constant(unpack_tensor(tensor.get()));
    return tensor.release();
  });
}

PyObject* graph_location(PyObject*, PyObject* text) {
  const char* data = PyUnicode_AsUTF8(text);
  if (data == nullptr) return nullptr;
  if (active.positions != nullptr) active.positions->set(data);
  Py_RETURN_NONE;
}

PyObject* graph_number_store(PyObject*, PyObject* enabled) {
  const int on = PyObject_IsTrue(enabled);
  if (on < 0) return nullptr;
  if (active.recorder != nullptr) active.recorder->set_number_store(on != 0);
  Py_RETURN_NONE;
}

PyObject* graph_enable(PyObject*, PyObject* enabled) {
  const int on = PyObject_IsTrue(enabled);
  if (on < 0) return nullptr;
  return guarded([&]() -> PyObject* {
    set_dispatch_enabled(on != 0);
    Py_RETURN_NONE;
  });
}

PyObject* graph_enabled(PyObject*, PyObject*) { return PyBool_FromLong(is_dispatch_enabled()); }

PyMethodDef functions[] = {
    {"_graph_record", fastcall<graph_record>(), METH_FASTCALL | METH_KEYWORDS,
     "Records fn(*tensors): (Graph, result)."},
    {"_graph_parse", graph_parse, METH_O, "Reads a graph from text."},
    {"_graph_hidden", graph_hidden, METH_O, "Calls fn() hidden from recordings."},
    {"_graph_constant", graph_constant, METH_O, "Calls fn() hidden and registers its tensor as a literal."},
    {"_graph_location", graph_location, METH_O, "Sets the location of the nodes that follow."},
    {"_graph_number_store", graph_number_store, METH_O,
     "Declares that a number is being stored into a tensor."},
    {"_graph_enable", graph_enable, METH_O, "Turns the tracer's dispatch key on or off."},
    {"_graph_enabled", graph_enabled, METH_NOARGS, "Whether the tracer's dispatch key is on."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int bind_graph(PyObject* module) {
  graph_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&graph_spec));
  if (graph_type == nullptr) return -1;
  if (PyModule_AddObjectRef(module, "Graph", reinterpret_cast<PyObject*>(graph_type)) < 0) return -1;
  return PyModule_AddFunctions(module, functions);
}

}  // namespace flashpoint
