// import statements, importlib.import_module, and the operators that torch.ops binds when they are asked for.
//
// A module that is loaded is a read of sys.modules. One that is not is loaded first, unwatched: that happens
// once in a process, in eager mode as well, so a replay has nothing of it to repeat.
#include <optional>
#include <utility>
#include <vector>

#include "py/frame.h"
#include "py/layout.h"
#include "record/graph_recorder.h"
#include "record/recorder.h"
#include "record/rules/late_modules.h"
#include "record/rules/rules.h"
#include "record/tracer_mode.h"
#include "record/unobserved.h"

namespace flashpoint {

namespace {

// Neither frames nor operators that run in its scope are recorded.
class Unwatched {
 public:
  explicit Unwatched(Recorder& r) : unobserved_(r.graph()) {}

 private:
  Unobserved unobserved_;
  NoTracerDispatchMode hidden_;
};

Ref loaded_module(PyObject* globals, PyObject* written) {
  Ref module = Ref::steal(PyImport_GetModule(written));
  if (module) return module;
  PyErr_Clear();
  // Relative imports arrive with the bare name: resolve against the package.
  PyObject* package = PyDict_GetItemString(globals, "__package__");
  if (package == nullptr || !PyUnicode_Check(package)) return {};
  Ref full = Ref::steal(PyUnicode_FromFormat("%U.%U", package, written));
  module = Ref::steal(PyImport_GetModule(full.get()));
  if (!module) PyErr_Clear();
  return module;
}

// The name under which loaded_module() finds it.
Ref found_name(PyObject* globals, PyObject* written) {
  PyObject* modules = PyImport_GetModuleDict();
  if (PyDict_GetItemWithError(modules, written) != nullptr) return Ref::share(written);
  PyObject* package = PyDict_GetItemString(globals, "__package__");
  if (package == nullptr || !PyUnicode_Check(package)) return {};
  return Ref::steal(PyUnicode_FromFormat("%U.%U", package, written));
}

bool is_builtin_import(PyObject* f) {
  return f != nullptr && PyCFunction_Check(f) && PyCFunction_GET_SELF(f) != nullptr &&
         PyModule_Check(PyCFunction_GET_SELF(f));
}

// A name of `from module import names` may be a module that is not loaded.
bool lacks_submodule(PyObject* module, PyObject* names) {
  if (!PyTuple_Check(names) || !PyModule_Check(module)) return false;
  PyObject* dict = PyModule_GetDict(module);
  if (PyDict_GetItemString(dict, "__path__") == nullptr ||
      PyDict_GetItemString(dict, "__getattr__") != nullptr)
    return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); ++i) {
    PyObject* name = PyTuple_GET_ITEM(names, i);
    if (PyUnicode_CompareWithASCIIString(name, "*") != 0 && PyDict_GetItemWithError(dict, name) == nullptr)
      return true;
  }
  return false;
}

}  // namespace

void Rules::import(Recorder& r, EvalFrame& frame, const Operands& o) const {
  PyObject* builtins = py::frame_builtins(frame.frame);
  PyObject* globals = py::frame_globals(frame.frame);
  Ref hook = Ref::steal(PyUnicode_InternFromString("__import__"));
  // A call of __import__ is one of importlib's, with an absolute name and nothing else.
  const bool statement = o.event == Event::kImport;
  PyObject* const names = statement ? frame.stack_pointer[-1] : Py_None;
  Ref module = loaded_module(globals, o.name);
  if (!module || lacks_submodule(module.get(), names)) {
    if (!is_builtin_import(PyDict_GetItemWithError(builtins, hook.get())))
      return r.end(Break::k_unsupported_import, PyUnicode_AsUTF8(o.name));
    const long level = statement ? PyLong_AsLong(frame.stack_pointer[-2]) : 0;
    const Unwatched unwatched(r);
    Ref imported = Ref::steal(
        PyImport_ImportModuleLevelObject(o.name, globals, nullptr, names, static_cast<int>(level)));
    if (!imported) {
      // It must not be tried a second time by the instruction.
      r.failed_import.take();
      return r.end(Break::k_unsupported_import, PyUnicode_AsUTF8(o.name));
    }
    module = loaded_module(globals, o.name);
    if (!module) return r.end(Break::k_unsupported_import, PyUnicode_AsUTF8(o.name));
    look_for_late_modules();
  }
  r.const_node(builtins);
  r.read_dict_key(builtins, hook.get());
  PyObject* sys_modules = PyImport_GetModuleDict();
  r.const_node(sys_modules);
  // Under the name by which it was found, which need not be its own; `import a.b` hands out a.
  Ref name = Ref::steal(PyObject_GetAttrString(module.get(), "__name__"));
  if (!name) PyErr_Clear();
  std::vector<PyObject*> keys{name.get()};
  Ref found = found_name(globals, o.name), outer;
  keys.push_back(found.get());
  if (found && PyUnicode_Check(found.get())) {
    const Py_ssize_t dot = PyUnicode_FindChar(found.get(), '.', 0, PyUnicode_GetLength(found.get()), 1);
    if (dot > 0) outer = Ref::steal(PyUnicode_Substring(found.get(), 0, dot));
    keys.push_back(outer.get());
  }
  for (PyObject* key : keys) {
    if (key != nullptr && PyUnicode_Check(key) && PyDict_GetItemWithError(sys_modules, key) != nullptr)
      r.read_dict_key(sys_modules, key);
  }
}

void Rules::bind_operator(Recorder& r, PyObject* holder, PyObject* name) const {
  const Unwatched unwatched(r);
  bind_operator(holder, name);
}

void Rules::bind_operator(PyObject* holder, PyObject* name) const {
  PyObject* dict = py::instance_dict(holder);
  if (dict == nullptr || PyDict_GetItemWithError(dict, name) != nullptr ||
      _PyType_Lookup(Py_TYPE(holder), name) != nullptr)
    return PyErr_Clear();
  if (Ref bound = Ref::steal(PyObject_GetAttr(holder, name)); !bound) PyErr_Clear();
}

bool Rules::is_import_module(PyObject* code) const { return code == import_module_; }

// Where loading fails, the frame that follows finds out by itself.
void Rules::load_module(Recorder& r, EvalFrame& frame) const {
  PyObject* name = py::frame_local(frame.frame, 0);
  PyObject* package = py::frame_local(frame.frame, 1);
  if (name == nullptr || !PyUnicode_CheckExact(name) || package != Py_None) return;
  if (PyUnicode_GetLength(name) == 0 || PyUnicode_ReadChar(name, 0) == '.') return;
  if (Ref loaded = Ref::steal(PyImport_GetModule(name)); loaded) return;
  PyErr_Clear();
  const Unwatched unwatched(r);
  if (Ref loaded = Ref::steal(PyImport_Import(name)); !loaded) PyErr_Clear();
  look_for_late_modules();
}

}  // namespace flashpoint
