#include "driver/code_extra.h"

#include <algorithm>

#include "record/rules/rules.h"

namespace flashpoint {

namespace {

void destroy(void* extra) { delete static_cast<CodeExtra*>(extra); }

Py_ssize_t extra_index() {
  static const Py_ssize_t index = _PyEval_RequestCodeExtraIndex(destroy);
  return index;
}

}  // namespace

void CodeExtra::join(const std::shared_ptr<CodeState>& state) {
  // What has died keeps its memory as long as it is listed here.
  std::erase_if(states, [](const auto& other) { return other.expired(); });
  states.push_back(state);
}

std::vector<std::shared_ptr<CodeState>> CodeExtra::living() {
  std::vector<std::shared_ptr<CodeState>> found;
  for (const auto& state : states) {
    if (std::shared_ptr<CodeState> alive = state.lock()) found.push_back(std::move(alive));
  }
  states.assign(found.begin(), found.end());
  return found;
}

void CodeExtra::number_entries(CodeState& state) {
  const auto number_them = [&](PositionEntries& position) {
    // Most recently used first: new ones are in front, the oldest of them last.
    for (size_t i = position.entries.size(); i-- > 0;) {
      Entry& entry = *position.entries[i];
      if (entry.compile_id.empty())
        entry.compile_id = std::to_string(number) + "/" + std::to_string(next_entry++);
    }
  };
  number_them(state.start);
  for (auto& [key, position] : state.positions) number_them(position);
}

CodeExtra* code_extra(PyObject* code, bool create) {
  static int codes = 0;
  if (extra_index() < 0) {
    if (create) PyErr_SetString(PyExc_RuntimeError, "[flashpoint] no slot is left on code objects");
    return nullptr;
  }
  void* found = nullptr;
  if (_PyCode_GetExtra(code, extra_index(), &found) < 0) return nullptr;
  if (found != nullptr || !create) return static_cast<CodeExtra*>(found);
  auto made = std::make_unique<CodeExtra>();
  made->number = codes++;
  if (_PyCode_SetExtra(code, extra_index(), made.get()) < 0) return nullptr;
  return made.release();
}

Ref code_of(PyObject* function) {
  if (PyMethod_Check(function)) {
    PyObject* self = PyMethod_GET_SELF(function);
    function = PyMethod_GET_FUNCTION(function);
    if (PyFunction_Check(function) && rules().is_module_wrapper(PyFunction_GET_CODE(function))) {
      static PyObject* const name = PyUnicode_InternFromString("forward");
      PyObject* forward = _PyType_Lookup(Py_TYPE(self), name);
      if (forward != nullptr && PyFunction_Check(forward)) function = forward;
    }
  }
  return PyFunction_Check(function) ? Ref::share(PyFunction_GET_CODE(function)) : Ref();
}

FrameAction& inherited_action() {
  thread_local FrameAction action = FrameAction::kDefault;
  return action;
}

}  // namespace flashpoint
