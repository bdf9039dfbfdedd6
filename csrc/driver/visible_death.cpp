#include "driver/visible_death.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "py/generators.h"
#include "py/torch_bridge.h"
#include "record/recorder.h"

namespace flashpoint {

namespace {

constexpr size_t kMostObjects = 2000;  // where there are more, one of them may

// Objects of C++ that leave a region of torch when they die.
bool is_region_guard(PyTypeObject* type) {
  static const auto* types = [] {
    auto* found = new std::unordered_set<PyObject*>();  // static types of a module that stays
    PyObject* module = PyImport_AddModule("torch._C");  // borrowed
    for (const char* name :
         {"_AutoDispatchBelowADInplaceOrView", "_AutoDispatchBelowAutograd", "_DisableAutocast",
          "_DisableFuncTorch", "_DisablePythonDispatcher", "_DisableTorchDispatch",
          "_ExcludeDispatchKeyGuard", "ExcludeDispatchKeyGuard", "_ForceDispatchKeyGuard",
          "_IncludeDispatchKeyGuard", "_PreserveDispatchKeyGuard", "_SetExcludeDispatchKeyGuard"}) {
      PyObject* guard = module == nullptr ? nullptr : PyObject_GetAttrString(module, name);
      if (guard == nullptr) PyErr_Clear();
      if (guard != nullptr) found->insert(guard);
    }
    return found;
  }();
  return types->count(reinterpret_cast<PyObject*>(type)) > 0;
}

bool is_silent(PyObject* o) {
  return o == nullptr || is_primitive(o) || PyType_Check(o) || PyModule_Check(o) || PyCode_Check(o);
}

bool is_exit(PyObject* o) {
  if (!PyMethod_Check(o) || !PyFunction_Check(PyMethod_GET_FUNCTION(o))) return false;
  PyObject* name = reinterpret_cast<PyFunctionObject*>(PyMethod_GET_FUNCTION(o))->func_name;
  return PyUnicode_CompareWithASCIIString(name, "__exit__") == 0;
}

bool is_watched(PyObject* o) {
  PyTypeObject* type = Py_TYPE(o);
  if (PyFunction_Check(o)) return false;
  auto** weak = PyType_SUPPORTS_WEAKREFS(type)
                    ? reinterpret_cast<PyObject**>(PyObject_GET_WEAKREFS_LISTPTR(o))
                    : nullptr;
  return (weak != nullptr && *weak != nullptr) || is_region_guard(type);
}

class Search {
 public:
  explicit Search(const std::vector<PyObject*>& safe) : safe_(safe) {}

  // Who refers to an object that is part of a cycle cannot be told; nor who lets go of a generator.
  bool doubts(PyObject* o) const {
    if (is_silent(o)) return false;
    if (PyGen_CheckExact(o)) return closes(o);
    return !is_tensor(o) && PyType_HasFeature(Py_TYPE(o), Py_TPFLAGS_HEAPTYPE) && is_watched(o);
  }

  bool run(const std::vector<PyObject*>& references) {
    for (PyObject* o : references) refer_to(o);
    while (!found_ && !owned_.empty()) {
      PyObject* o = owned_.back();
      owned_.pop_back();
      if (++objects_ > kMostObjects) return true;
      // What a running one holds are references of its frame, which is in the chain; the frame's own account
      // of its stack is out of date.
      if (PyGen_CheckExact(o) && py::generator_phase(o) == py::GeneratorPhase::kRunning) continue;
      if (!is_tensor(o) && !is_exit(o) && PyObject_IS_GC(o) && Py_TYPE(o)->tp_traverse != nullptr)
        Py_TYPE(o)->tp_traverse(o, visit, this);
    }
    return found_;
  }

 private:
  static int visit(PyObject* o, void* search) {
    static_cast<Search*>(search)->refer_to(o);
    return 0;
  }

  bool closes(PyObject* o) const {
    return py::notices_close(o) && std::find(safe_.begin(), safe_.end(), o) == safe_.end();
  }

  // One more of its references is known. With all of them, it lives for nothing else.
  void refer_to(PyObject* o) {
    if (found_ || is_silent(o) || (is_tensor(o) && !is_watched(o)) || ++references_[o] != Py_REFCNT(o))
      return;
    const PyTypeObject* type = Py_TYPE(o);
    if (PyGen_CheckExact(o)) {
      found_ = closes(o);
    } else {
      found_ = is_watched(o) || (!is_tensor(o) && (type->tp_del != nullptr || type->tp_finalize != nullptr));
    }
    owned_.push_back(o);
  }

  const std::vector<PyObject*>& safe_;
  std::unordered_map<PyObject*, Py_ssize_t> references_;
  std::vector<PyObject*> owned_;
  size_t objects_ = 0;
  bool found_ = false;
};

}  // namespace

bool dies_visibly(const std::vector<PyObject*>& kept, const std::vector<PyObject*>& references,
                  const std::vector<PyObject*>& safe) {
  Search search(safe);
  return std::any_of(kept.begin(), kept.end(), [&](PyObject* o) { return search.doubts(o); }) ||
         search.run(references);
}

}  // namespace flashpoint
