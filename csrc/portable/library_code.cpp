#include "portable/library_code.h"

#include "portable/parts.h"
#include "py/ref.h"

namespace flashpoint::portable {

bool find_library_code(PyObject* code, std::string* module, std::string* path) {
  const char* name = PyUnicode_AsUTF8(reinterpret_cast<PyCodeObject*>(code)->co_qualname);
  PyObject* modules = PyImport_GetModuleDict();
  PyObject* library = PySys_GetObject("stdlib_module_names");
  if (name == nullptr || modules == nullptr || library == nullptr || !PyAnySet_Check(library))
    return PyErr_Clear(), false;
  const std::string wanted = name;
  PyObject *key, *value;
  for (Py_ssize_t pos = 0; PyDict_Next(modules, &pos, &key, &value);) {
    const char* text = PyUnicode_CheckExact(key) && PyModule_Check(value) ? PyUnicode_AsUTF8(key) : nullptr;
    if (text == nullptr) {
      PyErr_Clear();
      continue;
    }
    const std::string found = text;
    const Ref top = Ref::steal(PyUnicode_FromString(found.substr(0, found.find('.')).c_str()));
    if (!top || PySet_Contains(library, top.get()) != 1) {
      PyErr_Clear();
      continue;
    }
    PyObject* function = find_by_name(found, wanted);
    if (function == nullptr || !PyFunction_Check(function) || PyFunction_GET_CODE(function) != code) continue;
    *module = found;
    *path = wanted;
    return true;
  }
  return false;
}

}  // namespace flashpoint::portable
