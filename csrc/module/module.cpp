#include "module/bindings.h"

namespace flashpoint {
namespace {

using Binder = int (*)(PyObject*);
constexpr Binder kBinders[] = {bind_eval,  bind_code_state, bind_graph, bind_driver,    bind_fx,
                               bind_scope, bind_store_keys, bind_store, bind_recordings};

PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "flashpoint._C", "Native core of flashpoint.", -1, nullptr,
};

}  // namespace
}  // namespace flashpoint

PyMODINIT_FUNC PyInit__C() {
  using namespace flashpoint;
  PyObject* module = PyModule_Create(&module_def);
  if (module == nullptr) return nullptr;
  for (Binder bind : kBinders) {
    if (bind(module) < 0) {
      Py_DECREF(module);
      return nullptr;
    }
  }
  return module;
}
