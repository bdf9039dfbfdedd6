// What a recording knows of an operator, looked up once per recording.
//
// Private to GraphRecorder's own files. Threads: the recording's; no GIL needed.
#pragma once

#include <ATen/core/function_schema.h>

#include <string>

#include "ir/schema.h"
#include "record/graph_breaks.h"
#include "record/graph_recorder.h"

namespace flashpoint {

enum class OpRule : uint8_t { node, transparent, query, value_read, breaks };

struct OpRuleRow {
  OpRule rule = OpRule::node;
  GraphBreak reason = GraphBreak::none;
};

// Whether an operator's shapes depend on data, where that hangs on the call.
using OpCondition = bool (*)(const c10::IValue* arguments);

struct GraphRecorder::OpInfo {
  std::string full_name;
  const c10::FunctionSchema* schema = nullptr;  // operators stay registered while a program runs them
  bool lifts = false;                           // lift_fresh, the end of torch.tensor
  bool converts_literals = false;               // a step between a list of numbers and lift_fresh
  bool factory = false;                         // makes a tensor from nothing, or from another one's metadata
  bool has_out = false;
  bool counts_results = false;  // gives a list, as long as a size of its argument says
  OpCondition dynamic_if = nullptr;
  int32_t op = 0;
  size_t arguments = 0;
  size_t returns = 0;
  OpRuleRow rule;
  ir::OpTraits traits;
};

}  // namespace flashpoint
