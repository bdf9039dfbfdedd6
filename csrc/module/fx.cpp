// Bindings that nodes of FX graphs and flashpoint/fx need.
#include <Python.h>

#include "ir/node_state.h"
#include "module/bindings.h"

namespace flashpoint {
namespace {

PyObject* switch_flags(PyObject*, PyObject* flags) {
  const unsigned long wanted = PyLong_AsUnsignedLong(flags);
  if (PyErr_Occurred()) return nullptr;
  const uint64_t before = ir::global_flags() & ir::kSwitchableFlags;
  ir::switch_global_flags(static_cast<uint32_t>(wanted));
  return PyLong_FromUnsignedLongLong(before);
}

PyObject* global_flags(PyObject*, PyObject*) { return PyLong_FromUnsignedLongLong(ir::global_flags()); }

PyMethodDef functions[] = {
    {"switch_global_flags", switch_flags, METH_O,
     "Sets the process-wide switches of csrc/ir/global_flags.def, as bits; returns those before."},
    {"global_flags", global_flags, METH_NOARGS,
     "Default dtype, precision and those switches, as one comparable number."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int bind_fx(PyObject* module) { return PyModule_AddFunctions(module, functions); }

}  // namespace flashpoint
