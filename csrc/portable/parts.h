// What objects are made of, and where they are found by name: what describing one (describe.cpp) and knowing
// it again (match.cpp) have in common. Plain lookups; no code of the program runs.
//
// GIL: required. What comes back as PyObject* is borrowed.
#pragma once

#include <Python.h>

#include <string>
#include <string_view>
#include <vector>

#include "py/ref.h"

namespace flashpoint::portable {

// Empty for what is no string.
std::string utf8(PyObject* text);

// A module that is imported already; null where there is none.
PyObject* imported(const std::string& name);
std::string module_name(PyObject* module);
// What a module was imported as, by its __spec__: `_collections_abc` calls itself `collections.abc`.
std::string spec_name(PyObject* module_dict);
// By lookups in the dicts of an imported module and of classes; null where there is none.
PyObject* find_by_name(const std::string& module, const std::string& path);
// What torch made for C++ code by name: of a module, or what calls an operator of torch.ops.
PyObject* find_record(const std::string& module, const std::string& name);
// The path below torch.ops.<namespace> of what calls one overload, which bears no name itself; empty: none.
std::string path_of_overload(const std::string& module, PyObject* op);
// Types of C code that no module holds under their name.
PyTypeObject* unlisted_type(std::string_view name);

std::string type_module(PyTypeObject* type);
std::string type_name(PyTypeObject* type);
inline PyObject* as_object(PyTypeObject* type) { return reinterpret_cast<PyObject*>(type); }

bool is_singleton(PyObject* o);  // a dtype, layout or memory format
std::string repr_of(PyObject* singleton);

// Optional, Union and the like, which the module has under a name.
bool is_typing_form(PyObject* o);

// X | Y and list[X], as the interpreter makes them; of these, the type and what they are made of, nothing
// where they have something else to say.
bool is_alias(PyObject* o);
std::vector<Ref> alias_parts(PyObject* o);

std::vector<PyObject*> held_by(PyObject* holder);
// What a property or method of a class is told by: code, C code, a class.
bool is_holdable(PyObject* held);
// All that calling it depends on: code, globals, defaults by position and name, what its closure holds.
std::vector<PyObject*> parts_of(PyFunctionObject* f);

inline constexpr PyTypeObject* kDescriptors[] = {&PyMethodDescr_Type, &PyWrapperDescr_Type,
                                                 &PyGetSetDescr_Type, &PyMemberDescr_Type,
                                                 &PyClassMethodDescr_Type};
inline constexpr PyTypeObject* kHolders[] = {&PyProperty_Type, &PyStaticMethod_Type, &PyClassMethod_Type};

template <size_t N>
int index_in(PyTypeObject* const (&types)[N], PyTypeObject* type) {
  for (size_t i = 0; i < N; ++i) {
    if (types[i] == type) return static_cast<int>(i);
  }
  return -1;
}

}  // namespace flashpoint::portable
