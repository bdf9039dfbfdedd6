// Reads of CPython objects whose layout is not public, for CPython 3.11.
//
// Everything here is a plain read: no Python code runs, no reference counts change, no errors are set.
// Results are borrowed from the object that was read. This header and csrc/eval/opcodes are the places
// that know a CPython version.
// GIL: required.
#pragma once

#include <Python.h>

#include <cstdint>
#include <string_view>

#include "py/ref.h"

extern "C" {
PyAPI_DATA(PyTypeObject) _PyNamespace_Type;  // types.SimpleNamespace
}

namespace flashpoint::py {

#if PY_VERSION_HEX < 0x030B0000 || PY_VERSION_HEX >= 0x030C0000
#error "flashpoint supports CPython 3.11"
#endif

inline uint64_t dict_tag(PyObject* dict) { return reinterpret_cast<PyDictObject*>(dict)->ma_version_tag; }

// 0 when the type has no valid version tag (it then has to be looked at each time).
inline uint64_t type_tag(PyTypeObject* type) {
  return PyType_HasFeature(type, Py_TPFLAGS_VALID_VERSION_TAG) ? type->tp_version_tag : 0;
}

// The object's instance dict, or null. Inline values of an object are moved into a dict of its own first
// (not visible to the program), so that there is a version tag to look at.
inline PyObject* instance_dict(PyObject* object) {
  PyObject** slot = _PyObject_GetDictPtr(object);
  return slot == nullptr ? nullptr : *slot;
}

// The same, made if the object could have one: what C code has not needed yet is an empty dict to the
// program. Null without an error for an object that has none.
inline PyObject* made_instance_dict(PyObject* object) {
  PyObject** slot = _PyObject_GetDictPtr(object);
  if (slot == nullptr || *slot != nullptr) return slot == nullptr ? nullptr : *slot;
  Py_XDECREF(PyObject_GenericGetDict(object, nullptr));
  PyErr_Clear();
  slot = _PyObject_GetDictPtr(object);
  return slot == nullptr ? nullptr : *slot;
}

struct MappingProxyLayout {
  PyObject_HEAD PyObject* mapping;
};
struct DictViewLayout {
  PyObject_HEAD PyObject* dict;
};
struct SuperLayout {
  PyObject_HEAD PyTypeObject* type;
  PyObject* object;
  PyTypeObject* object_type;
};
struct PropertyLayout {
  PyObject_HEAD PyObject* getter;
  PyObject* setter;
  PyObject* deleter;
};
struct MethodHolderLayout {  // staticmethod, classmethod
  PyObject_HEAD PyObject* callable;
};
struct MethodWrapperLayout {  // a slot wrapper bound to an object
  PyObject_HEAD PyWrapperDescrObject* descriptor;
  PyObject* self;
};
struct PartialLayout {
  PyObject_HEAD PyObject* function;
  PyObject* args;
  PyObject* keywords;
};

struct CacheLinkLayout {  // what a bounded functools.lru_cache keeps under a key
  PyObject_HEAD PyObject* previous;
  PyObject* next;
  Py_hash_t hash;
  PyObject* key;
  PyObject* result;
};

// The result that a functools.lru_cache keeps; `kept` is the value under the key in its dict.
inline PyObject* cached_result(PyObject* kept) {
  static PyTypeObject* links = nullptr;
  if (links == nullptr && std::string_view(Py_TYPE(kept)->tp_name) == "functools._lru_list_elem")
    links = Py_TYPE(kept);
  return Py_IS_TYPE(kept, links) ? reinterpret_cast<CacheLinkLayout*>(kept)->result : kept;
}

struct CachedFunctionLayout {  // a functools.lru_cache
  CacheLinkLayout root;
  ternaryfunc call;
  int typed;
  PyObject* cache;
  Py_ssize_t hits;
  PyObject* function;
  Py_ssize_t maxsize;
};

struct CompiledFunctionLayout {
  PyObject_HEAD PyObject* function;
};

inline PyTypeObject*& compiled_function_type() {
  static PyTypeObject* type = nullptr;
  return type;
}
inline bool is_compiled_function(PyObject* object) { return Py_IS_TYPE(object, compiled_function_type()); }

inline PyObject* proxied_mapping(PyObject* proxy) {
  return reinterpret_cast<MappingProxyLayout*>(proxy)->mapping;
}
inline PyObject* view_dict(PyObject* view) { return reinterpret_cast<DictViewLayout*>(view)->dict; }
inline PyObject* property_getter(PyObject* property) {
  return reinterpret_cast<PropertyLayout*>(property)->getter;
}
inline PyObject* held_callable(PyObject* holder) {
  return reinterpret_cast<MethodHolderLayout*>(holder)->callable;
}

// The slot a __slots__ member names, or null when the descriptor is not a plain object member.
PyObject** object_slot(PyObject* object, PyObject* member_descriptor);

// What super(after, object) finds under name for an object of type `type`; null if nothing.
// (__mro__, __bases__) of a class.
Ref bases_of(PyTypeObject* type);
PyObject* super_lookup(PyTypeObject* type, PyTypeObject* after, PyObject* name);

}  // namespace flashpoint::py
