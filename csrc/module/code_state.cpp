// Bindings of driver/code_extra.h: what flashpoint.code_state shows.
//
// An entry crosses as a dict of what is known about it and, under "handle", a capsule that keeps it alive.
#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "driver/code_extra.h"
#include "driver/compiled_function.h"
#include "driver/guard_errors.h"
#include "ir/printer.h"
#include "module/bindings.h"
#include "py/ref.h"

namespace flashpoint {
namespace {

constexpr const char* kHandle = "flashpoint.Entry";

PyObject* handle_of(const std::shared_ptr<Entry>& entry) {
  return PyCapsule_New(new std::shared_ptr<Entry>(entry), kHandle, [](PyObject* capsule) {
    delete static_cast<std::shared_ptr<Entry>*>(PyCapsule_GetPointer(capsule, kHandle));
  });
}

bool is_code(PyObject* object) {
  if (PyCode_Check(object)) return true;
  PyErr_Format(PyExc_TypeError, "[flashpoint.code_state] takes a code object, not %s",
               Py_TYPE(object)->tp_name);
  return false;
}

bool append(PyObject* list, const std::shared_ptr<Entry>& entry, uint64_t hits, const char* backend,
            bool behind_a_break) {
  const std::string text = entry->guards().text();
  const std::string graph = ir::print(entry->graph());
  Ref handle = Ref::steal(handle_of(entry));
  Ref row = Ref::steal(
      handle ? Py_BuildValue("{s:s,s:s,s:s,s:n,s:s,s:K,s:O,s:O}", "compile_id", entry->compile_id.c_str(),
                             "guards", text.c_str(), "graph", graph.c_str(), "nodes",
                             static_cast<Py_ssize_t>(entry->graph().nodes.size()), "backend", backend, "hits",
                             static_cast<unsigned long long>(hits), "behind_a_break",
                             behind_a_break ? Py_True : Py_False, "handle", handle.get())
             : nullptr);
  return row && PyList_Append(list, row.get()) == 0;
}

// (code object, compiled function or None): its entries, or those of all.
PyObject* code_entries(PyObject*, PyObject* args) {
  PyObject *code, *of;
  if (!PyArg_ParseTuple(args, "OO", &code, &of) || !is_code(code)) return nullptr;
  Ref list = Ref::steal(PyList_New(0));
  CodeExtra* extra = code_extra(code, false);
  if (!list || extra == nullptr) return list.release();
  for (const std::shared_ptr<CodeState>& state : extra->living()) {
    if (of != Py_None && state != state_of(of)) continue;
    const char* backend = state->compiler                      ? "torch.compile"
                          : state->backend == Backend::kNative ? "native"
                                                               : "eager";
    const auto add = [&](const PositionEntries& position, bool behind_a_break) {
      for (size_t i = 0; i < position.entries.size(); ++i) {
        if (!append(list.get(), position.entries[i], position.hits[i], backend, behind_a_break)) return false;
      }
      return true;
    };
    if (!add(state->start, false)) return nullptr;
    for (const auto& [key, position] : state->positions) {
      if (!add(position, true)) return nullptr;
    }
  }
  return list.release();
}

PyObject* precompile_entries(PyObject*, PyObject* code) {
  if (!is_code(code)) return nullptr;
  Ref list = Ref::steal(PyList_New(0));
  const CodeExtra* extra = code_extra(code, false);
  if (!list || extra == nullptr) return list.release();
  for (const std::shared_ptr<Entry>& entry : extra->precompiled) {
    if (!append(list.get(), entry, 0, "loaded", false)) return nullptr;
  }
  return list.release();
}

PyObject* load_precompile_entry(PyObject*, PyObject* args) {
  PyObject *code, *handle;
  if (!PyArg_ParseTuple(args, "OO", &code, &handle) || !is_code(code)) return nullptr;
  auto* entry = static_cast<std::shared_ptr<Entry>*>(PyCapsule_GetPointer(handle, kHandle));
  CodeExtra* extra = entry == nullptr ? nullptr : code_extra(code, true);
  if (extra == nullptr) return nullptr;
  extra->precompiled.push_back(*entry);
  Py_RETURN_NONE;
}

PyObject* reset_precompile_entries(PyObject*, PyObject* code) {
  if (!is_code(code)) return nullptr;
  if (CodeExtra* extra = code_extra(code, false); extra != nullptr) {
    // Entries may run Python code when they go.
    const std::vector<std::shared_ptr<Entry>> old = std::exchange(extra->precompiled, {});
  }
  Py_RETURN_NONE;
}

// (handle, arguments, names of those given by keyword or None, times): seconds, and None or why the entry
// does not fit.
PyObject* check_guards(PyObject*, PyObject* arguments) {
  PyObject *handle, *args, *names;
  Py_ssize_t times;
  if (!PyArg_ParseTuple(arguments, "OO!On", &handle, &PyTuple_Type, &args, &names, &times)) return nullptr;
  const auto* found = static_cast<std::shared_ptr<Entry>*>(PyCapsule_GetPointer(handle, kHandle));
  if (found == nullptr) return nullptr;
  const std::shared_ptr<Entry> entry = *found;
  PyObject* kwnames = names == Py_None ? nullptr : names;
  const size_t named = kwnames == nullptr ? 0 : static_cast<size_t>(PyTuple_GET_SIZE(kwnames));
  PyObject* const* first = &PyTuple_GET_ITEM(args, 0);
  const size_t positional = static_cast<size_t>(PyTuple_GET_SIZE(args)) - named;
  const OuterHandling outer = OuterHandling::now();
  entry->tells_what_it_met = true;
  const auto start = std::chrono::steady_clock::now();
  bool fits = true;
  for (Py_ssize_t i = 0; fits && i < times; ++i) {
    fits = entry->fits(first, positional, kwnames, GlobalState::now(), outer);
    entry->let_go();
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  return fits ? Py_BuildValue("dO", took.count(), Py_None)
              : Py_BuildValue("ds", took.count(), entry->explain_miss().c_str());
}

// The entry goes from all lists of the code object; whether it was in one.
PyObject* invalidate_entry(PyObject*, PyObject* args) {
  PyObject *code, *handle;
  if (!PyArg_ParseTuple(args, "OO", &code, &handle) || !is_code(code)) return nullptr;
  const auto* found = static_cast<std::shared_ptr<Entry>*>(PyCapsule_GetPointer(handle, kHandle));
  if (found == nullptr) return nullptr;
  const std::shared_ptr<Entry> entry = *found;  // it may run Python code when it goes: with the last handle
  bool any = false;
  if (CodeExtra* extra = code_extra(code, false); extra != nullptr) {
    for (const std::shared_ptr<CodeState>& state : extra->living()) {
      any = state->start.remove(entry.get()) != nullptr || any;
      for (auto& [key, position] : state->positions) any = position.remove(entry.get()) != nullptr || any;
    }
    any = std::erase(extra->precompiled, entry) > 0 || any;
  }
  return PyBool_FromLong(any);
}

PyObject* reset_code(PyObject*, PyObject* code) {
  if (!is_code(code)) return nullptr;
  reset_compiled_functions_of(code);
  Py_RETURN_NONE;
}

PyObject* strategy(PyObject*, PyObject* code) {
  if (!is_code(code)) return nullptr;
  const CodeExtra* extra = code_extra(code, false);
  const FrameStrategy found = extra == nullptr ? FrameStrategy{} : extra->strategy;
  return Py_BuildValue("ii", static_cast<int>(found.current), static_cast<int>(found.recursive));
}

PyObject* set_strategy(PyObject*, PyObject* args) {
  PyObject* code;
  int current, recursive;
  if (!PyArg_ParseTuple(args, "Oii", &code, &current, &recursive) || !is_code(code)) return nullptr;
  CodeExtra* extra = code_extra(code, true);
  if (extra == nullptr) return nullptr;
  extra->strategy = {static_cast<FrameAction>(current), static_cast<FrameAction>(recursive)};
  Py_RETURN_NONE;
}

PyObject* set_lru(PyObject*, PyObject* on) {
  const int truth = PyObject_IsTrue(on);
  if (truth < 0) return nullptr;
  return PyBool_FromLong(std::exchange(moves_to_front(), truth != 0));
}

PyObject* set_error_hook(PyObject*, PyObject* hook) {
  return set_guard_error_hook(hook == Py_None ? nullptr : hook);
}

PyMethodDef functions[] = {
    {"code_entries", code_entries, METH_VARARGS, "The entries of a code object, or of one function of it."},
    {"precompile_entries", precompile_entries, METH_O, "The loaded entries of a code object."},
    {"load_precompile_entry", load_precompile_entry, METH_VARARGS, "Adds an entry that is looked up first."},
    {"reset_precompile_entries", reset_precompile_entries, METH_O, "Drops what was loaded."},
    {"check_guards", check_guards, METH_VARARGS, "Evaluates the guards of an entry a number of times."},
    {"invalidate_entry", invalidate_entry, METH_VARARGS, "Drops one entry of a code object."},
    {"reset_code", reset_code, METH_O, "Forgets the recordings of the compiled functions of a code object."},
    {"strategy", strategy, METH_O, "What is done with frames of the code, and with those below them."},
    {"set_strategy", set_strategy, METH_VARARGS, "Sets it."},
    {"set_lru", set_lru, METH_O, "Whether entries that answer move to the front; returns what it was."},
    {"set_guard_error_hook", set_error_hook, METH_O, "Called when guards raise; None for none."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int bind_code_state(PyObject* module) { return PyModule_AddFunctions(module, functions); }

}  // namespace flashpoint
