#include "record/dynamo_marks.h"

#include "py/frame.h"
#include "py/ref.h"

namespace flashpoint {

namespace {

// One of the sets of torch._dynamo.trace_rules, borrowed; null while nothing was ever put into it.
class CallableSet {
 public:
  explicit CallableSet(const char* name) : name_(PyUnicode_InternFromString(name)) {}

  bool contains(PyObject* callable) {
    PyObject* ids = get();
    if (ids == nullptr || !PySet_Check(ids) || PySet_GET_SIZE(ids) == 0) return false;
    const Ref id = Ref::steal(PyLong_FromVoidPtr(callable));
    const int found = id ? PySet_Contains(ids, id.get()) : -1;
    if (found < 0) PyErr_Clear();
    return found == 1;
  }

 private:
  PyObject* get() {
    static PyObject* const module_name = PyUnicode_InternFromString("torch._dynamo.trace_rules");
    static PyObject* const attribute = PyUnicode_InternFromString("function_ids");
    if (holder_ == nullptr) {
      PyObject* module = PyDict_GetItemWithError(PyImport_GetModuleDict(), module_name);
      if (module == nullptr || !PyModule_Check(module)) return nullptr;
      holder_ = Py_XNewRef(PyDict_GetItemWithError(PyModule_GetDict(module), name_));
    }
    if (holder_ == nullptr) return nullptr;
    PyObject** dict = _PyObject_GetDictPtr(holder_);
    return dict == nullptr || *dict == nullptr ? nullptr : PyDict_GetItemWithError(*dict, attribute);
  }

  PyObject* name_;              // interned for ever
  PyObject* holder_ = nullptr;  // lives as long as the process
};

}  // namespace

bool is_disallowed_in_graph(PyObject* callable) {
  static CallableSet disallowed("_disallowed_callable_ids");
  return disallowed.contains(callable);
}

bool is_allowed_in_graph(const EvalFrame& frame) {
  static CallableSet allowed("_allowed_callable_ids"), nonstrict("_nonstrict_trace_callable_ids");
  static PyObject* const mark = PyUnicode_InternFromString("_flashpoint_allow_in_graph");
  for (const EvalFrame* f = &frame; f != nullptr; f = f->caller) {
    PyObject* function = py::frame_function(f->frame);
    if (function == nullptr || !PyFunction_Check(function)) continue;
    PyObject* attributes = reinterpret_cast<PyFunctionObject*>(function)->func_dict;
    if (attributes != nullptr && PyDict_GetItemWithError(attributes, mark) != nullptr) return true;
    if (allowed.contains(function) || nonstrict.contains(function)) return true;
  }
  return false;
}

}  // namespace flashpoint
