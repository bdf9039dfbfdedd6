#include "record/visible_death.h"

#include <algorithm>
#include <string_view>

#include "base/flat_map.h"
#include "guard/guard_tree.h"
#include "py/generators.h"
#include "py/layout.h"
#include "py/torch_bridge.h"

namespace flashpoint {

namespace {

constexpr size_t kMostOwned =
    5000;  // objects that only the frames hold; where there are more, one of them may
constexpr size_t kMostReached = 200;  // by one local

// Objects of C++ that leave a region of torch when they die.
bool is_region_guard(PyTypeObject* type) {
  static const FlatSet<PyObject*>* const types = [] {
    auto* found = new FlatSet<PyObject*>();             // types of a module that stays
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
  return types->contains(reinterpret_cast<PyObject*>(type));
}

// What contextlib makes of a generator function runs its generator to the end where the block is left.
bool is_generator_manager(PyTypeObject* type) {
  static PyTypeObject* const manager = [] {
    PyObject* module = PyImport_AddModule("contextlib");  // borrowed; torch has imported it
    PyObject* found =
        module == nullptr ? nullptr : PyObject_GetAttrString(module, "_GeneratorContextManager");
    if (found == nullptr) PyErr_Clear();
    return reinterpret_cast<PyTypeObject*>(found);  // never released
  }();
  return manager != nullptr && PyType_IsSubtype(type, manager);
}

// Nothing dies with it that anyone would notice.
bool is_silent(PyObject* o) {
  return o == nullptr || is_primitive(o) || PyType_Check(o) || PyModule_Check(o) || PyCode_Check(o);
}

// TorchDynamo, once it has run, keeps a table of the modules that are made, and looks up living ones only.
bool is_of_dynamo(const PyWeakReference* reference) {
  PyObject* callback = reference->wr_callback;
  if (callback == nullptr || !PyFunction_Check(callback)) return false;
  auto* code = reinterpret_cast<PyCodeObject*>(PyFunction_GET_CODE(callback));
  const char* file = PyUnicode_AsUTF8(code->co_filename);
  if (file == nullptr) PyErr_Clear();
  return file != nullptr && std::string_view(file).ends_with("torch/_dynamo/utils.py");
}

bool has_weakrefs(PyObject* o) {
  if (!PyType_SUPPORTS_WEAKREFS(Py_TYPE(o))) return false;
  auto** list = reinterpret_cast<PyWeakReference**>(PyObject_GET_WEAKREFS_LISTPTR(o));
  for (PyWeakReference* reference = list == nullptr ? nullptr : *list; reference != nullptr;
       reference = reference->wr_next) {
    if (!is_of_dynamo(reference)) return true;
  }
  return false;
}

bool is_noticed(PyObject* o) {
  PyTypeObject* type = Py_TYPE(o);
  if (PyGen_CheckExact(o)) return py::closes_noticeably(o) || has_weakrefs(o);
  // Without it, what it refers to dies without the call.
  if (PyWeakref_Check(o)) return reinterpret_cast<PyWeakReference*>(o)->wr_callback != nullptr;
  if (PyFunction_Check(o)) return false;  // functools.singledispatch and others refer to functions weakly
  if (has_weakrefs(o)) return true;
  if (is_tensor(o)) return false;
  return type->tp_del != nullptr || type->tp_finalize != nullptr || is_region_guard(type);
}

bool is_exit(PyObject* o) {
  if (!PyMethod_Check(o) || !PyFunction_Check(PyMethod_GET_FUNCTION(o))) return false;
  PyObject* name = reinterpret_cast<PyFunctionObject*>(PyMethod_GET_FUNCTION(o))->func_name;
  return PyUnicode_CompareWithASCIIString(name, "__exit__") == 0;
}

// Calls visit for each object that `o` refers to. The frame of a generator that runs is one of the chain,
// whose references are known; its own account of them is out of date.
void for_each_part(PyObject* o, visitproc visit, void* argument) {
  if (is_tensor(o)) {
    if (PyObject* dict = py::instance_dict(o)) visit(dict, argument);
  } else if (!(PyGen_Check(o) && py::is_generator_running(o)) && PyObject_IS_GC(o)) {
    if (const traverseproc traverse = Py_TYPE(o)->tp_traverse) traverse(o, visit, argument);
  }
}

// Counts the references that are known. An object of which all are lives for them alone, and what it refers
// to is known as well.
class Search {
 public:
  bool run(const std::vector<PyObject*>& references) {
    for (PyObject* o : references) refer_to(o);
    size_t owned = 0;
    while (!found_ && !owned_.empty()) {
      PyObject* o = owned_.back();
      owned_.pop_back();
      if (++owned > kMostOwned) return true;
      if (is_exit(o)) leaving_.insert(PyMethod_GET_SELF(o));
      if (leaving_.contains(o) && is_generator_manager(Py_TYPE(o))) continue;
      for_each_part(o, visit, this);
    }
    return found_;
  }

 private:
  static int visit(PyObject* o, void* search) {
    static_cast<Search*>(search)->refer_to(o);
    return 0;
  }

  void refer_to(PyObject* o) {
    if (found_ || is_silent(o)) return;
    if (Py_REFCNT(o) > 1 && ++known_[o] != Py_REFCNT(o)) return;
    if (Py_REFCNT(o) == 1 && !known_.try_emplace(o).second) return;
    found_ = is_noticed(o);
    if (!is_tensor(o) || py::instance_dict(o) != nullptr) owned_.push_back(o);
  }

  FlatMap<PyObject*, Py_ssize_t, PointerHash> known_;
  std::vector<PyObject*> owned_;
  FlatSet<PyObject*> leaving_;  // managers whose __exit__ is about to be called
  bool found_ = false;
};

class Reach {
 public:
  bool run(PyObject* o) {
    go_to(o);
    while (!found_ && !open_.empty()) {
      PyObject* next = open_.back();
      open_.pop_back();
      // Its globals are the whole module.
      if (PyFunction_Check(next)) {
        go_to(PyFunction_GET_CLOSURE(next));
        go_to(PyFunction_GET_DEFAULTS(next));
      } else {
        for_each_part(next, visit, this);
      }
    }
    return found_;
  }

 private:
  static int visit(PyObject* o, void* reach) {
    static_cast<Reach*>(reach)->go_to(o);
    return 0;
  }

  void go_to(PyObject* o) {
    if (found_ || is_silent(o) || !seen_.insert(o)) return;
    // What starts a generator, or moves it on, may let go of it.
    found_ = is_noticed(o) || (PyGen_CheckExact(o) && py::may_close_noticeably(o)) || ++count_ > kMostReached;
    open_.push_back(o);
  }

  FlatSet<PyObject*> seen_;
  std::vector<PyObject*> open_;
  size_t count_ = 0;
  bool found_ = false;
};

}  // namespace

// Most frames own nothing but tensors, which needs no search: asked before every part of a call that replays.
bool dies_visibly(const std::vector<PyObject*>& references) {
  const auto most = static_cast<Py_ssize_t>(references.size());
  const auto is_owned = [&](PyObject* o) {
    if (is_silent(o) || Py_REFCNT(o) > most) return false;
    if (is_tensor(o) && py::instance_dict(o) == nullptr && !has_weakrefs(o)) return false;
    return Py_REFCNT(o) <= std::count(references.begin(), references.end(), o);
  };
  return std::any_of(references.begin(), references.end(), is_owned) && Search().run(references);
}

// Made by a function, maybe for one call; its bases tell of it as long as it lives.
static bool is_local_class(PyObject* o) {
  if (!PyType_Check(o) || !PyType_HasFeature(reinterpret_cast<PyTypeObject*>(o), Py_TPFLAGS_HEAPTYPE))
    return false;
  const char* name = PyUnicode_AsUTF8(reinterpret_cast<PyHeapTypeObject*>(o)->ht_qualname);
  if (name == nullptr) return PyErr_Clear(), true;
  return std::string_view(name).find("<locals>") != std::string_view::npos;
}

bool is_watched_instance(PyObject* o) {
  if (o != nullptr && is_local_class(o)) return true;
  return !is_silent(o) && !is_tensor(o) && !PyFunction_Check(o) &&
         PyType_HasFeature(Py_TYPE(o), Py_TPFLAGS_HEAPTYPE) && has_weakrefs(o);
}

bool holds_visible(PyObject* o) { return Reach().run(o); }

bool ends_visibly(PyObject* frame) {
  std::vector<PyObject*> references;
  const visitproc add = [](PyObject* o, void* all) {
    if (!PyFrame_Check(o)) static_cast<std::vector<PyObject*>*>(all)->push_back(o);
    return 0;
  };
  PyFrame_Type.tp_traverse(frame, add, &references);
  return dies_visibly(references);
}

bool is_fresh_and_noticed(PyObject* o) {
  if (is_silent(o) || is_tensor(o)) return false;
  return is_noticed(o) || (PyGen_CheckExact(o) && py::may_close_noticeably(o));
}

bool is_visibly_dropped(PyObject* o, bool is_held) {
  if (is_silent(o) || is_tensor(o) || PyWeakref_Check(o)) return false;
  if (is_noticed(o)) return true;
  const std::vector<PyObject*> references(is_held ? 2 : 1, o);
  return Py_REFCNT(o) <= static_cast<Py_ssize_t>(references.size()) && Search().run(references);
}

}  // namespace flashpoint
