// flashpoint._C.Store: a store in a directory, and the process's own (`_store_shared()`).
//
// Accesses answer with the name of their outcome (store/outcomes.def). Key parts are dicts from str to str;
// what is not UTF-8 in a stored part comes back as surrogates, as with file names.
//
// GIL: required, released while the store works: its locks may be held by its own thread, which never takes
// it.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "module/bindings.h"
#include "py/ref.h"
#include "py/released.h"
#include "py/saved_error.h"
#include "store/store.h"

namespace flashpoint {
namespace {

using store::KeyParts;
using store::Outcome;

struct StoreObject {
  PyObject_HEAD store::Store* store;
  bool owned;
};

store::Store& store_of(PyObject* self) { return *reinterpret_cast<StoreObject*>(self)->store; }

bool take_text(PyObject* value, std::string& out) {
  if (!PyUnicode_Check(value)) {
    PyErr_Format(PyExc_TypeError, "[flashpoint.store] parts of a key are strings, not %.200s",
                 Py_TYPE(value)->tp_name);
    return false;
  }
  const Ref bytes = Ref::steal(PyUnicode_AsEncodedString(value, "utf-8", "surrogateescape"));
  if (!bytes) return false;
  out.assign(PyBytes_AS_STRING(bytes.get()), static_cast<size_t>(PyBytes_GET_SIZE(bytes.get())));
  return true;
}

bool take_parts(PyObject* dict, KeyParts& parts) {
  if (!PyDict_Check(dict)) {
    PyErr_SetString(PyExc_TypeError, "[flashpoint.store] a key is a dict from names to strings");
    return false;
  }
  PyObject *name, *value;
  for (Py_ssize_t at = 0; PyDict_Next(dict, &at, &name, &value);) {
    parts.emplace_back();
    if (!take_text(name, parts.back().first) || !take_text(value, parts.back().second)) return false;
  }
  return true;
}

PyObject* text(const std::string& bytes) {
  return PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "surrogateescape");
}

PyObject* bytes_of(const std::string& bytes) {
  return PyBytes_FromStringAndSize(bytes.data(), static_cast<Py_ssize_t>(bytes.size()));
}

PyObject* dict_of(const KeyParts& parts) {
  Ref dict = Ref::steal(PyDict_New());
  for (const auto& [name, value] : parts) {
    const Ref key = Ref::steal(dict ? text(name) : nullptr);
    const Ref item = Ref::steal(key ? text(value) : nullptr);
    if (!item || PyDict_SetItem(dict.get(), key.get(), item.get()) < 0) return nullptr;
  }
  return dict.release();
}

const char* origin_name(store::Origin origin) {
  switch (origin) {
    case store::Origin::kOwn:
      return "own";
    case store::Origin::kSigned:
      return "signed";
    case store::Origin::kUnsigned:
      return "unsigned";
  }
  return "unsigned";
}

const char* layer_name(store::Layer layer) {
  switch (layer) {
    case store::Layer::kWaiting:
      return "waiting";
    case store::Layer::kUser:
      return "user";
    case store::Layer::kBase:
      return "base";
    case store::Layer::kRemote:
      return "remote";
  }
  return "user";
}

PyObject* make(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* names[] = {"directory", "base", "limit", "max_waiting", "enabled", nullptr};
  PyObject *directory = nullptr, *base = nullptr;
  store::Options options;
  unsigned long long limit = options.limit, max_waiting = options.max_waiting;
  int enabled = 1;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&|O&KKp", const_cast<char**>(names), PyUnicode_FSConverter,
                                   &directory, PyUnicode_FSConverter, &base, &limit, &max_waiting,
                                   &enabled)) {
    Py_XDECREF(directory);
    Py_XDECREF(base);
    return nullptr;
  }
  options.directory = PyBytes_AS_STRING(directory);
  if (base != nullptr) options.base = PyBytes_AS_STRING(base);
  Py_DECREF(directory);
  Py_XDECREF(base);
  options.limit = limit;
  options.max_waiting = max_waiting;
  options.enabled = enabled != 0;
  auto* self = reinterpret_cast<StoreObject*>(type->tp_alloc(type, 0));
  if (self == nullptr) return nullptr;
  self->store = new store::Store(std::move(options));
  self->owned = true;
  return reinterpret_cast<PyObject*>(self);
}

void dealloc(PyObject* object) {
  auto* self = reinterpret_cast<StoreObject*>(object);
  PyTypeObject* type = Py_TYPE(object);
  if (self->owned) released([&] { delete self->store; });
  type->tp_free(object);
  Py_DECREF(type);
}

