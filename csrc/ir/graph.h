// The graph a recording produces and a backend consumes: a straight line of operator calls in SSA form.
//
// A Node is one call: operator, arguments in schema order, output values, and the ambient state the call
// ran under (grad mode, inference mode, autocast), because at the composite level that state decides what
// the operator does. Tables (operators, states, strings) are interned per graph; nodes hold indices.
//
// Invariants (checked by ir/verifier.h)
//  - Value ids are dense and in print order: inputs first, then the outputs of each node in turn.
//  - A value is defined before it is used; arguments match the operator's schema in number and kind.
//  - Only metadata and constants are stored: a Graph holds no tensor except the literals of
//    `flashpoint.constant` nodes, and never a Python object.
//  - Node::mutates lists every graph input whose memory the node writes, through views as well.
//
// Equality is structural: table order does not matter, floats compare by bits.
//
// Threads: plain data, no synchronisation; no GIL needed.
#pragma once

#include <ATen/core/ivalue.h>
#include <c10/util/SmallVector.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ir/node_state.h"

namespace flashpoint::ir {

using ValueId = int32_t;
inline constexpr ValueId kNoValue = -1;
inline constexpr int32_t kNoNode = -1;

enum class ValueKind : uint8_t { kTensor, kInt, kFloat, kBool };

using Dims = c10::SmallVector<int64_t, 4>;

// What is known of a tensor without looking at its data. An undefined tensor has dtype Undefined.
struct TensorMeta {
  c10::ScalarType dtype = c10::ScalarType::Undefined;
  c10::Device device = c10::Device(c10::kCPU);
  c10::Layout layout = c10::kStrided;
  bool requires_grad = false;
  bool conj = false;
  bool neg = false;
  Dims sizes;
  Dims strides;  // empty unless the layout is strided

  bool defined() const { return dtype != c10::ScalarType::Undefined; }
  bool operator==(const TensorMeta&) const = default;
};

// Strides of a contiguous tensor of these sizes.
Dims contiguous_strides(const Dims& sizes);

struct Value {
  ValueKind kind = ValueKind::kTensor;
  TensorMeta meta;         // tensors only
  int32_t node = kNoNode;  // producer; kNoNode for graph inputs
};

struct Arg {
  enum class Kind : uint8_t {
    kValue,     // a value of the graph
    kConstant,  // any constant, int, float and bool lists included
    kWrapped,   // a Python number passed where a tensor is expected: a 0-dim tensor of weak dtype
    kList,      // a list with values or None among its elements (Tensor[], Tensor?[], Scalar[], str[])
  };
  Kind kind = Kind::kConstant;
  ValueId value = kNoValue;
  c10::IValue constant;  // kConstant, kWrapped
  std::vector<Arg> list;

  static Arg of_value(ValueId id) {
    Arg arg;
    arg.kind = Kind::kValue;
    arg.value = id;
    return arg;
  }
  static Arg of_constant(c10::IValue constant) {
    Arg arg;
    arg.constant = std::move(constant);
    return arg;
  }
  static Arg wrapped(c10::IValue scalar) {
    Arg arg;
    arg.kind = Kind::kWrapped;
    arg.constant = std::move(scalar);
    return arg;
  }
  static Arg of_list(std::vector<Arg> elements) {
    Arg arg;
    arg.kind = Kind::kList;
    arg.list = std::move(elements);
    return arg;
  }
};

// One return of a call: `count` consecutive values from `first`; count is 1 unless it is a list.
struct Output {
  bool is_list = false;
  ValueId first = kNoValue;
  int32_t count = 1;
  bool operator==(const Output&) const = default;
};

struct Op {
  std::string name;      // "aten::add"
  std::string overload;  // "Tensor", empty for the default
  bool operator==(const Op&) const = default;
};

struct Node {
  uint32_t op = 0;        // Graph::ops
  uint32_t state = 0;     // Graph::states
  uint32_t location = 0;  // Graph::strings; 0 is the empty string
  uint32_t callable = 0;  // Graph::strings: the torch-level callable whose only op this is, or 0
  std::vector<Arg> args;
  c10::SmallVector<Output, 1> outputs;
  c10::SmallVector<ValueId, 1> mutates;  // graph inputs, ascending
};

struct Input {
  ValueId value = kNoValue;
  int32_t source = 0;  // the recorder's name for it; says nothing to a backend
  bool operator==(const Input&) const = default;
};

class Graph {
 public:
  Graph();

  std::string name = "f";
  std::vector<Input> inputs;
  std::vector<Node> nodes;
  std::vector<Value> values;
  std::vector<ValueId> outputs;
  std::vector<Op> ops;
  std::vector<NodeState> states;     // [0] is the default state
  std::vector<std::string> strings;  // [0] is empty

  uint32_t intern_op(const Op& op);
  uint32_t intern_state(const NodeState& state);
  uint32_t intern_string(std::string_view text);  // control characters and blanks at the ends are dropped

  uint32_t append_string(std::string_view text);  // the same without looking for an equal one

  ValueId add_value(Value value);
  // Values of graph inputs that some node writes to, ascending.
  std::vector<ValueId> mutated_inputs() const;
};

bool operator==(const Graph& a, const Graph& b);
bool equal_args(const Arg& a, const Arg& b);

// Calls `visit(ValueId&)` for every value an argument refers to, list elements included.
template <typename A, typename Visit>
void for_each_value(A& arg, Visit&& visit) {
  if (arg.kind == Arg::Kind::kValue) {
    visit(arg.value);
  } else if (arg.kind == Arg::Kind::kList) {
    for (auto& element : arg.list) for_each_value(element, visit);
  }
}

}  // namespace flashpoint::ir
