#include "eval/imports.h"

#include "py/ref.h"

namespace flashpoint {
namespace {

PyObject* raise_cannot_import(PyObject* module, PyObject* name, PyObject* package) {
  Ref path = Ref::steal(PyModule_GetFilenameObject(module));
  Ref shown =
      package != nullptr ? Ref::share(package) : Ref::steal(PyUnicode_FromString("<unknown module name>"));
  if (!shown) return nullptr;
  Ref message;
  if (!path || !PyUnicode_Check(path.get())) {
    PyErr_Clear();
    path = Ref();
    message = Ref::steal(
        PyUnicode_FromFormat("cannot import name %R from %R (unknown location)", name, shown.get()));
  } else {
    Ref spec = Ref::steal(PyObject_GetAttrString(module, "__spec__"));
    const char* format = _PyModuleSpec_IsInitializing(spec.get())
                             ? "cannot import name %R from partially initialized module %R "
                               "(most likely due to a circular import) (%S)"
                             : "cannot import name %R from %R (%S)";
    message = Ref::steal(PyUnicode_FromFormat(format, name, shown.get(), path.get()));
  }
  PyErr_SetImportError(message.get(), package, path.get());
  return nullptr;
}

// Names that `from module import *` binds; *skip_private when they come from the module's dict.
Ref star_names(PyObject* module, bool* skip_private) {
  PyObject* all = nullptr;
  Ref name = Ref::steal(PyUnicode_InternFromString("__all__"));
  if (!name || _PyObject_LookupAttr(module, name.get(), &all) < 0) return Ref();
  if (all != nullptr) return Ref::steal(all);
  PyObject* dict = nullptr;
  name = Ref::steal(PyUnicode_InternFromString("__dict__"));
  if (!name || _PyObject_LookupAttr(module, name.get(), &dict) < 0) return Ref();
  if (dict == nullptr) {
    PyErr_SetString(PyExc_ImportError, "from-import-* object has no __dict__ and no __all__");
    return Ref();
  }
  Ref owned = Ref::steal(dict);
  *skip_private = true;
  return Ref::steal(PyMapping_Keys(dict));
}

int raise_bad_star_name(PyObject* module, PyObject* name, bool from_dict) {
  Ref shown = Ref::steal(PyObject_GetAttrString(module, "__name__"));
  if (!shown) return -1;
  if (!PyUnicode_Check(shown.get())) {
    PyErr_Format(PyExc_TypeError, "module __name__ must be a string, not %.100s",
                 Py_TYPE(shown.get())->tp_name);
  } else {
    PyErr_Format(PyExc_TypeError, "%s in %U.%s must be str, not %.100s", from_dict ? "Key" : "Item",
                 shown.get(), from_dict ? "__dict__" : "__all__", Py_TYPE(name)->tp_name);
  }
  return -1;
}

int import_all(PyObject* locals, PyObject* module) {
  bool skip_private = false;
  Ref names = star_names(module, &skip_private);
  if (!names) return -1;
  for (Py_ssize_t position = 0;; ++position) {
    Ref name = Ref::steal(PySequence_GetItem(names.get(), position));
    if (!name) {
      if (!PyErr_ExceptionMatches(PyExc_IndexError)) return -1;
      PyErr_Clear();
      return 0;
    }
    if (!PyUnicode_Check(name.get())) return raise_bad_star_name(module, name.get(), skip_private);
    if (skip_private) {
      if (PyUnicode_READY(name.get()) == -1) return -1;
      if (PyUnicode_GET_LENGTH(name.get()) > 0 && PyUnicode_READ_CHAR(name.get(), 0) == '_') continue;
    }
    Ref value = Ref::steal(PyObject_GetAttr(module, name.get()));
    if (!value) return -1;
    const int status = PyDict_CheckExact(locals) ? PyDict_SetItem(locals, name.get(), value.get())
                                                 : PyObject_SetItem(locals, name.get(), value.get());
    if (status != 0) return -1;
  }
}

}  // namespace

PyObject* import_name(PyThreadState* tstate, _PyInterpreterFrame* frame, PyObject* name, PyObject* fromlist,
                      PyObject* level) {
  Ref key = Ref::steal(PyUnicode_InternFromString("__import__"));
  if (!key) return nullptr;
  Ref import = Ref::share(PyDict_GetItemWithError(frame->f_builtins, key.get()));
  if (!import) {
    if (!PyErr_Occurred()) PyErr_SetString(PyExc_ImportError, "__import__ not found");
    return nullptr;
  }
  PyObject* locals = frame->f_locals == nullptr ? Py_None : frame->f_locals;
  if (import.get() == tstate->interp->import_func) {
    const int plain_level = _PyLong_AsInt(level);
    if (plain_level == -1 && PyErr_Occurred()) return nullptr;
    return PyImport_ImportModuleLevelObject(name, frame->f_globals, locals, fromlist, plain_level);
  }
  PyObject* arguments[] = {name, frame->f_globals, locals, fromlist, level};
  return PyObject_Vectorcall(import.get(), arguments, 5, nullptr);
}

PyObject* import_from(PyObject* module, PyObject* name) {
  PyObject* value = nullptr;
  if (_PyObject_LookupAttr(module, name, &value) != 0) return value;
  // A circular relative import: the submodule may be in sys.modules already.
  Ref package = Ref::steal(PyObject_GetAttrString(module, "__name__"));
  if (!package) return raise_cannot_import(module, name, nullptr);
  if (!PyUnicode_Check(package.get())) return raise_cannot_import(module, name, nullptr);
  Ref full_name = Ref::steal(PyUnicode_FromFormat("%U.%U", package.get(), name));
  if (!full_name) return nullptr;
  value = PyImport_GetModule(full_name.get());
  if (value == nullptr && !PyErr_Occurred()) return raise_cannot_import(module, name, package.get());
  return value;
}

int import_star(_PyInterpreterFrame* frame, PyObject* module) {
  PyFrameObject* frame_object = frame->frame_obj != nullptr ? frame->frame_obj : PyEval_GetFrame();
  if (frame_object == nullptr) {
    PyErr_NoMemory();
    return -1;
  }
  if (PyFrame_FastToLocalsWithError(frame_object) < 0) return -1;
  if (frame->f_locals == nullptr) {
    PyErr_SetString(PyExc_SystemError, "no locals found during 'import *'");
    return -1;
  }
  const int status = import_all(frame->f_locals, module);
  PyFrame_LocalsToFast(frame_object, 0);
  return status;
}

}  // namespace flashpoint
