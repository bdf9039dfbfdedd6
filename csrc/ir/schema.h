// What the IR knows of an operator: its schema, and traits the schema does not tell.
//
// Operators are torch's, looked up in the dispatcher, or pseudo-operators of our own namespace, one row
// each in pseudo_ops.def. Traits come from schema and tags, corrected by the rows of op_traits.def where
// torch's annotations are silent or wrong.
//
// Threads: any; no GIL needed. A looked-up schema lives as long as the operator stays registered.
#pragma once

#include <ATen/core/function_schema.h>

#include <cstdint>
#include <optional>
#include <string>

#include "ir/graph.h"

namespace c10 {
class OperatorHandle;
}

namespace flashpoint::ir {

enum class PseudoOp : uint8_t {
#define X(name, schema, text) name,
#include "ir/pseudo_ops.def"
#undef X
};

inline constexpr size_t kPseudoOps = 0
#define X(name, schema, text) +1
#include "ir/pseudo_ops.def"
#undef X
    ;

std::optional<PseudoOp> pseudo_op(const Op& op);
Op op_of(PseudoOp pseudo);

// Null when neither table nor dispatcher knows the operator.
const c10::FunctionSchema* find_schema(const Op& op);
std::optional<c10::OperatorHandle> find_operator(const Op& op);

struct OpTraits {
  uint64_t writes = 0;            // bit i: argument i is written, as declared (bit 63: some argument beyond)
  uint64_t hidden_writes = 0;     // bit i: argument i is written although the schema does not say so
  int8_t hidden_writes_if = -1;   // bool argument that must be true for hidden_writes to hold, or -1
  bool rng = false;               // draws from a generator
  bool dynamic_shape = false;     // output shapes depend on data
  bool raises_on_values = false;  // may raise because of what is in the tensors
  bool pure = false;              // may be dropped when its results are unused
  bool fills_nothing = false;     // empty and its family
};
OpTraits traits_of(const c10::OperatorHandle& op);
OpTraits traits_of(const Op& op);  // pseudo-operators included; an unknown operator is impure

// Whether this call may raise because of what is in its tensors.
bool may_raise_on_values(const Graph& graph, const Node& node);

// Which of the arguments a particular call writes, hidden writes included.
template <typename IsTrue>
uint64_t writes_of_call(const OpTraits& traits, IsTrue&& argument_is_true) {
  uint64_t writes = traits.writes;
  if (traits.hidden_writes != 0 &&
      (traits.hidden_writes_if < 0 || argument_is_true(static_cast<size_t>(traits.hidden_writes_if)))) {
    writes |= traits.hidden_writes;
  }
  return writes;
}

}  // namespace flashpoint::ir
