// Why a recording ends, and who is told.
#pragma once

#include <cstdint>
#include <string>

#include "record/observer.h"

namespace flashpoint {

class GraphRecorder;
class Recorder;

enum class Break : uint8_t {
#define X(name, message, hint) k_##name,
#include "record/breaks.def"
#undef X
};
std::string graph_break_text(const GraphRecorder& graph);
const char* break_name(Break b);
const char* break_message(Break b);
const char* break_hint(Break b);

struct BreakReport {
  Break reason = Break::k_internal;
  std::string detail;
  std::string location;  // file:line, innermost frame
  std::string function;
};

// Told once when a recording ends before its time. `frame` and `operands` are those of the event in whose
// `before` that happened: the instruction has not run, and the recording up to it may be kept. Null:
// what was recorded is of no use.
class BreakSink {
 public:
  virtual ~BreakSink() = default;
  // True: a Python error is set that the instruction is to raise.
  virtual bool on_break(Recorder& recorder, EvalFrame* frame, const Operands* operands) = 0;
};

}  // namespace flashpoint