PyObject* get(PyObject* self, PyObject* key) {
  KeyParts parts;
  if (!take_parts(key, parts)) return nullptr;
  const store::Found found = released([&] { return store_of(self).get(std::move(parts)); });
  const Ref payload =
      found.outcome == Outcome::k_hit ? Ref::steal(bytes_of(found.payload)) : Ref::share(Py_None);
  if (!payload) return nullptr;
  return Py_BuildValue("{s:s,s:O,s:s,s:s}", "outcome", name_of(found.outcome), "payload", payload.get(),
                       "layer", layer_name(found.layer), "origin", origin_name(found.origin));
}

PyObject* put(PyObject* self, PyObject* args) {
  PyObject* key;
  Py_buffer payload;
  if (!PyArg_ParseTuple(args, "Oy*", &key, &payload)) return nullptr;
  std::string bytes(static_cast<const char*>(payload.buf), static_cast<size_t>(payload.len));
  PyBuffer_Release(&payload);
  KeyParts parts;
  if (!take_parts(key, parts)) return nullptr;
  const Outcome outcome = released([&] { return store_of(self).put(std::move(parts), std::move(bytes)); });
  return PyUnicode_FromString(name_of(outcome));
}

PyObject* nearest(PyObject* self, PyObject* key) {
  KeyParts parts;
  if (!take_parts(key, parts)) return nullptr;
  const std::optional<KeyParts> found = released([&] { return store_of(self).nearest(std::move(parts)); });
  if (!found) Py_RETURN_NONE;
  return dict_of(*found);
}

PyObject* flush(PyObject* self, PyObject* args) {
  int milliseconds = 10000;
  if (!PyArg_ParseTuple(args, "|i", &milliseconds)) return nullptr;
  return PyBool_FromLong(released([&] { return store_of(self).flush(milliseconds); }));
}

PyObject* rows_of(const std::vector<store::Listed>& rows) {
  Ref list = Ref::steal(PyList_New(0));
  for (const store::Listed& row : rows) {
    const Ref parts = Ref::steal(list ? dict_of(row.head.parts) : nullptr);
    if (!parts) return nullptr;
    const Ref item = Ref::steal(
        Py_BuildValue("{s:s,s:s,s:s,s:O,s:s,s:L,s:K}", "key", store::hex(row.key).c_str(), "layer",
                      layer_name(row.layer), "outcome", name_of(row.outcome), "parts", parts.get(), "origin",
                      origin_name(row.head.origin), "created", static_cast<long long>(row.head.created),
                      "size", static_cast<unsigned long long>(row.head.payload_size)));
    if (!item || PyList_Append(list.get(), item.get()) < 0) return nullptr;
  }
  return list.release();
}

PyObject* list(PyObject* self, PyObject*) {
  return rows_of(released([&] { return store_of(self).list(); }));
}

PyObject* verify(PyObject* self, PyObject*) {
  Outcome database = Outcome::k_hit;
  const Ref rows = Ref::steal(rows_of(released([&] { return store_of(self).verify(database); })));
  return rows ? Py_BuildValue("sO", name_of(database), rows.get()) : nullptr;
}

PyObject* collect(PyObject* self, PyObject* args) {
  unsigned long long limit = store_of(self).options().limit;
  if (!PyArg_ParseTuple(args, "|K", &limit)) return nullptr;
  return PyUnicode_FromString(name_of(released([&] { return store_of(self).collect(limit); })));
}

PyObject* counts(const uint64_t* values) {
  Ref dict = Ref::steal(PyDict_New());
  for (size_t i = 0; dict && i < store::kOutcomes; ++i) {
    if (values[i] == 0) continue;
    const Ref value = Ref::steal(PyLong_FromUnsignedLongLong(values[i]));
    if (!value || PyDict_SetItemString(dict.get(), store::kOutcomeNames[i], value.get()) < 0) return nullptr;
  }
  return dict.release();
}

PyObject* statistics(PyObject* self, PyObject*) {
  const store::Statistics all = released([&] { return store_of(self).statistics(); });
  const Ref got = Ref::steal(counts(all.got));
  const Ref kept = Ref::steal(counts(all.put));
  if (!got || !kept) return nullptr;
  return Py_BuildValue("{s:O,s:O,s:K,s:K,s:K}", "get", got.get(), "put", kept.get(), "evicted",
                       static_cast<unsigned long long>(all.evicted), "records",
                       static_cast<unsigned long long>(all.records), "bytes",
                       static_cast<unsigned long long>(all.bytes));
}

