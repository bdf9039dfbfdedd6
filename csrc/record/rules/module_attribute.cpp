// nn.Module.__getattr__ without its instructions: parameters, buffers and submodules are found in three
// dicts.
//
// Every access to a submodule comes through it, and its code asks six questions of dicts. What it reads is
// recorded as if it had run; what it would do in any other case than finding the name is left to it.
#include "py/frame.h"
#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/recorder.h"
#include "record/rules/rules.h"

namespace flashpoint {

PyObject* Rules::get_module_attr(Recorder& r, EvalFrame& frame) const {
  static PyObject* const places[] = {PyUnicode_InternFromString("_parameters"),
                                     PyUnicode_InternFromString("_buffers"),
                                     PyUnicode_InternFromString("_modules")};
  PyObject* self = py::frame_local(frame.frame, 0);
  PyObject* name = py::frame_local(frame.frame, 1);
  if (self == nullptr || name == nullptr || !PyUnicode_CheckExact(name) || !PyUnicode_CHECK_INTERNED(name))
    return nullptr;
  PyTypeObject* type = Py_TYPE(self);
  PyObject* dict = py::instance_dict(self);
  if (dict == nullptr || !PyDict_CheckExact(dict)) return nullptr;
  PyObject* held[3] = {};
  PyObject* found = nullptr;
  int last = 0;
  for (; last < 3 && found == nullptr; ++last) {
    held[last] = PyDict_GetItemWithError(dict, places[last]);
    if (held[last] == nullptr) continue;
    if (!PyDict_CheckExact(held[last])) return nullptr;
    found = PyDict_GetItemWithError(held[last], name);
  }
  if (found == nullptr) return nullptr;
  // Where an object cannot be recorded, the recording is to end before the instruction that pushes it.
  if (found != Py_None && (is_primitive(found) || r.is_opaque(found))) return nullptr;
  PyObject* getattribute = r.type_lookup(type, "__getattribute__");
  PyObject* own_dict = r.type_lookup(type, "__dict__");
  if (getattribute == nullptr || !Py_IS_TYPE(getattribute, &PyWrapperDescr_Type) || own_dict == nullptr ||
      !Py_IS_TYPE(own_dict, &PyGetSetDescr_Type))
    return nullptr;
  r.instance_dict_node(self);
  for (int i = 0; i < last && !r.ended(); ++i) {
    r.read_dict_key(dict, places[i]);
    if (held[i] == nullptr) continue;
    if (i + 1 < last) {
      r.read_dict_present(held[i], name);
    } else {
      r.read_dict_key(held[i], name);
    }
  }
  return r.ended() ? nullptr : Py_NewRef(found);
}

}  // namespace flashpoint
