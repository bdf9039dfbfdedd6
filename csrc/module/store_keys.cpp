// Bindings of the store's keys: the canonical text of a Python value, its digest, facts about the host.
//
//   _store_canonical(value)  -> str, json.dumps(value, sort_keys=True)
//   _store_digest(value)     -> str, the first 32 hex digits of the SHA-256 of that text
//   _store_host()            -> dict: cpu_features, build_id, format_version
//
// GIL: required.
#include <Python.h>

#include <cmath>
#include <string>

#include "module/bindings.h"
#include "py/ref.h"
#include "store/canonical.h"
#include "store/host.h"
#include "store/sha256.h"

namespace flashpoint {
namespace {

// Every function returns false with a Python error set.
class CanonicalWriter {
 public:
  bool write(PyObject* value) {
    if (value == Py_None) return put("null");
    if (value == Py_True) return put("true");
    if (value == Py_False) return put("false");
    if (PyUnicode_Check(value)) return write_string(value);
    if (PyLong_Check(value)) return write_number(PyLong_Type.tp_repr(value));
    if (PyFloat_Check(value)) return write_float(value);
    const bool sequence = PyList_Check(value) || PyTuple_Check(value);
    if (!sequence && !PyDict_Check(value)) {
      PyErr_Format(PyExc_TypeError, "a value of type %s cannot be part of a key", Py_TYPE(value)->tp_name);
      return false;
    }
    if (Py_EnterRecursiveCall(" while writing the canonical form of a key")) return false;
    const bool good = sequence ? write_sequence(value) : write_dict(value);
    Py_LeaveRecursiveCall();
    return good;
  }

  std::string take() { return std::move(out_); }

 private:
  bool put(std::string_view text) {
    out_ += text;
    return true;
  }

  bool write_string(PyObject* value) {
    if (PyUnicode_READY(value) < 0) return false;
    const int kind = PyUnicode_KIND(value);
    const void* data = PyUnicode_DATA(value);
    const Py_ssize_t length = PyUnicode_GET_LENGTH(value);
    out_ += '"';
    for (Py_ssize_t i = 0; i < length; ++i) store::append_code_point(out_, PyUnicode_READ(kind, data, i));
    out_ += '"';
    return true;
  }

  bool write_number(PyObject* repr) {  // steals
    const Ref owned = Ref::steal(repr);
    const char* text = owned ? PyUnicode_AsUTF8(owned.get()) : nullptr;
    return text != nullptr && put(text);
  }

  bool write_float(PyObject* value) {
    const double number = PyFloat_AS_DOUBLE(value);
    if (std::isnan(number)) return put("NaN");
    if (std::isinf(number)) return put(number > 0 ? "Infinity" : "-Infinity");
    return write_number(PyFloat_Type.tp_repr(value));
  }

  bool write_sequence(PyObject* value) {
    const Ref items = Ref::steal(PySequence_List(value));
    if (!items) return false;
    out_ += '[';
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(items.get()); ++i) {
      if (i > 0) out_ += ", ";
      if (!write(PyList_GET_ITEM(items.get(), i))) return false;
    }
    out_ += ']';
    return true;
  }

  bool write_key(PyObject* key) {
    if (PyUnicode_Check(key)) return write_string(key);
    if (key != Py_None && !PyLong_Check(key) && !PyFloat_Check(key)) {
      PyErr_Format(PyExc_TypeError, "a dict with a key of type %s cannot be part of a key",
                   Py_TYPE(key)->tp_name);
      return false;
    }
    out_ += '"';
    if (!write(key)) return false;
    out_ += '"';
    return true;
  }

  bool write_dict(PyObject* value) {
    const Ref items = Ref::steal(PyMapping_Items(value));
    if (!items || PyList_Sort(items.get()) < 0) return false;
    out_ += '{';
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(items.get()); ++i) {
      PyObject* item = PyList_GET_ITEM(items.get(), i);
      if (!PyTuple_Check(item) || PyTuple_GET_SIZE(item) != 2) {
        PyErr_SetString(PyExc_ValueError, "items of a dict must be pairs");
        return false;
      }
      if (i > 0) out_ += ", ";
      if (!write_key(PyTuple_GET_ITEM(item, 0))) return false;
      out_ += ": ";
      if (!write(PyTuple_GET_ITEM(item, 1))) return false;
    }
    out_ += '}';
    return true;
  }

  std::string out_;
};

PyObject* canonical(PyObject*, PyObject* value) {
  CanonicalWriter writer;
  if (!writer.write(value)) return nullptr;
  const std::string text = writer.take();
  return PyUnicode_FromStringAndSize(text.data(), static_cast<Py_ssize_t>(text.size()));
}

PyObject* digest(PyObject*, PyObject* value) {
  CanonicalWriter writer;
  if (!writer.write(value)) return nullptr;
  const store::Digest full = store::sha256(writer.take());
  return PyUnicode_FromString(store::hex(full.data(), 16).c_str());
}

PyObject* host(PyObject*, PyObject*) {
  std::string features;
  for (const std::string& name : store::cpu_features()) features += (features.empty() ? "" : " ") + name;
  return Py_BuildValue("{s:s,s:s,s:I}", "cpu_features", features.c_str(), "build_id",
                       store::build_id().c_str(), "format_version", store::kFormatVersion);
}

PyMethodDef functions[] = {
    {"_store_canonical", canonical, METH_O, "The canonical text of a value: JSON with sorted keys."},
    {"_store_digest", digest, METH_O, "32 hex digits of the SHA-256 of a value's canonical text."},
    {"_store_host", host, METH_NOARGS, "cpu_features, build_id, format_version."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int bind_store_keys(PyObject* module) { return PyModule_AddFunctions(module, functions); }

}  // namespace flashpoint