template <Outcome (store::Store::*Transfer)(const std::string&, std::string_view, uint64_t&)>
PyObject* transfer(PyObject* self, PyObject* args) {
  PyObject* path = nullptr;
  const char* key = "";
  Py_ssize_t key_size = 0;
  if (!PyArg_ParseTuple(args, "O&|y#", PyUnicode_FSConverter, &path, &key, &key_size)) {
    Py_XDECREF(path);
    return nullptr;
  }
  const std::string name = PyBytes_AS_STRING(path);
  Py_DECREF(path);
  const std::string secret(key, static_cast<size_t>(key_size));
  uint64_t count = 0;
  const Outcome outcome = released([&] {
    try {
      return (store_of(self).*Transfer)(name, secret, count);
    } catch (const std::exception&) {  // no memory
      return Outcome::k_internal;
    }
  });
  return Py_BuildValue("sK", name_of(outcome), static_cast<unsigned long long>(count));
}

// The Python function may be called from any thread and dropped in any.
struct WithGil {
  PyGILState_STATE state = PyGILState_Ensure();
  ~WithGil() { PyGILState_Release(state); }
};

Outcome fetch_by(PyObject* function, const store::Digest& key, std::string& bytes) {
  if (_Py_IsFinalizing()) return Outcome::k_unreachable;
  const WithGil gil;
  const SavedError keeper;
  const Ref found = Ref::steal(PyObject_CallFunction(function, "s", store::hex(key).c_str()));
  if (!found || (found.get() != Py_None && !PyBytes_Check(found.get()))) {
    PyErr_Clear();
    return Outcome::k_unreachable;
  }
  if (found.get() == Py_None) return Outcome::k_absent;
  bytes.assign(PyBytes_AS_STRING(found.get()), static_cast<size_t>(PyBytes_GET_SIZE(found.get())));
  return Outcome::k_hit;
}

PyObject* set_remote(PyObject* self, PyObject* args) {
  const char* secret;
  Py_ssize_t size;
  PyObject* function;
  if (!PyArg_ParseTuple(args, "y#O", &secret, &size, &function)) return nullptr;
  std::shared_ptr<store::Remote> remote;
  if (function != Py_None) {
    remote = std::make_shared<store::Remote>();
    remote->secret.assign(secret, static_cast<size_t>(size));
    const std::shared_ptr<PyObject> held(Py_NewRef(function), [](PyObject* dropped) {
      if (_Py_IsFinalizing()) return;
      const WithGil gil;
      Py_DECREF(dropped);
    });
    remote->fetch = [held](const store::Digest& key, std::string& bytes) {
      return fetch_by(held.get(), key, bytes);
    };
  }
  released([&] {
    store_of(self).set_remote(std::move(remote));
    return 0;
  });
  Py_RETURN_NONE;
}

PyObject* pack(PyObject* self, PyObject* args) {
  PyObject* key;
  const char* secret;
  Py_ssize_t size;
  if (!PyArg_ParseTuple(args, "Oy#", &key, &secret, &size)) return nullptr;
  KeyParts parts;
  if (!take_parts(key, parts)) return nullptr;
  const std::string held(secret, static_cast<size_t>(size));
  std::string packed;
  const Outcome outcome = released([&] { return store_of(self).pack(std::move(parts), held, packed); });
  if (outcome != Outcome::k_hit) return Py_BuildValue("sO", name_of(outcome), Py_None);
  return Py_BuildValue("sN", name_of(outcome), bytes_of(packed));
}

PyObject* unpack(PyObject* self, PyObject* args) {
  Py_buffer data;
  const char* secret;
  Py_ssize_t size;
  if (!PyArg_ParseTuple(args, "y*y#", &data, &secret, &size)) return nullptr;
  const std::string bytes(static_cast<const char*>(data.buf), static_cast<size_t>(data.len));
  PyBuffer_Release(&data);
  const std::string held(secret, static_cast<size_t>(size));
  return PyUnicode_FromString(name_of(released([&] { return store_of(self).unpack(bytes, held); })));
}

PyObject* set_clock(PyObject* self, PyObject* args) {
  long long now;
  if (!PyArg_ParseTuple(args, "L", &now)) return nullptr;
  store_of(self).set_clock(now);
  Py_RETURN_NONE;
}

PyObject* get_directory(PyObject* self, void*) {
  return PyUnicode_DecodeFSDefault(store_of(self).options().directory.c_str());
}

