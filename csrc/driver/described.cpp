#include "driver/described.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "ir/printer.h"

namespace flashpoint {

namespace {

PyObject* list_of_lines(const std::string& text) {
  Ref whole = Ref::steal(PyUnicode_FromStringAndSize(text.data(), static_cast<Py_ssize_t>(text.size())));
  return whole ? PyUnicode_Splitlines(whole.get(), 0) : nullptr;
}

bool append_text(PyObject* list, const std::string& text) {
  Ref line = Ref::steal(PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace"));
  return line && PyList_Append(list, line.get()) == 0;
}

}  // namespace

PyObject* described_entries(const CodeState& s) {
  Ref list = Ref::steal(PyList_New(0));
  std::vector<std::pair<const Entry*, uint64_t>> all;
  for (size_t i = s.start.entries.size(); i-- > 0;)
    all.emplace_back(s.start.entries[i].get(), s.start.hits[i]);
  const size_t from_start = all.size();
  for (const auto& [key, position] : s.positions) {
    for (size_t i = position.entries.size(); i-- > 0;)
      all.emplace_back(position.entries[i].get(), position.hits[i]);
  }
  for (size_t i = 0; list && i < all.size(); ++i) {
    const Entry& e = *all[i].first;
    Ref guards = Ref::steal(list_of_lines(e.guards().text()));
    const std::string graph = ir::print(e.graph());
    Py_ssize_t frames = 0, slots = 0;  // that a replay restores
    if (e.suspension) {
      for (const FramePlan& f : e.suspension->frames) {
        ++frames;
        slots += std::count_if(f.slots.begin(), f.slots.end(), [](const RecipeValue& v) {
          return v.kind != RecipeValue::Kind::kKeep && v.kind != RecipeValue::Kind::kNull;
        });
      }
    }
    Ref row = Ref::steal(
        guards ? Py_BuildValue("{s:s,s:n,s:O,s:K,s:n,s:n,s:n,s:d,s:O}", "graph", graph.c_str(), "nodes",
                               static_cast<Py_ssize_t>(e.graph().nodes.size()), "guards", guards.get(),
                               "hits", static_cast<unsigned long long>(all[i].second), "effects",
                               static_cast<Py_ssize_t>(e.effect_count()), "frames", frames, "slots", slots,
                               "recorded_us", e.recorded_us, "behind_a_break",
                               i < from_start ? Py_False : Py_True)
               : nullptr);
    if (!row || PyList_Append(list.get(), row.get()) < 0) return nullptr;
  }
  return list.release();
}

PyObject* described_report(const CodeState& s) {
  if (!s.has_report) Py_RETURN_NONE;
  Ref breaks = Ref::steal(PyList_New(0));
  for (size_t i = 0; i < s.reports.size(); ++i) {
    const BreakReport& r = s.reports[i];
    const BreakCost cost = i < s.costs.size() ? s.costs[i] : BreakCost{};
    const size_t colon = r.location.rfind(':');
    const std::string file = r.location.substr(0, colon);
    const int line = colon == std::string::npos ? 0 : std::atoi(r.location.c_str() + colon + 1);
    const std::string message =
        std::string(break_message(r.reason)) + (r.detail.empty() ? "" : " (" + r.detail + ")");
    Ref row =
        Ref::steal(Py_BuildValue("{s:s,s:s,s:s,s:s,s:i,s:d,s:d}", "reason", break_name(r.reason), "message",
                                 message.c_str(), "hint", break_hint(r.reason), "file", file.c_str(), "line",
                                 line, "hand_over_us", cost.hand_over, "resume_us", cost.resume));
    if (!row || PyList_Append(breaks.get(), row.get()) < 0) return nullptr;
  }
  Ref recompiles = Ref::steal(PyList_New(0));
  for (const std::string& why : s.recompiles) {
    if (!append_text(recompiles.get(), why)) return nullptr;
  }
  Ref skipped = Ref::steal(PyList_New(0));
  const auto add_rest = [&](const PositionEntries& position) {
    return position.rest == 0 || append_text(skipped.get(), "for " + std::to_string(position.rest) +
                                                                " more calls: " + position.rest_reason);
  };
  if (!add_rest(s.start)) return nullptr;
  for (const auto& [key, position] : s.positions) {
    if (!add_rest(position)) return nullptr;
  }
  return Py_BuildValue("{s:O,s:s,s:O,s:O,s:O}", "kept", s.kept_last ? Py_True : Py_False, "dropped",
                       s.kept_last || s.reports.empty() ? "" : break_message(s.reports.back().reason),
                       "breaks", breaks.get(), "recompiles", recompiles.get(), "skipped", skipped.get());
}

}  // namespace flashpoint
