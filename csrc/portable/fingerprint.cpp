#include "portable/fingerprint.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "py/ref.h"
#include "store/bytes.h"

namespace flashpoint::portable {

namespace {

using store::put_number;

constexpr int kMaxDepth = 64;

bool put_constant(std::string& out, PyObject* o, int depth);

void put_text(std::string& out, std::string_view text) {
  put_number<uint64_t>(out, text.size());
  out += text;
}

bool put_str(std::string& out, PyObject* text) {
  const Ref bytes = Ref::steal(PyUnicode_AsEncodedString(text, "utf-8", "surrogatepass"));
  if (!bytes) return PyErr_Clear(), false;
  put_text(out, {PyBytes_AS_STRING(bytes.get()), static_cast<size_t>(PyBytes_GET_SIZE(bytes.get()))});
  return true;
}

void put_float(std::string& out, double value) {
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  put_number(out, bits);
}

bool put_code(std::string& out, PyCodeObject* code, int depth) {
  const Ref instructions = Ref::steal(PyCode_GetCode(code));  // as compiled, without inline caches
  if (!instructions) return PyErr_Clear(), false;
  for (const int number : {code->co_argcount, code->co_posonlyargcount, code->co_kwonlyargcount,
                           code->co_stacksize, code->co_flags, code->co_nlocalsplus})
    put_number<int32_t>(out, number);
  for (PyObject* bytes : {instructions.get(), code->co_exceptiontable, code->co_localspluskinds}) {
    if (!PyBytes_CheckExact(bytes)) return false;
    put_text(out, {PyBytes_AS_STRING(bytes), static_cast<size_t>(PyBytes_GET_SIZE(bytes))});
  }
  for (PyObject* part :
       {code->co_consts, code->co_names, code->co_localsplusnames, code->co_name, code->co_qualname}) {
    if (!put_constant(out, part, depth + 1)) return false;
  }
  return true;
}

bool put_constant(std::string& out, PyObject* o, int depth) {
  if (depth > kMaxDepth) return false;
  if (o == Py_None || o == Py_Ellipsis || PyBool_Check(o)) {
    out += o == Py_None ? 'n' : o == Py_Ellipsis ? 'e' : o == Py_True ? 't' : 'f';
    return true;
  }
  if (PyLong_CheckExact(o)) {
    out += 'i';
    const Ref text = Ref::steal(PyLong_Type.tp_repr(o));
    if (!text) return PyErr_Clear(), false;
    return put_str(out, text.get());
  }
  if (PyFloat_CheckExact(o)) {
    out += 'd';
    put_float(out, PyFloat_AS_DOUBLE(o));
    return true;
  }
  if (PyComplex_CheckExact(o)) {
    out += 'c';
    put_float(out, PyComplex_RealAsDouble(o));
    put_float(out, PyComplex_ImagAsDouble(o));
    return true;
  }
  if (PyUnicode_CheckExact(o)) {
    out += 's';
    return put_str(out, o);
  }
  if (PyBytes_CheckExact(o)) {
    out += 'b';
    put_text(out, {PyBytes_AS_STRING(o), static_cast<size_t>(PyBytes_GET_SIZE(o))});
    return true;
  }
  if (PyTuple_CheckExact(o)) {
    out += '(';
    put_number<uint64_t>(out, static_cast<uint64_t>(PyTuple_GET_SIZE(o)));
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(o); ++i) {
      if (!put_constant(out, PyTuple_GET_ITEM(o, i), depth + 1)) return false;
    }
    return true;
  }
  if (PyFrozenSet_CheckExact(o)) {
    std::vector<std::string> elements;
    PyObject* key;
    Py_hash_t hash;
    for (Py_ssize_t pos = 0; _PySet_NextEntry(o, &pos, &key, &hash);) {
      if (!put_constant(elements.emplace_back(), key, depth + 1)) return false;
    }
    std::sort(elements.begin(), elements.end());  // the order of iteration differs between processes
    out += '{';
    put_number<uint64_t>(out, elements.size());
    for (const std::string& element : elements) put_text(out, element);
    return true;
  }
  if (PyCode_Check(o)) {
    out += 'o';
    return put_code(out, reinterpret_cast<PyCodeObject*>(o), depth);
  }
  return false;
}

struct Remembered {
  bool good;
  Digest digest;
};

Py_ssize_t digest_index() {
  static const Py_ssize_t index =
      _PyEval_RequestCodeExtraIndex([](void* found) { delete static_cast<Remembered*>(found); });
  return index;
}

// What these hold differs between definitions of one class, or is filled in later by libraries, and no guard
// takes it for granted.
constexpr std::string_view kUntold[] = {
    "__doc__",         "__module__",          "__dict__",       "__weakref__",
    "__annotations__", "__slotnames__",       "__orig_bases__", "__parameters__",
    "__qualname__",    "__abstractmethods__", "__signature__",  "__text_signature__"};

bool is_told(std::string_view name) {
  return name.size() > 4 && name.starts_with("__") && name.ends_with("__") &&
         std::find(std::begin(kUntold), std::end(kUntold), name) == std::end(kUntold);
}

}  // namespace

