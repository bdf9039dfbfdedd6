// Bindings of driver/recordings.h.
//
//   _recordings_enable(bool) -> bool    whether recordings are kept in the store, and whether they were
//   _recordings_write()                 writes what waits now
//   _recordings_exit()                  the same, for the last time
//   _recordings_report(compiled)        (parts of the key or None, how accesses ended)
//   _recordings_encode(compiled)        the portable form of each entry, or the reason why there is none;
//   those
//                                       of the function's start first
//   _recordings_try(bytes, compiled, args)  for tests: (outcome, why, result) of a call that the bytes answer
#include <string>

#include "driver/compiled_function.h"
#include "driver/entry_reader.h"
#include "driver/entry_writer.h"
#include "driver/object_code.h"
#include "driver/recordings.h"
#include "module/bindings.h"
#include "py/layout.h"

namespace flashpoint {
namespace {

PyObject* text(const std::string& bytes) {
  return PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "replace");
}

bool is_compiled(PyObject* object) {
  if (py::is_compiled_function(object)) return true;
  PyErr_Format(PyExc_TypeError, "[flashpoint.store] not a compiled function: %s", Py_TYPE(object)->tp_name);
  return false;
}

PyObject* enable(PyObject*, PyObject* on) {
  const int truth = PyObject_IsTrue(on);
  if (truth < 0) return nullptr;
  const bool before = recordings_enabled();
  set_recordings_enabled(truth != 0);
  return PyBool_FromLong(before);
}

PyObject* write(PyObject*, PyObject*) {
  write_kept_entries();
  Py_RETURN_NONE;
}

PyObject* at_exit(PyObject*, PyObject*) {
  stop_recordings();
  Py_RETURN_NONE;
}

PyObject* report(PyObject*, PyObject* compiled) {
  if (!is_compiled(compiled)) return nullptr;
  const std::shared_ptr<CodeState> state = state_of(compiled);
  Ref lines = Ref::steal(PyList_New(0));
  Ref key = Ref::share(Py_None);
  if (lines && state->stored) {
    for (const std::string& line : state->stored->history) {
      Ref item = Ref::steal(text(line));
      if (!item || PyList_Append(lines.get(), item.get()) < 0) return nullptr;
    }
    if (!state->stored->start.key.empty()) key = Ref::steal(PyDict_New());
    for (const auto& [name, value] : state->stored->start.key) {
      Ref content = Ref::steal(key ? text(value) : nullptr);
      if (!content || PyDict_SetItemString(key.get(), name.c_str(), content.get()) < 0) return nullptr;
    }
  }
  return lines ? PyTuple_Pack(2, key.get(), lines.get()) : nullptr;
}

PyObject* encode(PyObject*, PyObject* compiled) {
  if (!is_compiled(compiled)) return nullptr;
  const std::shared_ptr<CodeState> state = state_of(compiled);
  Ref list = Ref::steal(PyList_New(0));
  std::vector<std::pair<std::shared_ptr<Entry>, std::string>> all;
  for (const std::shared_ptr<Entry>& entry : state->start.entries) all.emplace_back(entry, "");
  for (const auto& [key, position] : state->positions) {
    for (const std::shared_ptr<Entry>& entry : position.entries) all.emplace_back(entry, key);
  }
  for (const auto& [entry, position] : all) {
    std::string reason;
    const std::string bytes = write_entry(*entry, position, &reason);
    Ref item = Ref::steal(
        bytes.empty() ? text(reason)
                      : PyBytes_FromStringAndSize(bytes.data(), static_cast<Py_ssize_t>(bytes.size())));
    if (!item || !list || PyList_Append(list.get(), item.get()) < 0) return nullptr;
  }
  return list.release();
}

PyObject* try_bytes(PyObject*, PyObject* arguments) {
  Py_buffer buffer;
  PyObject *compiled, *args;
  if (!PyArg_ParseTuple(arguments, "y*OO!", &buffer, &compiled, &PyTuple_Type, &args)) return nullptr;
  const std::string bytes(static_cast<const char*>(buffer.buf), static_cast<size_t>(buffer.len));
  PyBuffer_Release(&buffer);
  if (!is_compiled(compiled)) return nullptr;
  PyObject* function = reinterpret_cast<py::CompiledFunctionLayout*>(compiled)->function;
  std::vector<PyObject*> values;
  if (PyMethod_Check(function)) {
    values.push_back(PyMethod_GET_SELF(function));
    function = PyMethod_GET_FUNCTION(function);
  }
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args); ++i) values.push_back(PyTuple_GET_ITEM(args, i));
  const GlobalState now = GlobalState::now();
  const OuterHandling outer = OuterHandling::now();
  ReadOptions options;
  options.backend = state_of(compiled)->backend;
  options.compiler = state_of(compiled)->compiler;
  auto [entry, outcome, why, below] =
      read_entry(bytes, {function, values.data(), values.size(), nullptr, now, outer}, options);
  if (outcome == ReadOutcome::kRaised) return nullptr;
  static constexpr const char* kNames[] = {"read", "other_call", "changed", "malformed"};
  Ref result = Ref::share(Py_None);
  const char* name = kNames[static_cast<int>(outcome)];
  if (entry != nullptr) {
    PyObject* made = nullptr;
    BuiltStack stack;
    const Outcome how = entry->call(values.data(), values.size(), nullptr, now, outer, &made, &stack);
    const bool stands = entry->suspension && !stack.frames.empty();  // up to a break: frames, and no result
    if (how == Outcome::kDone && made == nullptr && !stands) return nullptr;
    if (how == Outcome::kDone && !stands) result = Ref::steal(made);
    if (how == Outcome::kMiss) why = entry->explain_miss();
    if (how != Outcome::kDone) name = how == Outcome::kMiss ? "read, and missed" : "read, and failed";
  }
  Ref reason = Ref::steal(text(why));
  return reason ? Py_BuildValue("sOO", name, reason.get(), result.get()) : nullptr;
}

PyMethodDef functions[] = {
    {"_recordings_enable", enable, METH_O, "Whether recordings are kept in the store; returns what was set."},
    {"_recordings_write", write, METH_NOARGS, "Writes the recordings that wait for it."},
    {"_recordings_exit", at_exit, METH_NOARGS, "The same, for the last time."},
    {"_recordings_report", report, METH_O, "(parts of the key or None, how accesses ended)."},
    {"_recordings_encode", encode, METH_O, "Each entry's portable form, or why it has none."},
    {"_recordings_try", try_bytes, METH_VARARGS, "For tests: a call that a portable form answers."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int bind_recordings(PyObject* module) {
  install_object_store();
  return PyModule_AddFunctions(module, functions);
}

}  // namespace flashpoint
