#include "driver/stance.h"

#include <algorithm>
#include <string_view>

#include "py/ref.h"

namespace flashpoint {

namespace {

Stance own = Stance::kDefault;

// A global of a module, borrowed; null while the module is not imported.
class ModuleGlobal {
 public:
  ModuleGlobal(const char* module, const char* name)
      : module_(PyUnicode_InternFromString(module)), name_(PyUnicode_InternFromString(name)) {}

  PyObject* get() {
    if (dict_ == nullptr) {
      PyObject* module = PyDict_GetItemWithError(PyImport_GetModuleDict(), module_);
      if (module == nullptr || !PyModule_Check(module)) return nullptr;
      dict_ = Py_NewRef(PyModule_GetDict(module));  // lives as long as the process
    }
    return PyDict_GetItemWithError(dict_, name_);
  }

 private:
  PyObject* module_;  // interned for ever
  PyObject* name_;
  PyObject* dict_ = nullptr;
};

Stance parse(PyObject* stance) {
  const Ref name = Ref::steal(PyObject_GetAttrString(stance, "stance"));
  const char* text = name && PyUnicode_Check(name.get()) ? PyUnicode_AsUTF8(name.get()) : nullptr;
  if (text == nullptr) PyErr_Clear();
  const std::string_view s = text == nullptr ? "" : text;
  if (s == "eager_then_compile") return Stance::kEagerThenCompile;
  if (s == "force_eager") return Stance::kForceEager;
  if (s == "eager_on_recompile") return Stance::kEagerOnRecompile;
  if (s == "fail_on_recompile") return Stance::kFailOnRecompile;
  return Stance::kDefault;
}

Stance torchs() {
  static ModuleGlobal global("torch._dynamo.eval_frame", "_stance");
  static PyObject* seen = nullptr;  // kept alive, so that its address stays its own
  static Stance parsed = Stance::kDefault;
  PyObject* stance = global.get();
  if (stance == nullptr || stance == seen) return parsed;
  const Ref old = Ref::steal(seen);
  seen = Py_NewRef(stance);
  return parsed = parse(stance);
}

}  // namespace

Stance own_stance() { return own; }
void set_own_stance(Stance stance) { own = stance; }

Stance current_stance() {
  const Stance other = torchs();
  if (own == Stance::kForceEager || other == Stance::kForceEager) return Stance::kForceEager;
  return std::max(own, other);
}

bool is_run_only() {
  static ModuleGlobal global("torch._C._dynamo.eval_frame", "get_eval_frame_callback");
  PyObject* get = global.get();
  if (get == nullptr || !PyCFunction_Check(get)) return false;
  const Ref callback = Ref::steal(PyObject_CallNoArgs(get));
  if (!callback) PyErr_Clear();
  return callback.get() == Py_False;
}

bool errors_on_graph_break() {
  static ModuleGlobal global("torch._dynamo.utils", "_error_on_graph_break");
  return global.get() == Py_True;
}

}  // namespace flashpoint
