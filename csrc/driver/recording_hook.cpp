#include "driver/recording_hook.h"

#include <string>

#include "record/breaks.h"

namespace flashpoint {

namespace {
PyObject* hook = nullptr;
}

EntryTally tally_entries(const CodeState& state) {
  EntryTally tally;
  const auto add = [&](const PositionEntries& position) {
    for (const auto& entry : position.entries) {
      const size_t operators = entry->graph().nodes.size();
      ++tally.entries;
      tally.graphs += operators > 0;
      tally.operators += operators;
    }
  };
  add(state.start);
  for (const auto& [key, position] : state.positions) add(position);
  return tally;
}

void set_recording_hook(PyObject* function) {
  const Ref old = Ref::steal(hook);
  hook = Py_XNewRef(function);
}

bool has_recording_hook() { return hook != nullptr; }

void tell_recording(const CodeState& state, const EntryTally& before) {
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  const EntryTally now = tally_entries(state);
  const auto added = [](size_t after, size_t earlier) {
    return static_cast<Py_ssize_t>(after > earlier ? after - earlier : 0);
  };
  Ref breaks = Ref::steal(PyList_New(0));
  for (const BreakReport& report : state.reports) {
    if (report.reason == Break::k_exception || report.reason == Break::k_needs_base) continue;
    const std::string text =
        std::string(break_message(report.reason)) + (report.detail.empty() ? "" : " (" + report.detail + ")");
    const Ref message =
        Ref::steal(PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace"));
    if (!breaks || !message || PyList_Append(breaks.get(), message.get()) < 0) PyErr_Clear();
  }
  const Ref function = Ref::share(hook);
  const Ref told =
      Ref::steal(breaks ? PyObject_CallFunction(function.get(), "nnnO", added(now.entries, before.entries),
                                                added(now.graphs, before.graphs),
                                                added(now.operators, before.operators), breaks.get())
                        : nullptr);
  if (!told) PyErr_WriteUnraisable(function.get());
  PyErr_Restore(type, value, traceback);
}

}  // namespace flashpoint