PyObject* get_enabled(PyObject* self, void*) { return PyBool_FromLong(store_of(self).options().enabled); }

PyMethodDef methods[] = {
    {"get", get, METH_O, "get(parts) -> dict: outcome, payload, layer, origin."},
    {"put", put, METH_VARARGS, "put(parts, payload) -> outcome; written in the background."},
    {"nearest", nearest, METH_O, "nearest(parts) -> parts of the record with most of them equal, or None."},
    {"flush", flush, METH_VARARGS, "flush(milliseconds=10000) -> whether all is written or given up."},
    {"list", list, METH_NOARGS, "Every record's head."},
    {"verify", verify, METH_NOARGS, "(outcome of the database, every record with its outcome)."},
    {"collect", collect, METH_VARARGS, "collect(limit) -> outcome; removes what is bad or beyond the limit."},
    {"statistics", statistics, METH_NOARGS, "Outcomes of get and put, evicted, records, bytes."},
    {"save", transfer<&store::Store::save>, METH_VARARGS, "save(path, key=b'') -> (outcome, count)."},
    {"load", transfer<&store::Store::load>, METH_VARARGS, "load(path, key=b'') -> (outcome, count)."},
    {"set_remote", set_remote, METH_VARARGS,
     "set_remote(secret, fetch): fetch(key in hex) gives a packed record or None; None instead: no tier."},
    {"pack", pack, METH_VARARGS, "pack(parts, secret) -> (outcome, bytes or None); own records only."},
    {"unpack", unpack, METH_VARARGS, "unpack(bytes, secret) -> outcome; `hit` where there is one already."},
    {"_set_clock", set_clock, METH_VARARGS, "For tests: the time in seconds, 0 for the system's."},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef getset[] = {
    {"directory", get_directory, nullptr, "The directory of the user layer.", nullptr},
    {"enabled", get_enabled, nullptr, "Whether it is switched on.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyType_Slot slots[] = {
    {Py_tp_new, reinterpret_cast<void*>(make)},
    {Py_tp_dealloc, reinterpret_cast<void*>(dealloc)},
    {Py_tp_methods, methods},
    {Py_tp_getset, getset},
    {0, nullptr},
};

PyType_Spec spec = {"flashpoint._C.Store", sizeof(StoreObject), 0, Py_TPFLAGS_DEFAULT, slots};

PyTypeObject* store_type = nullptr;  // owned by the module, which is never unloaded

PyObject* shared(PyObject*, PyObject*) {
  auto* self = reinterpret_cast<StoreObject*>(store_type->tp_alloc(store_type, 0));
  if (self == nullptr) return nullptr;
  self->store = &store::Store::shared();
  return reinterpret_cast<PyObject*>(self);
}

PyObject* at_exit(PyObject*, PyObject*) {
  store::Store* used = store::Store::shared_if_used();
  if (used != nullptr) released([&] { return used->flush(5000); });
  Py_RETURN_NONE;
}

PyObject* outcomes(PyObject*, PyObject*) {
  Ref dict = Ref::steal(PyDict_New());
  for (size_t i = 0; dict && i < store::kOutcomes; ++i) {
    const Ref value = Ref::steal(PyUnicode_FromString(store::kOutcomeTexts[i]));
    if (!value || PyDict_SetItemString(dict.get(), store::kOutcomeNames[i], value.get()) < 0) return nullptr;
  }
  return dict.release();
}

PyObject* decode(PyObject*, PyObject* bytes) {
  char* data;
  Py_ssize_t size;
  if (PyBytes_AsStringAndSize(bytes, &data, &size) < 0) return nullptr;
  store::Head head;
  return PyUnicode_FromString(name_of(store::decode_head({data, static_cast<size_t>(size)}, head)));
}

PyMethodDef functions[] = {
    {"_store_shared", shared, METH_NOARGS, "The process's own store, set up from the environment."},
    {"_store_exit", at_exit, METH_NOARGS, "Writes what the process's own store has waiting."},
    {"_store_outcomes", outcomes, METH_NOARGS, "Every outcome's name with its text."},
    {"_store_decode", decode, METH_O, "For tests: the outcome of decoding bytes as the head of a record."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int bind_store(PyObject* module) {
  store_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
  if (store_type == nullptr) return -1;
  if (PyModule_AddObjectRef(module, "Store", reinterpret_cast<PyObject*>(store_type)) < 0) return -1;
  return PyModule_AddFunctions(module, functions);
}

}  // namespace flashpoint
