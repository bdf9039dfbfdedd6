// Bindings of scopes and of the tracer's switch: current_scope_id, EnterScope, is_dispatch_enabled,
// set_dispatch_enabled, NoTracerDispatchMode.
//
// The two context managers act when they are entered and when they are left, never when they are made. One
// that was entered and is dropped without being left is left by its finalizer, as the generator of a
// contextlib context manager would be.
//
// GIL: required.
#include <Python.h>

#include <new>
#include <optional>
#include <thread>

#include "module/bindings.h"
#include "py/torch_bridge.h"
#include "record/scope.h"
#include "record/tracer_mode.h"

namespace flashpoint {
namespace {

PyObject* get_scope_id(PyObject*, PyObject*) { return PyLong_FromLongLong(current_scope_id()); }

PyObject* get_enabled(PyObject*, PyObject*) { return PyBool_FromLong(is_dispatch_enabled()); }

PyObject* set_enabled(PyObject*, PyObject* enabled) {
  if (!PyBool_Check(enabled)) {
    return PyErr_Format(PyExc_TypeError,
                        "[flashpoint.tracer.set_dispatch_enabled] takes True or False, not %.200s",
                        Py_TYPE(enabled)->tp_name);
  }
  try {
    set_dispatch_enabled(enabled == Py_True);
  } catch (...) {
    set_python_error(std::current_exception());
    return nullptr;
  }
  Py_RETURN_NONE;
}

// Adds one to the thread's scope id; like contextlib's, good for one `with`.
class ScopeState {
 public:
  static constexpr const char* kName = "flashpoint.enter_new_scope";
  bool enter() {
    if (used_) {
      PyErr_Format(PyExc_RuntimeError, "[%s] one context manager is good for one `with`: call %s() for each",
                   kName, kName);
      return false;
    }
    used_ = true;
    scope_.emplace();
    return true;
  }
  bool leave() {
    if (!used_) {
      PyErr_Format(PyExc_RuntimeError, "[%s] left, but never entered", kName);
      return false;
    }
    scope_.reset();  // leaving again does nothing
    return true;
  }
  void drop() {}  // what is still entered ends with the object

 private:
  bool used_ = false;
  std::optional<Scope> scope_;
};

// May be entered again, also while entered.
class HiddenState {
 public:
  static constexpr const char* kName = "flashpoint.tracer.NoTracerDispatchMode";
  bool enter() {
    if (depth_ > 0 && thread_ != std::this_thread::get_id()) return wrong_thread();
    thread_ = std::this_thread::get_id();
    ++depth_;
    begin_hidden_dispatch();
    return true;
  }
  bool leave() {
    if (depth_ == 0) {
      PyErr_Format(PyExc_RuntimeError, "[%s] left, but not entered", kName);
      return false;
    }
    if (thread_ != std::this_thread::get_id()) return wrong_thread();
    --depth_;
    end_hidden_dispatch();
    return true;
  }
  void drop() {
    // The mark is in the other thread's own memory: nothing can be done about it from here.
    if (thread_ != std::this_thread::get_id()) return;
    for (; depth_ > 0; --depth_) end_hidden_dispatch();
  }

 private:
  bool wrong_thread() {
    PyErr_Format(PyExc_RuntimeError,
                 "[%s] belongs to the thread that entered it: make one for each thread, and leave it there",
                 kName);
    return false;
  }
  int depth_ = 0;
  std::thread::id thread_;
};

template <typename State>
struct Manager {
  PyObject_HEAD State state;

  static State& of(PyObject* self) { return reinterpret_cast<Manager*>(self)->state; }

  static PyObject* make(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
    if (PyTuple_GET_SIZE(args) > 0 || (kwargs != nullptr && PyDict_GET_SIZE(kwargs) > 0)) {
      return PyErr_Format(PyExc_TypeError, "[%s] takes no arguments", State::kName);
    }
    PyObject* self = type->tp_alloc(type, 0);
    if (self != nullptr) new (&of(self)) State();
    return self;
  }
  static void dealloc(PyObject* self) {
    PyTypeObject* type = Py_TYPE(self);
    of(self).drop();
    of(self).~State();
    type->tp_free(self);
    Py_DECREF(type);
  }
  static PyObject* enter(PyObject* self, PyObject*) {
    if (!of(self).enter()) return nullptr;
    Py_RETURN_NONE;
  }
  static PyObject* leave(PyObject* self, PyObject*) {
    if (!of(self).leave()) return nullptr;
    Py_RETURN_FALSE;
  }
  static int add_to(PyObject* module, const char* name, const char* full_name, const char* doc) {
    static PyMethodDef methods[] = {
        {"__enter__", enter, METH_NOARGS, nullptr},
        {"__exit__", leave, METH_VARARGS, nullptr},
        {nullptr, nullptr, 0, nullptr},
    };
    PyType_Slot slots[] = {
        {Py_tp_new, reinterpret_cast<void*>(make)},
        {Py_tp_dealloc, reinterpret_cast<void*>(dealloc)},
        {Py_tp_methods, methods},
        {Py_tp_doc, const_cast<char*>(doc)},
        {0, nullptr},
    };
    PyType_Spec spec = {full_name, sizeof(Manager), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, slots};
    PyObject* type = PyType_FromSpec(&spec);
    if (type == nullptr) return -1;
    const int status = PyModule_AddObjectRef(module, name, type);
    Py_DECREF(type);
    return status;
  }
};

PyMethodDef functions[] = {
    {"current_scope_id", get_scope_id, METH_NOARGS,
     "current_scope_id()\n--\n\n"
     "The number of the nested tracer this thread is in: 1 outside of all, one more in each "
     "enter_new_scope()."},
    {"is_dispatch_enabled", get_enabled, METH_NOARGS,
     "is_dispatch_enabled()\n--\n\n"
     "Whether this thread hands its tensor operators to the tracer: the switch is on, and no "
     "NoTracerDispatchMode is entered."},
    {"set_dispatch_enabled", set_enabled, METH_O,
     "set_dispatch_enabled(enabled, /)\n--\n\n"
     "Turn this thread's switch on or off; it starts off.\n\n"
     "Raises RuntimeError inside NoTracerDispatchMode, where the switch may not be touched, and TypeError "
     "for anything but a bool."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int bind_scope(PyObject* module) {
  if (Manager<ScopeState>::add_to(module, "EnterScope", "flashpoint._C.EnterScope",
                                  "One more scope on this thread while entered.") < 0 ||
      Manager<HiddenState>::add_to(module, "NoTracerDispatchMode", "flashpoint._C.NoTracerDispatchMode",
                                   "Hides this thread's tensor operators from recordings while entered.") <
          0) {
    return -1;
  }
  return PyModule_AddFunctions(module, functions);
}

}  // namespace flashpoint
