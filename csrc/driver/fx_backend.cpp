#include "driver/fx_backend.h"

#include <algorithm>

#include "backend/fx/export.h"

namespace flashpoint {

namespace {

// For the duration of a backend's work the regions are those the recording started in.
class RegionsAtEntry {
 public:
  RegionsAtEntry(const GlobalState& before, const GlobalState& after) : after_(after) {
    differs_ = !(before == after);
    if (differs_) before.enter_regions();
  }
  ~RegionsAtEntry() {
    if (differs_) after_.enter_regions();
  }
  RegionsAtEntry(const RegionsAtEntry&) = delete;
  RegionsAtEntry& operator=(const RegionsAtEntry&) = delete;

 private:
  const GlobalState& after_;
  bool differs_;
};

PyObject* or_none(const Ref& ref) { return ref ? ref.get() : Py_None; }

// With the number itself in the tensor's place.
Ref describe_number(const RecordedGraph& recorded, int32_t source, bool is_float) {
  const ScalarOperand& from = recorded.numbers[static_cast<size_t>(source)].from;
  const std::string path =
      from.kind == ScalarOperand::Kind::kNode ? recorded.tree.path(from.index) : std::string("number");
  PyObject* const value = recorded.number(source);
  const Ref number = is_float ? Ref::steal(PyNumber_Float(value)) : Ref::share(value);
  return number ? Ref::steal(Py_BuildValue("(sOO)", path.c_str(), number.get(), Py_False)) : Ref();
}

Ref describe_sources(const RecordedGraph& recorded) {
  const std::vector<ir::ValueId> mutated = recorded.graph.mutated_inputs();
  Ref list = Ref::steal(PyList_New(0));
  for (const ir::Input& input : recorded.graph.inputs) {
    const ir::ValueKind kind = recorded.graph.values[static_cast<size_t>(input.value)].kind;
    if (kind != ir::ValueKind::kTensor) {
      const Ref row = describe_number(recorded, input.source, kind == ir::ValueKind::kFloat);
      if (!list || !row || PyList_Append(list.get(), row.get()) < 0) return Ref();
      continue;
    }
    PyObject* tensor = recorded.object(input.source);
    const bool writes = std::binary_search(mutated.begin(), mutated.end(), input.value);
    const Ref row =
        Ref::steal(Py_BuildValue("(sOO)", recorded.tree.path(input.source).c_str(),
                                 tensor == nullptr ? Py_None : tensor, writes ? Py_True : Py_False));
    if (!list || !row || PyList_Append(list.get(), row.get()) < 0) return Ref();
  }
  return list;
}

Ref list_of(const std::vector<Ref>& items) {
  Ref list = Ref::steal(PyList_New(0));
  for (const Ref& item : items) {
    if (!list || PyList_Append(list.get(), or_none(item)) < 0) return Ref();
  }
  return list;
}

Ref describe_functions(const std::vector<HostedCall>& functions) {
  Ref list = Ref::steal(PyList_New(0));
  for (const HostedCall& call : functions) {
    const Ref arguments = list_of(call.arguments);
    const Ref results = list_of(call.results);
    if (!list || !arguments || !results) return Ref();
    // Told apart from the constant None by a flag of their own.
    Ref tensors = Ref::steal(PyList_New(0));
    for (const Ref& argument : call.arguments) {
      if (!tensors || PyList_Append(tensors.get(), argument ? Py_False : Py_True) < 0) return Ref();
    }
    const Ref row = Ref::steal(Py_BuildValue("(OOOOO)", call.callable.get(), arguments.get(), tensors.get(),
                                             call.returns_tuple ? Py_True : Py_False, results.get()));
    if (!row || PyList_Append(list.get(), row.get()) < 0) return Ref();
  }
  return list;
}

}  // namespace

Ref compile_graph(PyObject* compiler, const RecordedGraph& recorded, const RecordedCall& call,
                  const GlobalState& before, const GlobalState& after) {
  const Ref exported = Ref::steal(fx::export_graph(recorded.graph));
  const Ref sources = describe_sources(recorded);
  const Ref calls = describe_functions(recorded.functions);
  const Ref positional = Ref::steal(PyLong_FromSize_t(call.positional));
  const Ref none = Ref::steal(PyTuple_New(0));
  const Ref traced = Ref::steal(recorded.trace.exported(recorded.tree, recorded.object));
  if (!traced || !exported || !sources || !calls || !positional || !none) return Ref();
  const auto set = [&](const char* key, PyObject* value) {
    return PyDict_SetItemString(exported.get(), key, value == nullptr ? Py_None : value) == 0;
  };
  const bool complete =
      set("sources", sources.get()) && set("trace", traced.get()) && set("functions", calls.get()) &&
      set("function", call.function) && set("positional", positional.get()) &&
      set("keywords", call.keywords == nullptr ? none.get() : call.keywords) && set("first", call.first);
  if (!complete) return Ref();
  const RegionsAtEntry regions(before, after);
  return Ref::steal(PyObject_CallOneArg(compiler, exported.get()));
}

}  // namespace flashpoint
