#include "driver/trace_format.h"

#include <charconv>
#include <string_view>

namespace flashpoint {

namespace {

using portable::Table;
using portable::ValueRef;

constexpr auto kLastEvent = static_cast<uint8_t>(Event::kRaise);

// What is not there now is not known; the graph is the same without it.
PyObject* known(Table& table, ValueRef ref) { return ref == 0 ? nullptr : table.obtain(ref); }

// Each location is the number of a call, or nothing.
bool names_calls(const ir::Graph& graph, size_t calls) {
  for (const ir::Node& node : graph.nodes) {
    const std::string& location = graph.strings[node.location];
    if (location.empty()) continue;
    size_t number = 0;
    const char* end = location.data() + location.size();
    const auto [stop, error] = std::from_chars(location.data(), end, number);
    if (error != std::errc() || stop != end || number >= calls) return false;
  }
  return true;
}

}  // namespace

void write_trace(const KeptTrace& trace, Table& table, const std::function<ValueRef(PyObject*)>& row_of,
                 std::string& out) {
  store::put_number<uint32_t>(out, static_cast<uint32_t>(trace.callables.size()));
  for (const Ref& callable : trace.callables) {
    const ValueRef ref = table.add(callable.get());
    store::put_number<uint32_t>(out, ref != 0 && table.is_obtainable(ref) ? ref : 0);
  }
  store::put_number<uint32_t>(out, static_cast<uint32_t>(trace.frames.size()));
  for (const KeptTrace::Frame& frame : trace.frames) {
    const ValueRef ref = frame.code ? row_of(frame.code.get()) : 0;
    store::put_number<uint32_t>(out, ref != 0 && table.is_obtainable(ref) ? ref : 0);
    for (const int32_t number : {frame.self, frame.caller, frame.caller_instruction})
      store::put_number<int32_t>(out, number);
  }
  store::put_number<uint32_t>(out, static_cast<uint32_t>(trace.calls.size()));
  for (const KeptTrace::Call& call : trace.calls) {
    store::put_number<int32_t>(out, call.frame);
    store::put_number<int32_t>(out, call.instruction);
    store::put_number<int64_t>(out, call.event);
    store::put_number<int32_t>(out, call.callable);
    store::put_number<uint8_t>(out, static_cast<uint8_t>(call.kind));
    store::put_number<int16_t>(out, call.detail);
  }
}

std::unique_ptr<KeptTrace> read_trace(store::Reader& in, Table& table, const std::vector<PyObject*>& values,
                                      const ir::Graph& graph) {
  auto trace = std::make_unique<KeptTrace>();
  const auto callables = in.number<uint32_t>();
  if (!in.ok() || callables > in.left()) return nullptr;
  for (uint32_t i = 0; i < callables; ++i) {
    const auto ref = in.number<uint32_t>();
    if (!in.ok() || !table.is_valid(ref)) return nullptr;
    PyObject* callable = known(table, ref);
    if (callable != nullptr && !PyCFunction_Check(callable) && !Py_IS_TYPE(callable, &PyMethodDescr_Type))
      return nullptr;
    trace->callables.push_back(Ref::share(callable));
  }
  const auto frames = in.number<uint32_t>();
  if (!in.ok() || frames > in.left()) return nullptr;
  for (uint32_t i = 0; i < frames; ++i) {
    const auto ref = in.number<uint32_t>();
    const auto self = in.number<int32_t>();
    const auto caller = in.number<int32_t>();
    const auto instruction = in.number<int32_t>();
    const bool reached = self == kNoNode || (self >= 0 && static_cast<size_t>(self) < values.size() &&
                                             values[static_cast<size_t>(self)] != nullptr);
    if (!in.ok() || !table.is_valid(ref) || !reached || caller < -1 || caller >= static_cast<int32_t>(i) ||
        instruction < 0)
      return nullptr;
    PyObject* code = known(table, ref);
    if (code != nullptr && !PyCode_Check(code)) return nullptr;
    trace->frames.push_back({Ref::share(code), self, caller, instruction});
  }
  const auto calls = in.number<uint32_t>();
  if (!in.ok() || calls > in.left()) return nullptr;
  for (uint32_t i = 0; i < calls; ++i) {
    KeptTrace::Call call{};
    call.frame = in.number<int32_t>();
    call.instruction = in.number<int32_t>();
    call.event = in.number<int64_t>();
    call.callable = in.number<int32_t>();
    const auto kind = in.number<uint8_t>();
    call.kind = static_cast<Event>(kind);
    call.detail = in.number<int16_t>();
    const bool good = call.frame >= 0 && static_cast<size_t>(call.frame) < trace->frames.size() &&
                      call.instruction >= 0 && call.callable >= -1 &&
                      call.callable < static_cast<int32_t>(trace->callables.size()) && kind <= kLastEvent;
    if (!in.ok() || !good) return nullptr;
    trace->calls.push_back(call);
  }
  return names_calls(graph, trace->calls.size()) ? std::move(trace) : nullptr;
}

}  // namespace flashpoint
