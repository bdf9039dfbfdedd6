#include "guard/plain_call.h"

#include <algorithm>

#include "py/layout.h"

namespace flashpoint {

const std::array<PyObject*, PlainCall::kHooks>& PlainCall::hook_names() {
  static const std::array<PyObject*, kHooks> names = {
      PyUnicode_InternFromString("_backward_hooks"), PyUnicode_InternFromString("_backward_pre_hooks"),
      PyUnicode_InternFromString("_forward_hooks"), PyUnicode_InternFromString("_forward_pre_hooks")};
  return names;
}

const std::array<PyObject*, PlainCall::kMethods>& PlainCall::method_names() {
  static const std::array<PyObject*, kMethods> names = {PyUnicode_InternFromString("_compiled_call_impl"),
                                                        PyUnicode_InternFromString("_call_impl"),
                                                        PyUnicode_InternFromString("forward")};
  return names;
}

bool PlainCall::holds(PyObject* dict) {
  if (!PyDict_CheckExact(dict)) return false;
  if (dict != dict_ || py::dict_tag(dict) != tag_) {
    for (PyObject* name : method_names()) {
      if (PyDict_GetItemWithError(dict, name) != nullptr) return false;
    }
    for (int i = 0; i < kHooks; ++i) {
      hooks_[i] = PyDict_GetItemWithError(dict, hook_names()[i]);
      if (hooks_[i] == nullptr || !PyODict_CheckExact(hooks_[i])) {
        dict_ = nullptr;
        return false;
      }
    }
    dict_ = dict;
    tag_ = py::dict_tag(dict);
  }
  return std::all_of(hooks_.begin(), hooks_.end(), [](PyObject* d) { return PyDict_GET_SIZE(d) == 0; });
}

}  // namespace flashpoint
