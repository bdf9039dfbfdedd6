// Class statements: the body is recorded like any frame, the class it makes is fresh.
//
// A replay makes no class. What a fresh class has in its own namespace is the recording's doing and needs no
// guard, so it may be used in the call, with its instances; a recording that one of them leaves is dropped,
// and the next one ends before the class statement. What C code does to make a class is unseen and must
// concern the class alone.
#include <string>
#include <utility>
#include <vector>

#include "py/frame.h"
#include "record/graph_recorder.h"
#include "record/recorder.h"
#include "record/rules/rules.h"

namespace flashpoint {

namespace {

bool is_c_code(PyObject* found) {
  return found == nullptr || PyCFunction_Check(found) || Py_IS_TYPE(found, &PyMethodDescr_Type) ||
         Py_IS_TYPE(found, &PyWrapperDescr_Type) || Py_IS_TYPE(found, &PyClassMethodDescr_Type);
}

}  // namespace

void Rules::build_class(Recorder& r, PyObject* const* argv, Py_ssize_t n, PyObject* kwnames,
                        Pending& pending) const {
  if (n < 2 || kwnames != nullptr) return r.end(Break::k_unsupported_instruction, "a class with keywords");
  for (Py_ssize_t i = 2; i < n; ++i) {
    if (!PyType_Check(argv[i]))
      return r.end(Break::k_unsupported_instruction, "a base that is no class from before");
    r.type_lookup(reinterpret_cast<PyTypeObject*>(argv[i]), "__init_subclass__");
    PyTypeObject* meta = Py_TYPE(argv[i]);
    if (meta == &PyType_Type) continue;
    for (const char* hook : {"__prepare__", "__new__", "__call__"}) {
      if (!is_c_code(r.type_lookup(meta, hook)))
        return r.end(Break::k_unsupported_instruction, std::string("a class of metaclass ") + meta->tp_name);
    }
    r.type_lookup(meta, "__init__");
  }
  pending.word = Recorder::kPendingClass;
}

bool Rules::read_class_name(Recorder& r, EvalFrame& frame, PyObject* name) const {
  PyObject* names = py::frame_locals(frame.frame);
  PyObject* globals = py::frame_globals(frame.frame);
  // The namespace of a class body is a fresh dict; that of a module or of exec() is not, or has been handed
  // in.
  if (names == nullptr || names == globals || !PyDict_CheckExact(names) || r.node_of(names) != kNoNode)
    return false;
  if (name == nullptr || PyDict_GetItemWithError(names, name) != nullptr) return true;
  r.const_node(globals);
  r.read_dict_key(globals, name);
  if (PyDict_GetItemWithError(globals, name) == nullptr) {
    PyObject* builtins = py::frame_builtins(frame.frame);
    r.const_node(builtins);
    r.read_dict_key(builtins, name);
  }
  return true;
}

}  // namespace flashpoint