bool fingerprint_code(PyObject* code, Digest* digest) {
  void* found = nullptr;
  const Py_ssize_t index = digest_index();
  if (index >= 0 && _PyCode_GetExtra(code, index, &found) == 0 && found != nullptr) {
    *digest = static_cast<Remembered*>(found)->digest;
    return static_cast<Remembered*>(found)->good;
  }
  std::string text;
  const bool good = put_code(text, reinterpret_cast<PyCodeObject*>(code), 0);
  *digest = store::sha256(text);
  if (index >= 0) {
    auto* made = new Remembered{good, *digest};
    if (_PyCode_SetExtra(code, index, made) < 0) delete made;
  }
  PyErr_Clear();
  return good;
}

Digest fingerprint_type(PyTypeObject* type) {
  std::string text;
  const bool heap = PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE);
  put_number<uint8_t>(text, heap);
  put_text(text, type->tp_name);
  for (const Py_ssize_t number :
       {type->tp_basicsize, type->tp_itemsize, type->tp_dictoffset, type->tp_weaklistoffset})
    put_number<int64_t>(text, number);
  // Not the version tag's validity and the like, which come and go.
  put_number<uint64_t>(text, type->tp_flags & ~(Py_TPFLAGS_VALID_VERSION_TAG | Py_TPFLAGS_READYING));
  const bool kinds[] = {type->tp_getattro == PyObject_GenericGetAttr,
                        type->tp_setattro == PyObject_GenericSetAttr,
                        type->tp_descr_get != nullptr,
                        type->tp_descr_set != nullptr,
                        type->tp_call != nullptr,
                        type->tp_del != nullptr,
                        type->tp_finalize != nullptr,
                        type->tp_iter != nullptr,
                        type->tp_iternext != nullptr,
                        type->tp_richcompare != nullptr};
  for (const bool kind : kinds) put_number<uint8_t>(text, kind);
  if (!heap) return store::sha256(text);
  std::vector<std::string> names;
  PyObject *key, *value;
  for (Py_ssize_t pos = 0; PyDict_Next(type->tp_dict, &pos, &key, &value);) {
    const char* name = PyUnicode_CheckExact(key) ? PyUnicode_AsUTF8(key) : nullptr;
    if (name == nullptr) {
      PyErr_Clear();
      continue;
    }
    const bool member = Py_IS_TYPE(value, &PyMemberDescr_Type);  // __slots__
    if (member || is_told(name)) names.push_back(std::string(name) + '=' + Py_TYPE(value)->tp_name);
  }
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) put_text(text, name);
  return store::sha256(text);
}

}  // namespace flashpoint::portable
