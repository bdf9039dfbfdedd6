// Functions of the standard library that C code calls by name, so that no read of the program leads to them:
// copyreg.__newobj__, what abc does for isinstance(). A new process knows them by that name and their code.
//
// GIL: required.
#pragma once

#include <Python.h>

#include <string>

namespace flashpoint::portable {

// Where an imported module of the standard library has a function of that code: its module, and the path in
// it.
bool find_library_code(PyObject* code, std::string* module, std::string* path);

}  // namespace flashpoint::portable
